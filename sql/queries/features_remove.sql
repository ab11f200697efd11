/* features_remove */
delete from features where id = $1 returning product_id
