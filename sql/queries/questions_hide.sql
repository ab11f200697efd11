/* questions_hide */
update questions set reported = $2 where id = $1 returning product_id, null::int8
