/* related_fetch */
select 0::int2 as part, catwalk_snapshot_position() as product_id, 0::int8 as id, 0::int8 as related_product_id
union all
select 1::int2, id, 0::int8, 0::int8
from products where id = any($1)
union all
select 2::int2, current_product_id, id, related_product_id
from related where current_product_id = any($1)
