/* skus_update */
update skus set quantity = $2 where id = $1
