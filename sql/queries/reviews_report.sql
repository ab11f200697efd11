/* reviews_report */
with wanted as (
    select distinct id from unnest($1::int8[]) as w (id)
), locked as materialized (
    select t.id, t.product_id, t.reported from reviews t join wanted w on w.id = t.id order by t.id for no key update of t skip locked
), changed as (
    update reviews t set reported = true from locked l where t.id = l.id and not l.reported
)
select w.id, l.id is not null as done, l.id is not null or exists (select from reviews t where t.id = w.id) as present, l.product_id, null::int8
from wanted w left join locked l on l.id = w.id
