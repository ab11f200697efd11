/* load_references */
-- Foreign keys of the tables named, and of others to them: constraint, table, its name for a statement, column, table referred to,
-- definition, whether it is one of the tables named.
with named as (select to_regclass(name)::oid as oid from unnest($1::text[]) as names (name))
select quote_ident(k.conname), t.relname::text, t.oid::regclass::text, quote_ident(a.attname), p.relname::text,
    pg_get_constraintdef(k.oid, true), t.oid in (select oid from named)
from pg_constraint k
join pg_class t on t.oid = k.conrelid
join pg_class p on p.oid = k.confrelid
join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
where k.contype = 'f' and k.conparentid = 0 and (k.conrelid in (select oid from named) or k.confrelid in (select oid from named))
    -- What an earlier load has left goes with its schema.
    and t.relnamespace is distinct from to_regnamespace('catwalk_load')
order by k.conname
