/* reviews_meta */
select 0::int2 as part, catwalk_snapshot_position() as product_id, 0::int8 as id, false as recommend, 0::int8 as reviews,
       null as name, null as value
union all
select 1::int2, product_id, rating, recommend, count(*), null, null
from reviews where product_id = any($1) and not reported group by product_id, rating, recommend
union all
select 2::int2, c.product_id, c.id, false, 0, c.name, v.value
from characteristics c
cross join lateral (
    select round(avg(rated.value), 16)::text as value
    from characteristic_reviews rated join reviews r on r.id = rated.review_id and not r.reported
    where rated.characteristic_id = c.id
) v
where c.product_id = any($1)
