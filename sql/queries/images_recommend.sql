/* images_recommend */
select s.img1
from unnest($1::int8[]) with ordinality as w (shoe_id, n)
cross join lateral (select img1 from shoe_images i where i.shoe_id = w.shoe_id order by i.id limit 1) s
order by w.n
