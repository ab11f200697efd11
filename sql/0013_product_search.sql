-- Products by category, and by the words in them.
-- Locks: SHARE on products until commit: writers wait while the indexes are built, a minute for each million products.

create index products_category on products (category, id);
create index products_words on products
    using gin (to_tsvector('english', name || ' ' || slogan || ' ' || description || ' ' || category));
