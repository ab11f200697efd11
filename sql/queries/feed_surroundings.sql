/* feed_surroundings */
select (
    select sum(hash_record_extended(row(t.oid, t.xmin, t.tgenabled, p.oid, p.xmin), 0))
    from pg_trigger t join pg_proc p on p.oid = t.tgfoid where t.tgrelid = any (f.tables) and not t.tgisinternal
)::text || ' ' || (
    select sum(hash_record_extended(row(a.attrelid, a.attnum, a.xmin), 0)) from pg_attribute a where a.attrelid = any (f.tables)
)::text || ' ' || (
    select sum(hash_record_extended(row(c.oid, c.xmin), 0)) from pg_class c where c.oid = any (f.tables)
)::text,
d.oid || ' ' || pg_postmaster_start_time(), pg_is_in_recovery(),
(case when pg_is_in_recovery() then greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) else pg_current_wal_insert_lsn() end
 - '0/0')::bigint
from (select array[to_regclass('products'), to_regclass('features'), to_regclass('styles'), to_regclass('related'),
                   to_regclass('photos'), to_regclass('skus'), to_regclass('reviews'), to_regclass('reviews_photos'),
                   to_regclass('characteristics'), to_regclass('characteristic_reviews'), to_regclass('questions'),
                   to_regclass('answers'), to_regclass('answers_photos')]::oid[] as tables offset 0) f,
     (select oid from pg_database where datname = current_database()) d
