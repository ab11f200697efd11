/* idempotency_keep */
insert into idempotency_keys (key, body, status, head, answer) values ($1, $2, $3::int8, $4, $5)
