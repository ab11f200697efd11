/* feed_poll */
with noted as materialized (
    (select xid, what, id from catwalk_changes
     where xid >= $1::text::xid8 and xid < pg_snapshot_xmax(pg_current_snapshot()) and xid <> all ($3::text[]::xid8[])
     order by xid limit 131073)
    union all
    (select xid, what, id from catwalk_changes where xid = any ($2::text[]::xid8[]) and xid <> all ($3::text[]::xid8[]) limit 131073)
)
select null::text as what, null::bigint as id, pg_current_snapshot()::text, f.dropped_xid::text,
       (select count(*) from noted), catwalk_life_now(),
       case when pg_is_in_recovery() then (select string_agg(distinct xid::text, ',') from noted) end
from catwalk_feed f
union all
select * from (select distinct what, id, null, null, null::bigint, null::bigint, null from noted limit 131073) changes
