/* load_shape */
-- Columns, defaults and checks of the tables named, as one number: another one is another shape.
with named as (select to_regclass(name)::oid as oid, n from unnest($1::text[]) with ordinality as names (name, n))
select md5(string_agg(part, E'\n' order by part)) from (
    select format('%s %s %s %s %s %s', n, attnum, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)) as part
    from named join pg_attribute on attrelid = oid left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped
    union all
    select format('%s %s %s', n, conname, pg_get_constraintdef(k.oid)) from named join pg_constraint k on conrelid = named.oid and contype = 'c'
) parts
