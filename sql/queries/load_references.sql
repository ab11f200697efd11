/* load_references */
-- Foreign keys of the tables named, and of others to them: constraint, table, its name for a statement, column, table referred to,
-- definition.
select quote_ident(k.conname), t.relname::text, t.oid::regclass::text, quote_ident(a.attname), p.relname::text, pg_get_constraintdef(k.oid, true)
from pg_constraint k
join pg_class t on t.oid = k.conrelid
join pg_class p on p.oid = k.confrelid
join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
where k.contype = 'f' and k.conparentid = 0
    and array[k.conrelid, k.confrelid] && (select array_agg(to_regclass(name)::oid) from unnest($1::text[]) as names (name))
order by k.conname
