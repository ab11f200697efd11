//! `catwalk bench`: a server driven by the mixture of a shop, at a constant rate whatever it answers, so that its being slow is measured instead
//! of waited for: latency counts from when a request was due.
//! Runs in: offline.

pub mod catalogue;
pub mod drive;
pub mod limit;
pub mod mix;
pub mod outcome;
pub mod report;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use drive::Plan;
use mix::{Mix, Wanted};
use outcome::Outcome;
use report::Report;

/// Exit status with answers that were no success, and of a search that has not found any rate.
const EXIT_ERRORS: u8 = 2;
/// Of times in seconds.
const SECONDS_MAX: f64 = 86_400.0;
const CONNECTIONS_MAX: usize = 50_000;
const THREADS_MAX: usize = 256;

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
    /// Threads that the connections are divided among [default: half of the CPUs].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Products of the catalogue, with ids from 1 [default: asked of the server].
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

fn check(args: &Args) -> Result<()> {
    let is_within = |value: f64, least: f64, most: f64| (least..=most).contains(&value);
    ensure!(is_within(args.rate, 1.0, limit::RATE_MAX), "--rate: from 1 to 1,000,000");
    ensure!(is_within(args.seconds, 0.1, SECONDS_MAX), "--seconds: from 0.1 to {SECONDS_MAX}");
    ensure!(is_within(args.warm_up, 0.0, SECONDS_MAX), "--warm-up: from 0 to {SECONDS_MAX}");
    ensure!(is_within(args.p99, 0.001, 60_000.0), "--p99: from 0.001 to 60,000 ms");
    ensure!((1..=CONNECTIONS_MAX).contains(&args.connections), "--connections: from 1 to {CONNECTIONS_MAX}");
    ensure!((1..=THREADS_MAX).contains(&args.threads.unwrap_or(1)), "--threads: from 1 to {THREADS_MAX}");
    Ok(())
}

/// Half of the CPUs: a server on this machine needs the others.
fn threads(args: &Args) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    args.threads.unwrap_or((cpus / 2).clamp(1, THREADS_MAX)).min(args.connections)
}

/// Drives, and tells.
///
/// # Errors
/// A server that can't be reached or has no products; files that can't be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    check(args)?;
    // What can't be written is told before, not after.
    let html = args.html.as_deref().map(open).transpose()?;
    let json = args.json.as_deref().map(open).transpose()?;
    let address = address(&args.url)?;
    let catalogue = catalogue::survey(&address, args.products)
        .with_context(|| format!("asking {} for its products", args.url))?;
    let products = catalogue.ids.count();
    let wanted = Wanted { kinds: args.kinds.clone(), no_writes: args.no_writes };
    let mix = Mix::new(&catalogue, args.zipf, &wanted).with_context(|| args.url.clone())?;
    let plan = Plan {
        address,
        rate: args.rate,
        warm_up: Duration::from_secs_f64(args.warm_up),
        time: Duration::from_secs_f64(args.seconds),
        connections: args.connections,
        threads: threads(args),
        seed: args.seed,
    };
    eprintln!("{}: {products} products, {} connections", args.url, args.connections);
    if args.find_limit {
        let found = limit::search(&plan, &mix, args.p99 / 1e3, |step| println!("{}", step.line()))?;
        println!("{}", found.describe());
        write(html, || report::limit_html(&plan, &found, products))?;
        let report = Report { limit: Some(&found), ..Report::new(&plan, products) };
        write(json, || Ok(serde_json::to_string_pretty(&report)?))?;
        return Ok(status(found.best.is_some()));
    }
    let outcome = with_progress(&plan, || drive::drive(&plan, &mix))?;
    print!("{}", report::table(&plan, &outcome));
    write(html, || report::html(&plan, &outcome, products))?;
    write(json, || Ok(serde_json::to_string_pretty(&Report::new(&plan, products).with(&plan, &outcome))?))?;
    Ok(status(outcome.errors() == 0))
}

fn status(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERRORS)
    }
}

/// A file to be written at the end, and its path.
struct Output<'a>(&'a Path, File);

fn open(path: &Path) -> Result<Output<'_>> {
    let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(Output(path, file))
}

fn write(output: Option<Output<'_>>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    let Some(Output(path, mut file)) = output else { return Ok(()) };
    file.write_all(text()?.as_bytes()).with_context(|| format!("writing {}", path.display()))
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
