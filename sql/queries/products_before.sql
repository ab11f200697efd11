/* products_before */
select 0::int8 as version, s.position, p.id, p.name, p.slogan, p.description, p.category, p.default_price, p.created_at, p.updated_at
from (select catwalk_snapshot_position() as position offset 0) s
left join lateral (
    select * from products where id < $1 order by id desc limit $2
) p on true
order by p.id
