/* products_remove */
with beside as materialized (
    select current_product_id as id from related where related_product_id = $1
), gone as (
    delete from products where id = $1 returning id
)
select id, true as gone from gone union all select distinct id, false from beside where id <> $1
