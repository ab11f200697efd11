/* load_indexes */
-- How a table's indexes are made anew, primary key first: table, name, statement, and the kind of constraint that it carries.
select t.relname::text, quote_ident(c.relname), pg_get_indexdef(i.indexrelid, 0, true), coalesce(k.contype::text, ''), i.indisprimary
from pg_index i
join pg_class t on t.oid = i.indrelid
join pg_class c on c.oid = i.indexrelid
left join pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u')
where t.oid in (select to_regclass(name) from unnest($1::text[]) as names (name)) and i.indisvalid
order by i.indisprimary desc, t.relname, c.relname
