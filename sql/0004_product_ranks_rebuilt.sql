-- The ranks once more, under the lock that keeps writers out: products whose insert was under way when the ranks were first
-- filled had no bit in them.
-- Locks: SHARE ROW EXCLUSIVE on products until commit: a second for each million products.

lock table products in share row exclusive mode;
update product_rank_version set version = version + 1;
update product_ranks set members = 0, version = (select version from product_rank_version);
insert into product_ranks as r (block, members, version)
    select id >> 6, bit_or(1::bigint << (id & 63)::int), (select version from product_rank_version)
    from products group by 1
on conflict (block) do update set members = excluded.members, version = excluded.version;
