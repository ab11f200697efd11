/* load_belongings */
-- Statements that give a table in another's place what the other had: owner, storage parameters, rights, triggers of others, views.
with swapped as (select to_regclass(name) as oid from unnest($1::text[]) as names (name))
select statement from (
    select 1 as step, format('alter table %s owner to %I', c.oid::regclass, pg_get_userbyid(c.relowner)) as statement
    from pg_class c join swapped using (oid) where pg_get_userbyid(c.relowner) <> current_user
    union all
    select 2, format('alter table %s set (%s)', c.oid::regclass, array_to_string(c.reloptions, ', '))
    from pg_class c join swapped using (oid) where c.reloptions is not null
    union all
    select 3, format('grant %s on %s to %s%s', a.privilege_type, c.oid::regclass,
                     case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                     case when a.is_grantable then ' with grant option' else '' end)
    from pg_class c join swapped using (oid), aclexplode(c.relacl) a where a.grantee <> c.relowner
    union all
    select 4, format('grant %s (%I) on %s to %s', a.privilege_type, t.attname, t.attrelid::regclass,
                     case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end)
    from pg_attribute t join swapped on oid = attrelid, aclexplode(t.attacl) a
    union all
    -- A copy of an identity column has its sequence named so.
    select 4, format('grant %s on sequence %I to %s', a.privilege_type, t.relname || '_id_seq',
                     case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end)
    from pg_depend d join swapped on oid = d.refobjid join pg_class t on t.oid = d.refobjid
    join pg_class q on q.oid = d.objid and q.relkind = 'S', aclexplode(q.relacl) a
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and a.grantee <> q.relowner
    union all
    select 4, format('alter table %s replica identity %s', c.oid::regclass, case c.relreplident when 'f' then 'full' else 'nothing' end)
    from pg_class c join swapped using (oid) where c.relreplident in ('f', 'n')
    union all
    select 5, pg_get_triggerdef(t.oid, true)
    from pg_trigger t join swapped s on s.oid = t.tgrelid
    where not t.tgisinternal and t.tgname !~ '^(catwalk_|products_(touch|rank_))'
    union all
    select 6, format('alter table %s %s trigger %I', t.tgrelid::regclass,
                     case t.tgenabled when 'D' then 'disable' when 'A' then 'enable always' else 'enable replica' end, t.tgname)
    from pg_trigger t join swapped s on s.oid = t.tgrelid
    where not t.tgisinternal and t.tgname !~ '^(catwalk_|products_(touch|rank_))' and t.tgenabled <> 'O'
    union all
    select distinct 7, format('create or replace view %s%s as %s', v.oid::regclass,
                     ' with (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid, true))
    from pg_depend d join swapped s on s.oid = d.refobjid
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid join pg_class v on v.oid = r.ev_class
    where d.refclassid = 'pg_class'::regclass and v.relkind = 'v'
) belongings order by step
