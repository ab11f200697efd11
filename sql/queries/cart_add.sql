/* cart_add */
with input as materialized (
    select i.*
    from unnest($1::bytea[], $2::int8[], $3::int8[], $4::bool[]) with ordinality as i (session, sku_id, count, is_shared, n)
    where exists (select from skus s where s.id = i.sku_id)
), item as (
    insert into cart_items as c (session, sku_id, count)
    select session, sku_id, sum(count)
    from (select session, sku_id, count from input union all select '', sku_id, count from input where is_shared) i
    group by session, sku_id order by session, sku_id
    on conflict (session, sku_id) do update set count = least(c.count + excluded.count, 1000000000), updated_at = now()
)
select n, null::int8, null::int8 from input
