/* reviews_relevant */
-- First the recent block, then the rest, each by helpfulness.
with k as materialized (
    select k.n, k.product_id, k.count, k.skip, k.backwards, k.is_rest, k.helpfulness, k.date, k.id,
           coalesce(k.edge_date, e.date) as edge_date, coalesce(k.edge_id, e.id) as edge_id
    from unnest($1::int8[], $2::int8[], $3::int8[], $4::bool[], $5::bool[], $6::int8[], $7::timestamptz[], $8::int8[],
                $9::timestamptz[], $10::int8[]) with ordinality
        as k (product_id, count, skip, backwards, is_rest, helpfulness, date, id, edge_date, edge_id, n)
    left join lateral (
        select b.date, b.id
        from (select r.date, r.id from reviews r
              where k.edge_id is null and r.product_id = k.product_id and not r.reported
                  and r.date >= (select m.date from reviews m where m.product_id = k.product_id and not m.reported
                                 order by m.date desc, m.id desc limit 1) - interval '2160 hours'
              order by r.date desc, r.id desc limit 1000) b
        order by b.date, b.id limit 1
    ) e on true
), page as materialized (
    select k.n, r.*
    from k cross join lateral (
        with recent as materialized (
            select r.id, r.rating, r.summary, r.recommend, r.response, r.body, r.date, r.reviewer_name, r.helpfulness
            from reviews r
            where r.product_id = k.product_id and not r.reported and (r.date, r.id) >= (k.edge_date, k.edge_id)
            order by r.date desc, r.id desc
        ), fore as materialized (
            select r.*, true as is_recent from recent r
            where not k.backwards and not k.is_rest and (r.helpfulness, r.date, r.id) < (k.helpfulness, k.date, k.id)
            order by r.helpfulness desc, r.date desc, r.id desc limit k.count offset k.skip
        ), aft as materialized (
            select r.id, r.rating, r.summary, r.recommend, r.response, r.body, r.date, r.reviewer_name, r.helpfulness,
                   false as is_recent
            from reviews r
            where k.backwards and k.is_rest and r.product_id = k.product_id and not r.reported
                and (r.date, r.id) < (k.edge_date, k.edge_id) and (r.helpfulness, r.date, r.id) > (k.helpfulness, k.date, k.id)
            order by r.helpfulness, r.date, r.id limit k.count
        )
        select * from fore
        union all
        (select r.id, r.rating, r.summary, r.recommend, r.response, r.body, r.date, r.reviewer_name, r.helpfulness, false
         from reviews r
         where not k.backwards and r.product_id = k.product_id and not r.reported
             and (r.date, r.id) < (k.edge_date, k.edge_id)
             and (r.helpfulness, r.date, r.id) < (case when k.is_rest then k.helpfulness else 9223372036854775807 end,
                                                  case when k.is_rest then k.date else 'infinity' end, k.id)
         order by r.helpfulness desc, r.date desc, r.id desc
         limit k.count - (select count(*) from fore) offset greatest(0, k.skip - (select count(*) from recent)))
        union all
        select * from aft
        union all
        (select r.*, true from recent r
         where k.backwards and (k.is_rest or (r.helpfulness, r.date, r.id) > (k.helpfulness, k.date, k.id))
         order by r.helpfulness, r.date, r.id limit k.count - (select count(*) from aft))
    ) r
)
select 0::int2 as part, catwalk_snapshot_position() as n, 0::int8 as id, 0::int8 as number, null as a, null as b, null as c,
       null as d, false as recommend, null::timestamptz as date, 0::int8 as helpfulness, false as is_recent
union all
select 1::int2, n, id, rating, summary, body, reviewer_name, response, recommend, date, helpfulness, is_recent from page
union all
select 2::int2, p.n, p.id, f.id, f.url, null, null, null, false, null, 0, false
from page p cross join lateral (select id, url from reviews_photos where review_id = p.id offset 0) f
union all
select 3::int2, n, edge_id, 0, null, null, null, null, false, edge_date, 0, false from k where edge_id is not null
