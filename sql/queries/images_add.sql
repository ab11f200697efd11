/* images_add */
insert into shoe_images (shoe_id, img1, img2, img3, img4, img5, img6, img7, vid1, vid2) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
