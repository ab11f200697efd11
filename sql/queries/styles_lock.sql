/* styles_lock */
select from styles s join products p on p.id = s.product_id where s.id = $1 for no key update of p
