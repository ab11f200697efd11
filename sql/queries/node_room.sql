/* node_room */
select s.system_identifier, pg_size_bytes(current_setting('wal_segment_size')),
       current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8,
       (select count(*) from pg_stat_activity where application_name = 'catwalk watch')
from pg_control_system() s
