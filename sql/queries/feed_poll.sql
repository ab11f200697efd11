/* feed_poll */
with noted as materialized (
    (select what, id from catwalk_changes
     where xid >= $1::text::xid8 and xid < pg_snapshot_xmax(pg_current_snapshot()) order by xid limit 131073)
    union all
    (select what, id from catwalk_changes where xid = any ($2::text[]::xid8[]) limit 131073)
)
select null::text as what, null::bigint as id, pg_current_snapshot()::text, f.dropped_xid::text,
       (select count(*) from noted), l.life
from catwalk_feed f left join catwalk_life l on true
union all
select * from (select distinct what, id, null, null, null::bigint, null::bigint from noted limit 131073) changes
