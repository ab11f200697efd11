-- The change feed follows reviews, questions and answers too. Notes: reviews, characteristics, questions: of the product; review: the
-- photos or ratings of the review; question: the answers of the question; answer: the photos of the answer.
-- Locks: SHARE ROW EXCLUSIVE on the tables followed for a moment.

do $make$
declare
    schema text := current_schema();
    column_name text;
begin
    for column_name in select * from (values ('review_id'), ('question_id'), ('answer_id')) as c (name) loop
        execute format($f$
            create function catwalk_note_%2$s() returns trigger language plpgsql security definer
            set search_path = %1$I, pg_temp as $body$
            begin
                if tg_op = 'INSERT' then
                    if exists (select from added offset 131072) then
                        insert into catwalk_changes (what, id) values ('everything', 0);
                        return null;
                    end if;
                    insert into catwalk_changes (what, id) select distinct tg_argv[0], %2$I from added;
                    return null;
                end if;
                if exists (select from removed offset 131072) then
                    insert into catwalk_changes (what, id) values ('everything', 0);
                elsif tg_op = 'DELETE' then
                    insert into catwalk_changes (what, id) select distinct tg_argv[0], %2$I from removed;
                else
                    insert into catwalk_changes (what, id)
                        select tg_argv[0], %2$I from added union select tg_argv[0], %2$I from removed;
                end if;
                return null;
            end $body$ $f$, schema, column_name);
    end loop;
end $make$;
revoke execute on function catwalk_note_review_id(), catwalk_note_question_id(), catwalk_note_answer_id() from public;

create or replace view catwalk_followed (name, noted_as, id_column, note) as values
    ('products', 'existence', 'id', 'catwalk_note_products'),
    ('features', 'features', 'product_id', 'catwalk_note_product_id'),
    ('styles', 'styles', 'product_id', 'catwalk_note_product_id'),
    ('related', 'related', 'current_product_id', 'catwalk_note_current_product_id'),
    ('photos', 'style', 'style_id', 'catwalk_note_style_id'),
    ('skus', 'style', 'style_id', 'catwalk_note_style_id'),
    ('reviews', 'reviews', 'product_id', 'catwalk_note_product_id'),
    ('reviews_photos', 'review', 'review_id', 'catwalk_note_review_id'),
    ('characteristics', 'characteristics', 'product_id', 'catwalk_note_product_id'),
    ('characteristic_reviews', 'review', 'review_id', 'catwalk_note_review_id'),
    ('questions', 'questions', 'product_id', 'catwalk_note_product_id'),
    ('answers', 'question', 'question_id', 'catwalk_note_question_id'),
    ('answers_photos', 'answer', 'answer_id', 'catwalk_note_answer_id');
select catwalk_follow(name) from catwalk_followed where name not in ('products', 'features', 'styles', 'related', 'photos', 'skus');
