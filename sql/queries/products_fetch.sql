/* products_fetch */
select 0::int2 as part, catwalk_snapshot_position() as product_id, 0::int8 as id, null as a, null as b, null as c, null as d,
       null::numeric as default_price, null::timestamptz as created_at, null::timestamptz as updated_at
union all
select 1::int2, id, id, name, slogan, description, category,
       default_price, created_at, updated_at
from products where id = any($1)
union all
select 2::int2, product_id, id, feature, value, null, null, null, null, null
from features where product_id = any($1)
