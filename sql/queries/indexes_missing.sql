/* indexes_missing */
select needed.n
from unnest($1::text[], $2::text[], $3::bool[]) with ordinality as needed (table_name, definition, is_unique, n)
where not exists (
    select from pg_index i
    where i.indrelid = to_regclass(needed.table_name) and i.indisvalid and i.indisready and i.indisunique >= needed.is_unique
        and i.indpred is null and regexp_replace(split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2), ' WITH \(.*\)$', '') = needed.definition)
order by needed.n
