/* products_some */
select 0::int8 as version, s.position, p.id, p.name, p.slogan, p.description, p.category, p.default_price, p.created_at, p.updated_at
from (select catwalk_snapshot_position() as position offset 0) s
left join products p on p.id = any($1)
