/* feed_birth */
with born as (
    insert into catwalk_life (life) values ((random() * 9e18)::bigint)
    on conflict (only_row) do update set life = catwalk_life.life returning life
)
update catwalk_feed f set life = born.life from born, (select set_config('synchronous_commit', 'local', true)) c
where f.life is distinct from born.life
