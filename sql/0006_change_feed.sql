-- The change feed: triggers note which answers each transaction touches, in the transaction itself, so that a server that keeps
-- answers learns of every change whoever makes it. One row a product and kind of change, all rows of a statement in one insert.
-- A server reads what became visible since its last look: a row is selected by its transaction's id, and a transaction that
-- commits late is still in the list of those that were open at the last look.
-- Triggers: on statements (ENABLE ALWAYS) for everybody; on rows (ENABLE REPLICA) for logical replication, whose apply worker passes
-- statement triggers by. They run with their owner's rights: who may change a product need not be allowed to write here.
-- Locks: SHARE ROW EXCLUSIVE on the catalogue's tables for a moment.

create table catwalk_changes (
    xid xid8 not null default pg_current_xact_id(),
    -- product: its row; existence: it came or went; features, styles, related: of the product; style: photos or skus of the
    -- style; everything: no answer made before counts.
    what text not null,
    -- The product's, of 'style' the style's, of 'everything' 0.
    id bigint not null,
    at timestamptz not null default now()
) partition by range (at);
create index catwalk_changes_xid on catwalk_changes (xid);
-- Where no day's partition is there, writers go on here.
create table catwalk_changes_default partition of catwalk_changes default;
-- Else old rows could not be deleted from it once somebody publishes all tables.
alter table catwalk_changes_default replica identity full;

create table catwalk_feed (
    only_row boolean primary key default true check (only_row),
    -- Changes of transactions up to this one may have been dropped.
    dropped_xid xid8 not null
);
insert into catwalk_feed (dropped_xid) values ('0');

-- PostgreSQL empties an unlogged table when it recovers from a crash, is promoted, or is restored: then commits that were seen may be
-- gone, and this row is.
create unlogged table catwalk_life (
    only_row boolean primary key default true check (only_row),
    life bigint not null
);

-- Where the reading statement's snapshot stands in time: a later snapshot has a higher number. Transactions begin behind xmax, and
-- those before it can only end, so xmax and how few are open before it order snapshots.
create function catwalk_snapshot_position() returns bigint language sql stable parallel safe as $$
    select (pg_snapshot_xmax(pg_current_snapshot())::text::bigint << 16)
        | (65535 - least(65535, (select count(*) from pg_snapshot_xip(pg_current_snapshot()))))
$$;

do $make$
declare
    schema text := current_schema();
    noted record;
begin
    -- pg_temp last: nobody can slip a table of theirs under a function that runs with our rights.
    execute format($f$
        create function catwalk_note_products() returns trigger language plpgsql security definer
        set search_path = %1$I, pg_temp as $body$
        begin
            if tg_op = 'INSERT' then
                if exists (select from added offset 131072) then
                    insert into catwalk_changes (what, id) values ('everything', 0);
                    return null;
                end if;
                insert into catwalk_changes (what, id) select 'existence', id from added;
                return null;
            end if;
            if exists (select from removed offset 131072) then
                insert into catwalk_changes (what, id) values ('everything', 0);
            elsif tg_op = 'DELETE' then
                insert into catwalk_changes (what, id) select 'existence', id from removed;
            else
                insert into catwalk_changes (what, id)
                    select case when a.id = r.id then 'product' else 'existence' end, coalesce(a.id, r.id)
                    from added a full join removed r on r.id = a.id;
            end if;
            return null;
        end $body$ $f$, schema);
    for noted in select * from (values ('product_id'), ('current_product_id'), ('style_id')) as c (name) loop
        execute format($f$
            create function catwalk_note_%2$s() returns trigger language plpgsql security definer
            set search_path = %1$I, pg_temp as $body$
            begin
                if tg_op = 'INSERT' then
                    if exists (select from added offset 131072) then
                        insert into catwalk_changes (what, id) values ('everything', 0);
                        return null;
                    end if;
                    insert into catwalk_changes (what, id) select distinct tg_argv[0], %2$I from added;
                    return null;
                end if;
                if exists (select from removed offset 131072) then
                    insert into catwalk_changes (what, id) values ('everything', 0);
                elsif tg_op = 'DELETE' then
                    insert into catwalk_changes (what, id) select distinct tg_argv[0], %2$I from removed;
                else
                    insert into catwalk_changes (what, id)
                        select tg_argv[0], %2$I from added union select tg_argv[0], %2$I from removed;
                end if;
                return null;
            end $body$ $f$, schema, noted.name);
    end loop;
    execute format($f$
        create function catwalk_note_row() returns trigger language plpgsql security definer
        set search_path = %1$I, pg_temp as $body$
        declare
            before bigint;
            after bigint;
        begin
            if tg_op <> 'INSERT' then
                before := (pg_catalog.to_jsonb(old) ->> tg_argv[1])::bigint;
            end if;
            if tg_op <> 'DELETE' then
                after := (pg_catalog.to_jsonb(new) ->> tg_argv[1])::bigint;
            end if;
            insert into catwalk_changes (what, id)
                select case when tg_argv[0] = 'existence' and before = after then 'product' else tg_argv[0] end, touched.id
                from (select before as id union select after) touched where touched.id is not null;
            return null;
        end $body$ $f$, schema);
    execute format($f$
        create function catwalk_note_everything() returns trigger language plpgsql security definer
        set search_path = %1$I, pg_temp as $body$
        begin
            insert into catwalk_changes (what, id) values ('everything', 0);
            return null;
        end $body$ $f$, schema);
end $make$;

-- Who empties the change table by hand has dropped what others may not have read.
create function catwalk_note_dropped() returns trigger language plpgsql as $$
begin
    update catwalk_feed set dropped_xid = pg_current_xact_id();
    return null;
end $$;
create trigger catwalk_emptied after truncate on catwalk_changes for each statement execute function catwalk_note_dropped();

-- A trigger of somebody's own on a table of theirs, with types and casts of theirs, would run their code with our rights.
revoke execute on function catwalk_note_products(), catwalk_note_product_id(), catwalk_note_current_product_id(),
    catwalk_note_style_id(), catwalk_note_row(), catwalk_note_everything() from public;

-- Every table that an answer is made from, and what a change of it is noted as.
create view catwalk_followed (name, noted_as, id_column, note) as values
    ('products', 'existence', 'id', 'catwalk_note_products'),
    ('features', 'features', 'product_id', 'catwalk_note_product_id'),
    ('styles', 'styles', 'product_id', 'catwalk_note_product_id'),
    ('related', 'related', 'current_product_id', 'catwalk_note_current_product_id'),
    ('photos', 'style', 'style_id', 'catwalk_note_style_id'),
    ('skus', 'style', 'style_id', 'catwalk_note_style_id');

-- Gives a table its triggers, anew if it has them: a table that takes another one's place needs them too.
-- Whatever went by while they were missing is put right: products' ranks are counted anew.
create function catwalk_follow(followed text) returns void language plpgsql as $$
declare
    t record;
    e record;
begin
    select * into strict t from catwalk_followed where name = followed;
    for e in select * from (values
        ('added', 'insert', 'referencing new table as added'),
        ('removed', 'delete', 'referencing old table as removed'),
        ('changed', 'update', 'referencing old table as removed new table as added')) as e (name, event, tables)
    loop
        execute format('create or replace trigger catwalk_%s after %s on %I %s for each statement execute function %I(%L)',
                       e.name, e.event, followed, e.tables, t.note, t.noted_as);
        execute format('alter table %I enable always trigger catwalk_%s', followed, e.name);
    end loop;
    execute format('create or replace trigger catwalk_emptied after truncate on %I for each statement
                    execute function catwalk_note_everything()', followed);
    execute format('alter table %I enable always trigger catwalk_emptied', followed);
    execute format('create or replace trigger catwalk_applied after insert or update or delete on %I for each row
                    execute function catwalk_note_row(%L, %L)', followed, t.noted_as, t.id_column);
    execute format('alter table %I enable replica trigger catwalk_applied', followed);
    if followed = 'products' then
        perform products_rank_attach();
    end if;
end $$;

select catwalk_follow(name) from catwalk_followed;

-- Partitions for today and the days to come, and none older than `kept`: one step a call, because what it locks stays locked until
-- its end. True: call again. Gives way to writers: what can't be locked at once is left for the next time.
create function catwalk_rotate_changes(kept interval) returns boolean language plpgsql set timezone = 'UTC' as $$
declare
    day date;
    partition text;
    last xid8;
begin
    if not pg_try_advisory_xact_lock(hashtext('catwalk_rotate_changes')) then
        return false;
    end if;
    perform set_config('lock_timeout', '50ms', true);
    for partition in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'catwalk_changes'::regclass and c.relname ~ '^catwalk_changes_[0-9]{8}$'
            and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 < now() - kept
    loop
        begin
            execute format('lock table %I in access exclusive mode', partition);
            execute format('select xid from %I order by xid desc limit 1', partition) into last;
            execute format('drop table %I', partition);
            update catwalk_feed set dropped_xid = last where dropped_xid < last;
            return true;
        exception when lock_not_available or deadlock_detected then
            null;
        end;
    end loop;
    if exists (select from catwalk_changes_default where at < now() - kept) then
        with gone as (delete from catwalk_changes_default where at < now() - kept returning xid)
            select xid into last from gone order by xid desc limit 1;
        update catwalk_feed set dropped_xid = last where dropped_xid < last;
        return true;
    end if;
    for day in select current_date + n from generate_series(0, 2) n loop
        begin
            if to_regclass('catwalk_changes_' || to_char(day, 'YYYYMMDD')) is null then
                execute format('create table catwalk_changes_%s partition of catwalk_changes for values from (%L) to (%L)',
                               to_char(day, 'YYYYMMDD'), day::timestamptz, (day + 1)::timestamptz);
                return true;
            end if;
        exception when lock_not_available or check_violation or deadlock_detected then
            -- Busy, or rows of that day lie in the default partition already.
            null;
        end;
    end loop;
    return false;
end $$;
select catwalk_rotate_changes('2 days') from generate_series(1, 3);
