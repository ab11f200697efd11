/* feed_styles */
select distinct product_id from styles where id = any ($1)
