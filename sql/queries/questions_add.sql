/* questions_add */
with input as materialized (
    select i.* from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) with ordinality as i (product_id, body, name, email, n)
    where exists (select from products p where p.id = i.product_id)
), question as (
    insert into questions (product_id, body, asker_name, asker_email) select product_id, body, name, email from input order by n
)
select n, product_id, null::int8 from input
