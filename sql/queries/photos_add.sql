/* photos_add */
with added as (
    insert into photos (style_id, url, thumbnail_url) values ($1, $2, $3) returning id, style_id
)
select a.id, s.product_id from added a join styles s on s.id = a.style_id
