/* cart_show */
select c.sku_id, c.count from (
    select sku_id, count, updated_at from cart_items where session = $1 order by updated_at desc limit $2
) c
where exists (select from skus s where s.id = c.sku_id) order by c.sku_id
