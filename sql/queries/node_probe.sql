/* node_probe */
select pg_is_in_recovery(),
       (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::bigint,
       case when pg_is_in_recovery() then null else (pg_current_wal_flush_lsn() - '0/0')::bigint end,
       case when pg_is_in_recovery() then null
            else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 end,
       pg_current_snapshot()::text, catwalk_life_now(), d.oid || ' ' || pg_postmaster_start_time()
from pg_database d where d.datname = current_database()
