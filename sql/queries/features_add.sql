/* features_add */
insert into features (product_id, feature, value) values ($1, $2, $3) returning id
