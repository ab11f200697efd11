/* answers_add */
with input as materialized (
    select i.*, q.product_id, nextval(pg_get_serial_sequence('answers', 'id')) as id
    from unnest($1::int8[], $2::text[], $3::text[], $4::text[]) with ordinality as i (question_id, body, name, email, n)
    join questions q on q.id = i.question_id
), answer as (
    insert into answers (id, question_id, body, answerer_name, answerer_email)
    select id, question_id, body, name, email from input order by n
), photo as (
    insert into answers_photos (answer_id, url)
    select i.id, f.url from unnest($5::int8[], $6::text[]) with ordinality as f (n, url, place) join input i on i.n = f.n
    order by f.place
)
select n, product_id, question_id from input
