/* feed_rotate */
select catwalk_rotate_changes('2 days')
