-- Several database nodes, and several boxes: a primary's life is told to its replicas, positions are known on replicas too, and what
-- boxes hand to clients is signed with one secret.
-- Locks: ACCESS EXCLUSIVE on catwalk_feed for a moment.

alter table catwalk_feed
    -- The life of catwalk_life, which replicas can't read: one that shows another than the primary's has not come that far, or never will.
    add column life bigint,
    -- What a client has written is told to other boxes in tokens signed with it.
    add column secret bytea not null
        default sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- The life of the server that is asked. NULL: it has to begin, or, of a replica, has not been heard of.
create function catwalk_life_now() returns bigint language plpgsql stable as $$
begin
    if pg_is_in_recovery() then
        return (select life from catwalk_feed);
    end if;
    return (select l.life from catwalk_life l join catwalk_feed f on f.life = l.life);
end $$;

-- On a primary where the reading statement's snapshot stands in time: a later snapshot has a higher number. Transactions begin behind
-- xmax, and those before it can only end, so xmax and how few are open before it order snapshots. A replica doesn't know which are
-- open: there it is the position in the WAL up to which the snapshot can have seen at most, and a bit that says so. A commit shows
-- before the position replayed has moved behind it, so that is what was received, too.
create or replace function catwalk_snapshot_position() returns bigint language sql stable parallel safe as $$
    select case when pg_is_in_recovery()
        then (greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) - '0/0')::bigint | (1::bigint << 62)
        else (pg_snapshot_xmax(pg_current_snapshot())::text::bigint << 16)
            | (65535 - least(65535, (select count(*) from pg_snapshot_xip(pg_current_snapshot()))))
    end
$$;
