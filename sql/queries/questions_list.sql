/* questions_list */
with page as materialized (
    select k.n, q.*
    from unnest($1::int8[], $2::int8[], $3::int8[], $4::bool[], $5::int8[], $6::int8[]) with ordinality
        as k (product_id, count, skip, backwards, rank, id, n)
    cross join lateral (
        (select q.id, q.body, q.date_written, q.asker_name, q.helpful
         from questions q
         where not k.backwards and q.product_id = k.product_id and not q.reported and (-q.helpful, q.id) > (k.rank, k.id)
         order by -q.helpful, q.id limit k.count offset k.skip)
        union all
        (select q.id, q.body, q.date_written, q.asker_name, q.helpful
         from questions q
         where k.backwards and q.product_id = k.product_id and not q.reported and (-q.helpful, q.id) < (k.rank, k.id)
         order by -q.helpful desc, q.id desc limit k.count)
    ) q
), answer as materialized (
    select p.n, a.*
    from page p cross join lateral (
        select question_id, id, body, date_written, answerer_name, helpful
        from answers where question_id = p.id and not reported offset 0
    ) a
)
select 0::int2 as part, catwalk_snapshot_position() as n, 0::int8 as question_id, 0::int8 as id, 0::int8 as number,
       null as a, null as b, null::timestamptz as date_written, 0::int8 as helpful
union all
select 1::int2, n, id, id, 0, body, asker_name, date_written, helpful from page
union all
select 2::int2, n, question_id, id, 0, body, answerer_name, date_written, helpful from answer
union all
select 3::int2, a.n, a.question_id, a.id, f.id, f.url, null, null, 0
from answer a cross join lateral (select id, url from answers_photos where answer_id = a.id offset 0) f
