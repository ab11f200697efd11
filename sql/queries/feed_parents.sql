/* feed_parents */
select 'styles' as what, product_id as id from styles where id = any ($1)
union
select 'reviews', product_id from reviews where id = any ($2)
union
select 'questions', product_id from questions where id = any ($3)
union
select 'answers', question_id from answers where id = any ($4)
union
select 'questions', q.product_id from answers a join questions q on q.id = a.question_id where a.id = any ($4)
