/* images_change */
update shoe_images
set img1 = coalesce($2, img1), img2 = coalesce($3, img2), img3 = coalesce($4, img3), img4 = coalesce($5, img4), img5 = coalesce($6, img5), img6 = coalesce($7, img6), img7 = coalesce($8, img7), vid1 = coalesce($9, vid1), vid2 = coalesce($10, vid2)
where shoe_id = $1
