-- Product ranks follow logical replication too, whose apply worker passes statement triggers by, and writers who have no rights on
-- the ranks: the functions run with their owner's. Nobody else may make triggers of them: a table of somebody's own, with types and
-- casts of theirs, would run their code with the owner's rights.
-- Locks: SHARE ROW EXCLUSIVE on products until commit: a second for each million products.

do $make$
declare
    schema text := current_schema();
begin
    execute format('alter function products_rank_follow() security definer set search_path = %I, pg_temp', schema);
    execute format($f$
        create function products_rank_follow_row() returns trigger language plpgsql security definer
        set search_path = %1$I, pg_temp as $body$
        declare
            next bigint;
        begin
            if tg_op = 'UPDATE' then
                if new.id = old.id then
                    return null;
                end if;
            end if;
            update product_rank_version set version = version + 1 returning version into next;
            if tg_op <> 'INSERT' then
                update product_ranks set members = members & ~ (1::bigint << (old.id & 63)::int), version = next
                    where block = old.id >> 6;
            end if;
            if tg_op <> 'DELETE' then
                insert into product_ranks as r (block, members, version)
                    values (new.id >> 6, 1::bigint << (new.id & 63)::int, next)
                on conflict (block) do update set members = r.members | excluded.members, version = next;
            end if;
            return null;
        end $body$ $f$, schema);
end $make$;
revoke execute on function products_rank_follow(), products_rank_follow_row(), products_touch() from public;

-- Counts the ranks anew, under the lock that keeps writers out.
create function products_rank_rebuild() returns void language plpgsql as $$
declare
    next bigint;
begin
    lock table products in share row exclusive mode;
    update product_rank_version set version = version + 1 returning version into next;
    update product_ranks set members = 0, version = next;
    insert into product_ranks as r (block, members, version)
        select id >> 6, bit_or(1::bigint << (id & 63)::int), next from products group by 1
    on conflict (block) do update set members = excluded.members, version = next;
end $$;

-- Gives products the triggers that keep its ranks and its updated_at, anew if it has them.
create function products_rank_attach() returns void language plpgsql as $$
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
    perform products_rank_rebuild();
end $$;
select products_rank_attach();
