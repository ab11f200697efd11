/* related_add */
insert into related (current_product_id, related_product_id)
select $1, $2 where not exists (select from related where current_product_id = $1 and related_product_id = $2)
