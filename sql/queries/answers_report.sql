/* answers_report */
with wanted as (
    select distinct id from unnest($1::int8[]) as w (id)
), locked as materialized (
    select t.id, t.question_id, t.reported from answers t join wanted w on w.id = t.id order by t.id for no key update of t skip locked
), changed as (
    update answers t set reported = true from locked l where t.id = l.id and not l.reported
)
select w.id, l.id is not null as done, l.id is not null or exists (select from answers t where t.id = w.id) as present, (select q.product_id from questions q where q.id = l.question_id), l.question_id
from wanted w left join locked l on l.id = w.id
