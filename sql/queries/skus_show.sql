/* skus_show */
select k.id, k.size, k.quantity, s.product_id
from skus k join styles s on s.id = k.style_id where k.id = $1
