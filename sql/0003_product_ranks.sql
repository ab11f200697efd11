-- Which product is the n-th by id, without walking to it: one row for each 64 ids, a bit for each id that exists.
-- A server keeps the rows in memory and asks for those that changed. The version row is locked until commit, so
-- versions become visible in order, and transactions that add or remove products follow one another; those that
-- only change products touch nothing here.
-- Locks: SHARE ROW EXCLUSIVE on products for a moment.

create table product_rank_version (
    only_row boolean primary key default true check (only_row),
    version bigint not null
);
insert into product_rank_version (version) values (1);

create table product_ranks (
    block bigint primary key,
    members bigint not null,
    version bigint not null
);
create index product_ranks_version on product_ranks (version);
insert into product_ranks (block, members, version)
    select id >> 6, bit_or(1::bigint << (id & 63)::int), 1 from products group by 1;

create function products_rank_follow() returns trigger language plpgsql set search_path from current as $$
declare
    next bigint;
    touched boolean := true;
begin
    -- Statements that touch no id leave no version: most updates are such. Each test is a statement of its own,
    -- because only the trigger's own transition tables exist.
    if tg_op = 'INSERT' then
        touched := exists (select from added);
    elsif tg_op = 'DELETE' then
        touched := exists (select from removed);
    elsif tg_op = 'UPDATE' then
        touched := exists (select id from removed except select id from added);
    end if;
    if not touched then
        return null;
    end if;
    update product_rank_version set version = version + 1 returning version into next;
    if tg_op = 'TRUNCATE' then
        update product_ranks set members = 0, version = next;
    end if;
    if tg_op in ('DELETE', 'UPDATE') then
        update product_ranks r set members = r.members & ~ gone.members, version = next
            from (select id >> 6 as block, bit_or(1::bigint << (id & 63)::int) as members from removed group by 1) gone
            where r.block = gone.block;
    end if;
    if tg_op in ('INSERT', 'UPDATE') then
        insert into product_ranks as r (block, members, version)
            select id >> 6, bit_or(1::bigint << (id & 63)::int), next from added group by 1
        on conflict (block) do update set members = r.members | excluded.members, version = next;
    end if;
    return null;
end $$;

create trigger products_rank_added after insert on products
    referencing new table as added for each statement execute function products_rank_follow();
create trigger products_rank_removed after delete on products
    referencing old table as removed for each statement execute function products_rank_follow();
create trigger products_rank_moved after update on products
    referencing old table as removed new table as added for each statement execute function products_rank_follow();
create trigger products_rank_emptied after truncate on products
    for each statement execute function products_rank_follow();
alter table products enable always trigger products_rank_added;
alter table products enable always trigger products_rank_removed;
alter table products enable always trigger products_rank_moved;
alter table products enable always trigger products_rank_emptied;
