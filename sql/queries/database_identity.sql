/* database_identity */
select s.system_identifier, current_setting('server_version_num')::int8,
       case when pg_is_in_recovery() then null
            else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 end,
       f.secret
from pg_control_system() s, catwalk_feed f
