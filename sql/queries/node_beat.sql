/* node_beat */
select set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'catwalk', '')
