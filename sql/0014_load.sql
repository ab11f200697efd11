-- A table that takes another one's place gets its triggers without its rows being counted: whoever puts it there has the ranks with it.
-- Locks: none that anybody waits for; it only replaces functions.

-- Gives products the triggers that keep its ranks and its updated_at, anew if it has them.
create function products_rank_triggers() returns void language plpgsql as $$
declare
    t record;
begin
    for t in select * from (values
        ('touch', 'before update', '', 'row', 'products_touch', 'always'),
        ('rank_added', 'after insert', 'referencing new table as added', 'statement', 'products_rank_follow', 'always'),
        ('rank_removed', 'after delete', 'referencing old table as removed', 'statement', 'products_rank_follow', 'always'),
        ('rank_moved', 'after update', 'referencing old table as removed new table as added', 'statement',
         'products_rank_follow', 'always'),
        ('rank_emptied', 'after truncate', '', 'statement', 'products_rank_follow', 'always'),
        ('rank_applied', 'after insert or update or delete', '', 'row', 'products_rank_follow_row', 'replica'))
        as t (name, event, tables, each, function, enabled)
    loop
        execute format('create or replace trigger products_%s %s on products %s for each %s execute function %I()',
                       t.name, t.event, t.tables, t.each, t.function);
        execute format('alter table products enable %s trigger products_%s', t.enabled, t.name);
    end loop;
end $$;

-- The same, and whatever went by while they were missing is put right.
create or replace function products_rank_attach() returns void language plpgsql as $$
begin
    perform products_rank_triggers();
    perform products_rank_rebuild();
end $$;

-- Gives a table its triggers, anew if it has them: a table that takes another one's place needs them too.
create function catwalk_attach(followed text) returns void language plpgsql as $$
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
        perform products_rank_triggers();
    end if;
end $$;

-- The same, and whatever went by while they were missing is put right: products' ranks are counted anew.
create or replace function catwalk_follow(followed text) returns void language plpgsql as $$
begin
    perform catwalk_attach(followed);
    if followed = 'products' then
        perform products_rank_rebuild();
    end if;
end $$;
