/* products_search */
select 0::int8 as version, s.position, p.*
from (select catwalk_snapshot_position() as position offset 0) s
left join lateral (
    (select id, name, slogan, description, category, default_price, created_at, updated_at
     from products
     where not $3 and id > $2 and ($6::text is null or category = $6)
         and to_tsvector('english', name || ' ' || slogan || ' ' || description || ' ' || category) @@ websearch_to_tsquery('english', $1)
     order by id limit $4 offset $5)
    union all
    (select id, name, slogan, description, category, default_price, created_at, updated_at
     from products
     where $3 and id < $2 and ($6::text is null or category = $6)
         and to_tsvector('english', name || ' ' || slogan || ' ' || description || ' ' || category) @@ websearch_to_tsquery('english', $1)
     order by id desc limit $4)
) p on true
order by p.id
