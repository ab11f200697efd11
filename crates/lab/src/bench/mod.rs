//! `catwalk bench`: a server driven by the mixture of a shop, at a constant rate whatever it answers, so that its being slow is measured instead
//! of waited for: latency counts from when a request was due.
//! Runs in: offline.

pub mod drive;
pub mod limit;
pub mod mix;
pub mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use drive::{Outcome, Plan};
use mix::{Mix, Wanted};

/// Exit status with answers that were no success.
const EXIT_ERRORS: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server.
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Requests a second.
    #[arg(long, value_name = "N", default_value_t = 1_000.0)]
    rate: f64,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before, which are not.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warm_up: f64,
    /// Connections at most.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Products of the catalogue [default: asked of the server].
    #[arg(long, value_name = "N")]
    products: Option<u64>,
    /// How much more often the most popular products are asked for: the exponent of Zipf's law.
    #[arg(long, value_name = "X", default_value_t = 0.99)]
    zipf: f64,
    /// Only reads.
    #[arg(long)]
    no_writes: bool,
    /// Only these, as in product,styles; their names are in the table that is printed.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    kinds: Vec<String>,
    /// The same choices for the same number.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write a report with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Search the highest rate with a p99 below --p99, each tried for --seconds.
    #[arg(long)]
    find_limit: bool,
    /// What p99 has to stay below, in ms.
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    p99: f64,
}

/// Host and port of `http://host:port`.
fn address(url: &str) -> Result<String> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url}: an address begins with http://; TLS is better measured by itself");
    };
    let host = rest.trim_end_matches('/');
    ensure!(
        !host.is_empty() && !host.contains('/'),
        "{url}: the API's root is asked for, as in http://127.0.0.1:8080"
    );
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { host.to_string() } else { format!("{host}:80") })
}

/// Drives, and tells.
///
/// # Errors
/// A server that can't be reached or has no products; files that can't be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.rate >= 1.0 && args.rate <= 1e6, "--rate: from 1 to 1,000,000");
    ensure!(args.seconds >= 0.1 && args.connections >= 1, "--seconds and --connections: more than nothing");
    let address = address(&args.url)?;
    let products = match args.products {
        Some(products) => products,
        None => drive::count_products(&address)
            .with_context(|| format!("asking {} for its products", args.url))?,
    };
    ensure!(products > 0, "{} has no products: `catwalk seed` makes some", args.url);
    let wanted = Wanted { kinds: args.kinds.clone(), no_writes: args.no_writes };
    let mix = Mix::new(products, args.zipf, &wanted)?;
    let plan = Plan {
        address,
        rate: args.rate,
        warm_up: Duration::from_secs_f64(args.warm_up.max(0.0)),
        time: Duration::from_secs_f64(args.seconds),
        connections: args.connections,
        seed: args.seed,
    };
    eprintln!("{}: {products} products, {} connections", args.url, args.connections);
    if args.find_limit {
        let found = limit::search(&plan, &mix, args.p99 / 1e3, |rate, outcome| {
            println!("{}", limit::line(rate, outcome))
        })?;
        println!("{}", found.describe(args.p99));
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = with_progress(&plan, || drive::drive(&plan, &mix))?;
    print!("{}", report::table(&plan, &outcome));
    if let Some(path) = &args.html {
        let html = report::html(&plan, &outcome, products)?;
        std::fs::write(path, html).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report::figures(&plan, &outcome))?;
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(if outcome.errors() > 0 { ExitCode::from(EXIT_ERRORS) } else { ExitCode::SUCCESS })
}

/// Shows how far it has come while `work` is done.
fn with_progress(plan: &Plan, work: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let seconds = (plan.warm_up + plan.time).as_secs_f64();
    let bar = ProgressBar::new((seconds * 10.0) as u64);
    let style = ProgressStyle::with_template("{bar:40} {elapsed} of {msg}").context("a template")?;
    bar.set_style(style);
    bar.set_message(format!("{seconds:.0}s"));
    let (ticking, over) = (bar.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let ends = over.clone();
    let ticker = std::thread::spawn(move || {
        while !ends.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            ticking.inc(1);
        }
    });
    let done = work();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = ticker.join();
    bar.finish_and_clear();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(address("http://127.0.0.1:8080").unwrap(), "127.0.0.1:8080");
        assert_eq!(address("http://shop.example/").unwrap(), "shop.example:80");
        for bad in ["https://shop.example", "shop.example", "http://", "http://shop.example/products"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
