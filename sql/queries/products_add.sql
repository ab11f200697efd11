/* products_add */
insert into products (name, slogan, description, category, default_price)
values ($1, $2, $3, $4, $5::text::numeric)
returning id, name, slogan, description, category, default_price, created_at, updated_at
