-- Product ranks follow logical replication too, whose apply worker passes statement triggers by, and writers who have no rights on
-- the ranks: the function runs with its owner's.
-- Locks: SHARE ROW EXCLUSIVE on products for a moment.

do $make$
begin
    execute format('alter function products_rank_follow() security definer set search_path = %I, pg_temp', current_schema());
    execute format($f$
        create function products_rank_follow_row() returns trigger language plpgsql security definer
        set search_path = %1$I, pg_temp as $body$
        declare
            next bigint;
        begin
            if tg_op = 'UPDATE' and new.id = old.id then
                return null;
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
        end $body$ $f$, current_schema());
end $make$;

create trigger products_rank_applied after insert or update or delete on products
    for each row execute function products_rank_follow_row();
alter table products enable replica trigger products_rank_applied;
