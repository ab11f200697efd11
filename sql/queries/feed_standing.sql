/* feed_standing */
with born as (
    insert into catwalk_life (life) select (random() * 9e18)::bigint
    where not exists (select from catwalk_life) on conflict do nothing returning life
)
select coalesce((select life from born), (select life from catwalk_life)), f.dropped_xid::text
from catwalk_feed f
