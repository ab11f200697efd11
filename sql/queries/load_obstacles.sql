/* load_obstacles */
-- What depends on the tables named and can't be given to those that take their place.
select format('materialized view %s reads %s', v.oid::regclass, d.refobjid::regclass)
from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid join pg_class v on v.oid = r.ev_class
where d.refclassid = 'pg_class'::regclass and v.relkind = 'm' and d.refobjid = any (select to_regclass(name) from unnest($1::text[]) as n (name))
union
select format('function %s is compiled against %s', d.objid::regprocedure, d.refobjid::regclass)
from pg_depend d
where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjid = any (select to_regclass(name) from unnest($1::text[]) as n (name))
union
select format('publication %I names %s', p.pubname, r.prrelid::regclass)
from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
where r.prrelid = any (select to_regclass(name) from unnest($1::text[]) as n (name))
union
select format('%s has child tables or is one', c.oid::regclass)
from pg_class c
where c.oid = any (select to_regclass(name) from unnest($1::text[]) as n (name))
    and exists (select from pg_inherits i where c.oid in (i.inhparent, i.inhrelid))
