/* products_some */
select 0::int8 as version, 0::int8 as position, id, name, slogan, description, category, default_price, created_at, updated_at
from products where id = any($1)
