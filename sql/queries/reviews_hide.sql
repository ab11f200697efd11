/* reviews_hide */
update reviews set reported = $2 where id = $1 returning product_id, null::int8
