/* products_inspect */
select json_build_object(
    'id', p.id, 'name', p.name, 'slogan', p.slogan, 'description', p.description, 'category', p.category,
    'default_price', p.default_price::text,
    'features', (select coalesce(json_agg(json_build_object('id', f.id, 'feature', f.feature, 'value', f.value) order by f.id), '[]')
                 from features f where f.product_id = p.id),
    'styles', (
        select coalesce(json_agg(json_build_object(
            'id', s.id, 'name', s.name, 'original_price', s.original_price::text, 'sale_price', s.sale_price::text,
            'default_style', s.default_style,
            'photos', (select coalesce(json_agg(json_build_object('id', f.id, 'url', f.url, 'thumbnail_url', f.thumbnail_url)
                                                order by f.id), '[]') from photos f where f.style_id = s.id),
            'skus', (select coalesce(json_agg(json_build_object('id', k.id, 'size', k.size, 'quantity', k.quantity) order by k.id), '[]')
                     from skus k where k.style_id = s.id)
        ) order by s.id), '[]')
        from styles s where s.product_id = p.id),
    'related', (select coalesce(json_agg(r.related_product_id order by r.id), '[]') from related r where r.current_product_id = p.id)
)::text
from products p where p.id = $1
