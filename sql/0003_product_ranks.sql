-- Which product is the n-th by id, without walking to it: one row for each 64 ids, a bit for each id that exists.
-- A server keeps the rows in memory and asks for those that changed. The version row is locked until commit, so
-- versions become visible in order, and transactions that add or remove products follow one another; those that
-- only change products touch nothing here.
-- Locks: SHARE ROW EXCLUSIVE on products for a moment.

create table product_rank_version (
    only_row boolean primary key default true check (only_row),
    version bigint not null
);
insert into product_rank_version (version) values (0);

create table product_ranks (
    block bigint primary key,
    members bigint not null,
    version bigint not null
);
create index product_ranks_version on product_ranks (version);

create function products_rank_next() returns bigint language sql set search_path from current as
    'update product_rank_version set version = version + 1 returning version';

create function products_rank_added() returns trigger language plpgsql set search_path from current as $$
declare
    next bigint;
begin
    if not exists (select from added) then
        return null;
    end if;
    next := products_rank_next();
    insert into product_ranks as r (block, members, version)
        select id >> 6, bit_or(1::bigint << (id & 63)::int), next from added group by 1
    on conflict (block) do update set members = r.members | excluded.members, version = next;
    return null;
end $$;

create function products_rank_removed() returns trigger language plpgsql set search_path from current as $$
declare
    next bigint;
begin
    if not exists (select from removed) then
        return null;
    end if;
    next := products_rank_next();
    update product_ranks r set members = r.members & ~ gone.members, version = next
        from (select id >> 6 as block, bit_or(1::bigint << (id & 63)::int) as members from removed group by 1) gone
        where r.block = gone.block;
    return null;
end $$;

create function products_rank_moved() returns trigger language plpgsql set search_path from current as $$
declare
    next bigint;
begin
    if not exists (select id from removed except select id from added) then
        return null;
    end if;
    next := products_rank_next();
    update product_ranks r set members = r.members & ~ gone.members, version = next
        from (select id >> 6 as block, bit_or(1::bigint << (id & 63)::int) as members from removed group by 1) gone
        where r.block = gone.block;
    insert into product_ranks as r (block, members, version)
        select id >> 6, bit_or(1::bigint << (id & 63)::int), next from added group by 1
    on conflict (block) do update set members = r.members | excluded.members, version = next;
    return null;
end $$;

create function products_rank_emptied() returns trigger language plpgsql set search_path from current as $$
declare
    next bigint;
begin
    next := products_rank_next();
    update product_ranks set members = 0, version = next;
    return null;
end $$;

create trigger products_rank_added after insert on products
    referencing new table as added for each statement execute function products_rank_added();
create trigger products_rank_removed after delete on products
    referencing old table as removed for each statement execute function products_rank_removed();
create trigger products_rank_moved after update on products
    referencing old table as removed new table as added for each statement execute function products_rank_moved();
create trigger products_rank_emptied after truncate on products
    for each statement execute function products_rank_emptied();
alter table products enable always trigger products_rank_added;
alter table products enable always trigger products_rank_removed;
alter table products enable always trigger products_rank_moved;
alter table products enable always trigger products_rank_emptied;
