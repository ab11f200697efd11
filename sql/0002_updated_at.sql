-- products.updated_at moves whenever a row changes, whoever changes it.
-- Locks: SHARE ROW EXCLUSIVE on products for a moment.

create function products_touch() returns trigger language plpgsql set search_path from current as $$
begin
    if new is distinct from old and new.updated_at = old.updated_at then
        new.updated_at := now();
    end if;
    return new;
end $$;

create trigger products_touch before update on products for each row execute function products_touch();
alter table products enable always trigger products_touch;
