/* reviews_add */
with input as materialized (
    select i.*, nextval(pg_get_serial_sequence('reviews', 'id')) as id
    from unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::bool[], $6::text[], $7::text[]) with ordinality
        as i (product_id, rating, summary, body, recommend, name, email, n)
    where exists (select from products p where p.id = i.product_id)
), review as (
    insert into reviews (id, product_id, rating, summary, body, recommend, reviewer_name, reviewer_email)
    select id, product_id, rating, summary, body, recommend, name, email from input order by n
), photo as (
    insert into reviews_photos (review_id, url)
    select i.id, f.url from unnest($8::int8[], $9::text[]) with ordinality as f (n, url, place) join input i on i.n = f.n
    order by f.place
), rated as (
    insert into characteristic_reviews (characteristic_id, review_id, value)
    select c.id, i.id, r.value
    from unnest($10::int8[], $11::int8[], $12::int8[]) as r (n, characteristic_id, value) join input i on i.n = r.n
    join characteristics c on c.id = r.characteristic_id and c.product_id = i.product_id
)
select n, product_id, null::int8 from input
