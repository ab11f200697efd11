/* skus_add */
insert into skus (style_id, size, quantity) values ($1, $2, $3) returning id
