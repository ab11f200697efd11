/* images_remove */
delete from shoe_images where shoe_id = $1
