/* products_fetch */
select 1::int2 as part, id as product_id, id, name as a, slogan as b, description as c, category as d,
       default_price, created_at, updated_at
from products where id = any($1)
union all
select 2::int2, product_id, id, feature, value, null, null, null, null, null
from features where product_id = any($1)
