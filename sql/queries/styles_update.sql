/* styles_update */
with changed as (
    update styles
    set name = coalesce($2, name), original_price = coalesce($3::text::numeric, original_price),
        sale_price = case when $4 then $5::text::numeric else sale_price end, default_style = coalesce($6, default_style)
    where id = $1
    returning id, product_id, name, original_price, sale_price, default_style
), others as (
    update styles s set default_style = false
    from changed c where $6 and s.product_id = c.product_id and s.id <> c.id and s.default_style
)
select id, product_id, name, original_price, sale_price, default_style from changed
