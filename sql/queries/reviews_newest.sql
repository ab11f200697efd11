/* reviews_newest */
with page as materialized (
    select k.n, r.*
    from unnest($1::int8[], $2::int8[], $3::int8[], $4::bool[], $5::timestamptz[], $6::int8[]) with ordinality
        as k (product_id, count, skip, backwards, date, id, n)
    cross join lateral (
        (select r.id, r.rating, r.summary, r.recommend, r.response, r.body, r.date, r.reviewer_name, r.helpfulness
         from reviews r
         where not k.backwards and r.product_id = k.product_id and not r.reported and (r.date, r.id) < (k.date, k.id)
         order by r.date desc, r.id desc limit k.count offset k.skip)
        union all
        (select r.id, r.rating, r.summary, r.recommend, r.response, r.body, r.date, r.reviewer_name, r.helpfulness
         from reviews r
         where k.backwards and r.product_id = k.product_id and not r.reported and (r.date, r.id) > (k.date, k.id)
         order by r.date, r.id limit k.count)
    ) r
)
select 0::int2 as part, catwalk_snapshot_position() as n, 0::int8 as id, 0::int8 as number, null as a, null as b, null as c,
       null as d, false as recommend, null::timestamptz as date, 0::int8 as helpfulness
union all
select 1::int2, n, id, rating, summary, body, reviewer_name, response, recommend, date, helpfulness from page
union all
select 2::int2, p.n, p.id, f.id, f.url, null, null, null, false, null, 0
from page p cross join lateral (select id, url from reviews_photos where review_id = p.id offset 0) f
