/* related_remove */
delete from related where current_product_id = $1 and related_product_id = $2
