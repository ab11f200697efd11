-- The first answers to requests with an Idempotency-Key, kept for those who ask again.
-- Locks: none that anybody waits for; it only creates.

create table idempotency_keys (
    -- SHA-256 of method, path, who asks, and the key.
    key bytea primary key,
    -- SHA-256 of the body.
    body bytea not null,
    status smallint not null,
    -- Header lines and body of the answer.
    head text not null,
    answer text not null,
    at timestamptz not null default now()
);
create index idempotency_keys_at on idempotency_keys (at);
