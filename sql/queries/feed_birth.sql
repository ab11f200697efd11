/* feed_birth */
insert into catwalk_life (life) values ((random() * 9e18)::bigint) on conflict do nothing
