/* products_lock */
select from products where id = $1 for no key update
