/* idempotency_find */
select l.free, k.body, k.status::int8, k.head, k.answer
from (select pg_try_advisory_xact_lock($2) as free) l left join idempotency_keys k on k.key = $1
