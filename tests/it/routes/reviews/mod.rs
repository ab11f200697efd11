//! /reviews and below.

mod add;
mod list;
mod mark_helpful;
mod meta;

pub const TIME: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"#;

/// Photos as `table` has them, numbered, as compact JSON; `owner` is the condition on it.
pub fn photos(table: &str, owner: &str, base: &str) -> String {
    format!(
        "(select coalesce(array_to_json(array_agg(p)), '[]') from
          (select id, case when url like '/%' then '{base}' else '' end || url as url from {table} where {owner} order by id) p)"
    )
}
