/* interactions_add */
with input as materialized (
    select i.* from unnest($1::text[], $2::text[], $3::text[]) with ordinality as i (element, widget, time, n)
), interaction as (
    insert into interactions (element, widget, time) select element, widget, time from input order by n
)
select n, null::int8, null::int8 from input
