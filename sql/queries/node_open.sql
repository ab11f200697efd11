/* node_open */
select coalesce(string_agg(l.transactionid::text, ','), '')
from pg_locks l left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
    and coalesce(a.datname, current_database()) = current_database()
