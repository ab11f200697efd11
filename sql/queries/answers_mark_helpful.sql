/* answers_mark_helpful */
-- Rows are locked in the order of their ids, so that two such statements never wait for each other crosswise; those that somebody
-- else holds are left for the next one.
with wanted as (
    select id, count(*) as votes from unnest($1::int8[]) as w (id) group by id
), locked as materialized (
    select t.id, t.question_id from answers t join wanted w on w.id = t.id order by t.id for no key update of t skip locked
), changed as (
    update answers t set helpful = t.helpful + w.votes from locked l join wanted w on w.id = l.id where t.id = l.id
)
select w.id, l.id is not null as done, l.id is not null or exists (select from answers t where t.id = w.id) as present, (select q.product_id from questions q where q.id = l.question_id), l.question_id
from wanted w left join locked l on l.id = w.id
