/* database_identity */
select s.system_identifier, c.timeline_id::int8, current_setting('server_version_num')::int8
from pg_control_system() s, pg_control_checkpoint() c
