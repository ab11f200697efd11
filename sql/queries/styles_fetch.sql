/* styles_fetch */
select 0::int2 as part, catwalk_snapshot_position() as product_id, 0::int8 as style_id, 0::int8 as id, null::text as a,
       null::text as b, null::numeric as original_price, null::numeric as sale_price, null::int8 as quantity
union all
select 1::int2, id, 0::int8, 0::int8, null, null, null, null, null
from products where id = any($1)
union all
select 2::int2, product_id, id, id, name, null, original_price, sale_price, default_style::int::int8
from styles where product_id = any($1)
union all
select 3::int2, s.product_id, p.style_id, p.id, p.thumbnail_url, p.url, null, null, null
from styles s join photos p on p.style_id = s.id where s.product_id = any($1)
union all
select 4::int2, s.product_id, k.style_id, k.id, k.size, null, null, null, k.quantity
from styles s join skus k on k.style_id = s.id where s.product_id = any($1)
