/* load_obstacles */
-- What the tables named have, or what depends on them, that can't be given to those that take their place.
with named as (select c.* from pg_class c where c.oid in (select to_regclass(name)::oid from unnest($1::text[]) as names (name)))
select format('materialized view %s reads %s: drop it, and make it again after the load', v.oid::regclass, d.refobjid::regclass)
from pg_depend d join named n on n.oid = d.refobjid
join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid join pg_class v on v.oid = r.ev_class
where d.refclassid = 'pg_class'::regclass and v.relkind = 'm'
union
select format('%s is made of %s: drop it, and make it again after the load', pg_describe_object(d.classid, d.objid, d.objsubid), n.oid::regclass)
from pg_depend d join named n on d.refobjid = n.oid and d.refclassid = 'pg_class'::regclass
    or d.refobjid in (n.reltype, (select t.typarray from pg_type t where t.oid = n.reltype)) and d.refclassid = 'pg_type'::regclass
where d.classid in ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_policy'::regclass) and d.deptype = 'n'
    and not (d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass)
union
select format('publication %I has %s: take it out, and add it again after the load', p.pubname, n.oid::regclass)
from pg_publication_tables p join named n on n.oid = to_regclass(format('%I.%I', p.schemaname, p.tablename))
union
select format('%s has child tables or is one: a load fills plain tables', n.oid::regclass)
from named n where exists (select from pg_inherits i where n.oid in (i.inhparent, i.inhrelid))
union
select format('%s has row security: a load cannot take its policies along', n.oid::regclass)
from named n where n.relrowsecurity or exists (select from pg_policy p where p.polrelid = n.oid)
union
select format('%s has the exclusion constraint %I: drop it, and make it again after the load', n.oid::regclass, k.conname)
from named n join pg_constraint k on k.conrelid = n.oid where k.contype = 'x'
union
select format('%s is identified to replicas by an index: alter it to full or default', n.oid::regclass) from named n where n.relreplident = 'i'
union
select format('%s belongs to %I: load as its owner', n.oid::regclass, pg_get_userbyid(n.relowner))
from named n where not pg_has_role(n.relowner, 'usage')
union
select format('tables have to be made in schema %I: grant create on it', current_schema())
where not has_schema_privilege(current_schema(), 'create')
union
select format('schemas and temporary tables have to be made in database %I: grant create, temporary on it', current_database())
where not has_database_privilege(current_database(), 'create') or not has_database_privilege(current_database(), 'temporary')
