/* products_ranks */
select v.version, r.block, r.members
from product_rank_version v left join product_ranks r on r.version > $1
