/* products_update */
update products
set name = coalesce($2, name), slogan = coalesce($3, slogan), description = coalesce($4, description),
    category = coalesce($5, category), default_price = coalesce($6::text::numeric, default_price)
where id = $1
returning id, name, slogan, description, category, default_price, created_at, updated_at
