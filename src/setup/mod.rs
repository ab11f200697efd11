//! `catwalk setup`: a database made ready to be served from, or a replica of one.
//! Runs in: offline.

mod database;
mod local;
mod replica;

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Config, Host, SslMode};

use crate::cli::Setup;
use crate::config::LogFormat;
use crate::db;

/// Runs the command. Returns the exit status.
pub fn run(args: &Setup) -> Result<i32> {
    crate::logging::start(log::LevelFilter::Warn, LogFormat::Text);
    let url = args.database_url.clone().or_else(|| std::env::var("DATABASE_URL").ok());
    if url.is_none() && !args.replica && local::is_there() {
        return local::run(args).map(|()| 0);
    }
    let url =
        url.context("which server? none runs on this machine (apt-get install postgresql, dnf install postgresql15-server): give the address of one with --database-url, or in the variable DATABASE_URL")?;
    let address = db::address(&url, "catwalk setup")?;
    if !args.insecure {
        check_security(&address)?;
    }
    match args.replica {
        true => replica::run(args, &address)?,
        false => database::run(args, &address)?,
    }
    Ok(0)
}

/// Whoever answers at an address must show that it is meant: passwords and data go there.
fn check_security(address: &Config) -> Result<()> {
    let Host::Tcp(host) = &address.host else { return Ok(()) };
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if is_here || address.sslmode == SslMode::VerifyFull {
        return Ok(());
    }
    bail!(
        "{host} is another machine, and nothing in its address says how to know that it is the right one: add \
         sslmode=verify-full and sslrootcert=FILE with the provider's certificates (for Amazon RDS global-bundle.pem), or \
         sslrootcert=system where a public authority has signed them; --insecure does without"
    )
}

fn connect(address: &Config) -> Result<Client> {
    let client = db::connect_to(address)?;
    done(&format!("connected to {} as {}", address.display(), address.user));
    Ok(client)
}

/// Tells of a step that is done.
fn done(step: &str) {
    println!("ok   {step}");
}

/// Text of a query's only value.
fn ask(client: &Client, sql: &str) -> Result<String> {
    let rows = client.query_text(sql, &[])?;
    Ok(rows.first().context("no row")?.try_get::<Option<String>>(0)?.unwrap_or_default())
}

/// 128 random bits in hexadecimal digits.
fn password() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system has no random bytes: {e}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An identifier, as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, as SQL has it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_have_to_prove_who_they_are() {
        let check = |url: &str| check_security(&url.parse().unwrap()).is_ok();
        assert!(
            check("postgresql:///shop")
                && check("postgresql://127.0.0.1/shop")
                && check("postgresql://localhost/shop")
        );
        assert!(check("postgresql://db.example/shop?sslmode=verify-full&sslrootcert=/ca.pem"));
        for query in ["", "?sslmode=require", "?sslmode=verify-ca"] {
            assert!(!check(&format!("postgresql://db.example/shop{query}")), "{query}");
        }
    }

    #[test]
    fn names_and_texts_stay_what_they_are() {
        assert_eq!((quoted("a\"b").as_str(), literal("a'b").as_str()), ("\"a\"\"b\"", "'a''b'"));
        assert!(password().unwrap().len() == 32 && password().unwrap() != password().unwrap());
    }
}
