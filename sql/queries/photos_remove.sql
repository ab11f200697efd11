/* photos_remove */
with gone as (
    delete from photos where id = $1 returning style_id
)
select s.product_id from gone g join styles s on s.id = g.style_id
