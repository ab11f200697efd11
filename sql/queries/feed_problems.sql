/* feed_problems */
select format('trigger catwalk_%s on %s is missing, replaced or not enabled', e.name, f.name)
from catwalk_followed f
cross join (values ('added', 'A', null), ('removed', 'A', null), ('changed', 'A', null),
                   ('emptied', 'A', 'catwalk_note_everything'), ('applied', 'R', 'catwalk_note_row')) as e (name, enabled, note)
where not exists (
    select from pg_trigger t
    where t.tgrelid = to_regclass(f.name) and t.tgname = 'catwalk_' || e.name and t.tgenabled = e.enabled::"char"
      and t.tgfoid = to_regproc(coalesce(e.note, f.note)))
union all
select format('trigger %s on products is missing or not enabled', e.name)
from (values ('products_touch', 'A'), ('products_rank_added', 'A'), ('products_rank_removed', 'A'), ('products_rank_moved', 'A'),
             ('products_rank_emptied', 'A'), ('products_rank_applied', 'R')) as e (name, enabled)
where not exists (
    select from pg_trigger t
    where t.tgrelid = to_regclass('products') and t.tgname = e.name and t.tgenabled = e.enabled::"char")
union all
select format('table %s has child tables or is one, whose changes are not noted', f.name)
from catwalk_followed f
where exists (select from pg_inherits i where to_regclass(f.name) in (i.inhparent, i.inhrelid))
union all
select format('table %s has row security: who reads it may not see what was noted', f.name)
from catwalk_followed f join pg_class c on c.oid = to_regclass(f.name) where c.relrowsecurity
