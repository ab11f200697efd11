/* answers_list */
with page as materialized (
    select k.n, a.*
    from unnest($1::int8[], $2::int8[], $3::int8[], $4::bool[], $5::int8[], $6::int8[]) with ordinality
        as k (question_id, count, skip, backwards, rank, id, n)
    cross join lateral (
        (select a.id, a.body, a.date_written, a.answerer_name, a.helpful
         from answers a
         where not k.backwards and a.question_id = k.question_id and not a.reported and (-a.helpful, a.id) > (k.rank, k.id)
         order by -a.helpful, a.id limit k.count offset k.skip)
        union all
        (select a.id, a.body, a.date_written, a.answerer_name, a.helpful
         from answers a
         where k.backwards and a.question_id = k.question_id and not a.reported and (-a.helpful, a.id) < (k.rank, k.id)
         order by -a.helpful desc, a.id desc limit k.count)
    ) a
)
select 0::int2 as part, catwalk_snapshot_position() as n, 0::int8 as question_id, 0::int8 as id, 0::int8 as number,
       null as a, null as b, null::timestamptz as date_written, 0::int8 as helpful
union all
select 2::int2, n, 0, id, 0, body, answerer_name, date_written, helpful from page
union all
select 3::int2, p.n, 0, p.id, f.id, f.url, null, null, 0
from page p cross join lateral (select id, url from answers_photos where answer_id = p.id offset 0) f
