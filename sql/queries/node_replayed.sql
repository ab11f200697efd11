/* node_replayed */
select (pg_last_wal_replay_lsn() - '0/0')::bigint, (greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) - '0/0')::bigint
where pg_is_in_recovery()
