/* node_open */
select coalesce(string_agg(transactionid::text, ','), '') from pg_locks where locktype = 'transactionid' and mode = 'ExclusiveLock'
