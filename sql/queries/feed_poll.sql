/* feed_poll */
select null::text as what, null::bigint as id, s.snapshot::text, f.followed, m.server, m.in_recovery
from (select pg_current_snapshot() as snapshot) s,
     (select pg_backend_pid() || ' ' || pg_postmaster_start_time() as server, pg_is_in_recovery() as in_recovery) m,
     (select coalesce(sum(hashtextextended(concat(t.oid, ' ', t.xmin, ' ', t.tgenabled, ' ', p.oid, ' ', p.xmin, ' ',
                 r.relhassubclass, ' ', pg_relation_filenode(r.oid)), 0)), 0)::text as followed
      from unnest(array['products', 'features', 'styles', 'related', 'photos', 'skus']) name
           join pg_class r on r.oid = to_regclass(name)
           join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
           join pg_proc p on p.oid = t.tgfoid) f
union all
select * from (
    select distinct c.what, case c.what when 'style' then s.product_id else c.id end, null, null, null, null::boolean
    from (select what, id from catwalk_changes where xid >= $1::text::xid8
          union all
          select what, id from catwalk_changes where xid = any ($2::text[]::xid8[])) c
         left join styles s on c.what = 'style' and s.id = c.id
    limit $3) changes
