//! `catwalk explain`: the plan of a statement, by the name that logs and metrics have for it.
//! Runs in: offline.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};
use may_postgres::Client;

use crate::statements::{find, STATEMENTS};

/// Longest time that a statement is run for its plan.
const RUN_MAX: &str = "30s";

/// Names of all statements, one a line.
pub fn names() -> String {
    let names: Vec<&str> = STATEMENTS.iter().map(|(name, _)| *name).collect();
    names.join("\n")
}

/// Statement and plan. Without `values` the plan is the one for any values, and nothing is run; with them it is run, timed, and rolled back.
///
/// # Errors
/// An unknown name, another number of values than it takes, and what the database says.
pub fn explain(client: &Client, name: &str, values: &[String]) -> Result<String> {
    let place = find(name)
        .with_context(|| format!("there is no statement {name:?}; `catwalk explain` alone names them all"))?;
    let text = STATEMENTS[place].1;
    let transaction = client.transaction()?;
    let run = |sql: &str| transaction.client().batch_execute(sql);
    run(&format!("set local statement_timeout = '{RUN_MAX}'"))?;
    run(&format!("prepare explained as {text}"))?;
    let types = transaction.client().query_text(
        "select coalesce(array_to_string(parameter_types, ', '), '') from pg_prepared_statements where name = 'explained'",
        &[],
    )?;
    let types: String = types.first().context("it was prepared")?.try_get(0)?;
    let wanted = types.split(", ").filter(|name| !name.is_empty()).count();
    ensure!(
        values.is_empty() || values.len() == wanted,
        "{name} takes {wanted} values ({types}), not {}: arrays as {{1,2,3}}, null as it is",
        values.len()
    );
    let (options, values) = match values.is_empty() {
        true => ("", vec!["null".to_string(); wanted]),
        false => ("(analyze, buffers)", values.iter().map(|value| literal(value)).collect()),
    };
    if options.is_empty() {
        run("set local plan_cache_mode = force_generic_plan")?;
    }
    let arguments = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let plan =
        transaction.client().query_text(&format!("explain {options} execute explained{arguments}"), &[]);
    let plan = plan.with_context(|| format!("explaining {name}({types})"))?;
    let mut out = format!("{}\n", text.trim_end());
    for row in &plan {
        let _ = write!(out, "\n{}", row.try_get::<String>(0)?);
    }
    transaction.rollback()?;
    Ok(out)
}

/// A value as SQL reads it; null is none.
fn literal(value: &str) -> String {
    match value.eq_ignore_ascii_case("null") {
        true => "null".to_string(),
        false => format!("'{}'", value.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!((literal("{1,2}").as_str(), literal("NULL").as_str()), ("'{1,2}'", "null"));
        assert_eq!(literal("it's'); drop table products; --"), "'it''s''); drop table products; --'");
    }
}
