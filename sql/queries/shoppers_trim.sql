/* shoppers_trim */
with lock as materialized (
    select pg_try_advisory_xact_lock(hashtext('catwalk_shoppers_trim')) as ours
), keys as (
    delete from idempotency_keys where ctid = any (array(
        select ctid from idempotency_keys where (select ours from lock) and at < now() - interval '24 hours' order by at limit $1))
    returning 1
), clicks as (
    delete from interactions where ctid = any (array(
        select ctid from interactions where (select ours from lock) and at < now() - interval '90 days' order by at limit $1))
    returning 1
), items as (
    delete from cart_items where ctid = any (array(
        select ctid from cart_items where (select ours from lock) and updated_at < now() - interval '30 days' order by updated_at limit $1))
    returning 1
), shared as (
    delete from cart_items where ctid = any (array(
        select ctid from cart_items where (select ours from lock) and session = '' order by updated_at desc limit $1 offset $2))
    returning 1
)
select (select count(*) from keys) + (select count(*) from clicks) + (select count(*) from items) + (select count(*) from shared)
