/* styles_add */
insert into styles (product_id, name, original_price, sale_price, default_style)
values ($1, $2, $3::text::numeric, $4::text::numeric, $5) returning id
