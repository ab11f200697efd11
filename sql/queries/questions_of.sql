/* questions_of */
select id from questions where product_id = $1
