/* answers_hide */
update answers a set reported = $2 where id = $1
returning (select q.product_id from questions q where q.id = a.question_id), a.question_id
