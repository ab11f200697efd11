/* images_show */
select img1, img2, img3, img4, img5 from shoe_images where shoe_id = $1 order by id limit 1
