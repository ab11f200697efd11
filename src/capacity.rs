//! `catwalk capacity`: CPU a request by route, measured on a server of its own, times cores, times what the instance is entitled to.
//! Runs in: offline.
//!
//! CPU time is what is measured, not requests a second: who drives the server takes CPU too, and a noisy machine takes it from both.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde::Serialize;

use crate::cli;
use crate::config::{Config, Sources};
use crate::machine::instance::{self, Burstable};
use crate::os::fd::wait_readable;
use crate::os::{passing, processes};

/// Longest wait for the server to get ready.
const START_MAX: Duration = Duration::from_secs(30);
/// Products that are asked for: as many as a cache of any size holds.
const PRODUCTS: u64 = 1_000;
/// Connections that ask at the same time.
const CONNECTIONS: usize = 32;
/// Of a shop's requests so many are hits, where nothing better is known.
const HIT_RATIO: f64 = 0.95;
/// Clock ticks of /proc/PID/stat are hundredths of a second on every Linux that this runs on.
const TICK_US: u64 = 10_000;

/// A kind of request: its name, the path for a product, and whether the cache has it.
const KINDS: [(&str, &str, bool); 6] = [
    ("product", "/products/:id", true),
    ("styles", "/products/:id/styles", true),
    ("list", "/products?count=5", true),
    ("reviews", "/reviews?product_id=:id", true),
    ("questions", "/qa/questions?product_id=:id", true),
    ("product, not cached", "/products?ids=:id", false),
];

/// What one kind takes.
#[derive(Debug, Serialize)]
struct Cost {
    kind: &'static str,
    /// Of the server, and of PostgreSQL where it runs on this machine.
    cpu_us: f64,
    response_size_bytes: u64,
    burst_per_s: f64,
    sustained_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Capacity {
    instance: Option<String>,
    cores: f64,
    /// Cores that may be used for ever.
    sustained_cores: f64,
    network_baseline_mbit: Option<u32>,
    costs: Vec<Cost>,
    /// With HIT_RATIO of hits.
    shop: Cost,
    /// What the network's baseline lets through of such answers; None: it has none.
    network_per_s: Option<f64>,
}

/// Measures and prints. Returns the exit status.
///
/// # Errors
/// A server that does not get ready, or a database without products.
pub fn run(args: &cli::Capacity) -> Result<i32> {
    let mut sources = Sources::read_with_default(args.settings.config.as_deref())?;
    sources.flag("--database-url", "database.url", args.settings.database_url.as_deref());
    let config = Config::new(sources)?;
    let name = args.instance.clone().or_else(instance::name);
    let burstable = name.as_deref().and_then(Burstable::of);
    ensure!(
        args.instance.is_none() || burstable.is_some(),
        "{} is not known; of t3, t3a and t4g there are nano, micro, small, medium, large, xlarge, 2xlarge",
        name.unwrap_or_default()
    );
    let cores = burstable.map_or(config.machine().cores as f64, |b| b.vcpus as f64);
    let sustained_cores = burstable.map_or(cores, Burstable::sustained_cores);
    let server = Server::start(&config, args)?;
    let cost = |kind, cpu_us, response_size_bytes| Cost {
        kind,
        cpu_us,
        response_size_bytes,
        burst_per_s: cores * 1e6 / cpu_us,
        sustained_per_s: sustained_cores * 1e6 / cpu_us,
    };
    let mut costs = Vec::new();
    for (kind, path, is_cached) in KINDS {
        let (cpu_us, size) = server.measure(path, is_cached, Duration::from_secs(args.seconds.max(1)))?;
        costs.push(cost(kind, cpu_us, size));
    }
    let hot = costs.iter().filter(|c| !c.kind.contains("not cached"));
    let hot_us = hot.clone().map(|c| c.cpu_us).sum::<f64>() / hot.clone().count() as f64;
    let size = hot.clone().map(|c| c.response_size_bytes).sum::<u64>() / hot.count() as u64;
    let cold_us = costs.last().map_or(hot_us, |c| c.cpu_us);
    let shop = cost("a shop's mixture", HIT_RATIO * hot_us + (1.0 - HIT_RATIO) * cold_us, size);
    let network_baseline_mbit = burstable.map(|b| b.network_baseline_mbit);
    let network_per_s = network_baseline_mbit.map(|mbit| f64::from(mbit) * 1e6 / 8.0 / size.max(1) as f64);
    let capacity = Capacity {
        instance: name,
        cores,
        sustained_cores,
        network_baseline_mbit,
        costs,
        shop,
        network_per_s,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&capacity)?),
        false => print(&capacity),
    }
    Ok(0)
}

fn print(capacity: &Capacity) {
    let Capacity { cores, sustained_cores, .. } = capacity;
    let name = capacity.instance.as_deref().unwrap_or("this machine");
    println!("{name}: {cores} cores, {sustained_cores:.1} of them for ever\n");
    println!(
        "{:<22}{:>12}{:>14}{:>14}{:>12}",
        "requests", "CPU µs each", "burst/s", "for ever/s", "bytes each"
    );
    for cost in capacity.costs.iter().chain([&capacity.shop]) {
        println!(
            "{:<22}{:>12.1}{:>14.0}{:>14.0}{:>12}",
            cost.kind, cost.cpu_us, cost.burst_per_s, cost.sustained_per_s, cost.response_size_bytes
        );
    }
    println!("\nA shop's mixture has {:.0} % hits. All cores busy: plan with 70 %. Load from outside takes the kernel's network stack too.", HIT_RATIO * 100.0);
    if let (Some(mbit), Some(per_s)) = (capacity.network_baseline_mbit, capacity.network_per_s) {
        let is_tighter = per_s < capacity.shop.sustained_per_s;
        println!(
            "Network: {mbit} Mbit/s for ever are {per_s:.0} such answers a second{}; with gzip several times as many.",
            if is_tighter { ", fewer than the CPU makes" } else { "" }
        );
    }
    if instance::has_hyperthreads(name) {
        println!("Its vCPUs are hyperthreads, two of a core: both busy, each does less than alone.");
    }
}

/// A server of this command's own: one worker, on a port that the kernel chooses, found by nobody else.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(config: &Config, args: &cli::Capacity) -> Result<Server> {
        let dir = std::env::temp_dir().join(format!("catwalk-capacity-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let server = Server::start_in(&dir, config, args);
        let _ = fs::remove_dir_all(&dir);
        server
    }

    fn start_in(dir: &Path, config: &Config, args: &cli::Capacity) -> Result<Server> {
        let notify = dir.join("notify");
        let socket = passing::listen(&notify).context("making a socket")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve");
        if let Some(file) = &args.settings.config {
            command.arg("--config").arg(file);
        }
        command.env("CATWALK_DATABASE_URL", &config.database_url).env("CATWALK_LISTEN", "127.0.0.1:0");
        command.env("CATWALK_WORKERS", "1").env("CATWALK_CACHE_SIZE", "64MiB").env("CATWALK_RUNTIME_DIR", "");
        command.env("CATWALK_ADMIN_LISTEN", "").env("CATWALK_LOG", "warn").env("CATWALK_LOG_FORMAT", "text");
        command.env("CATWALK_TLS_LISTEN", "").env("CATWALK_TLS_CERTIFICATE", "").env("CATWALK_TLS_KEY", "");
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().context("starting a server to be measured")?;
        let start = Instant::now();
        while start.elapsed() < START_MAX {
            wait_readable([socket.as_fd()], Duration::from_millis(100));
            if let Ok(message) = passing::receive(socket.as_fd()) {
                let url = message.text.lines().find_map(|l| l.strip_prefix("X_CATWALK_URL=http://"));
                if let Some(address) = url.map(str::to_string) {
                    return Ok(Server { child, address });
                }
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server that was to be measured ended with {status}; see above");
            }
        }
        let _ = child.kill();
        bail!("the server that was to be measured has not got ready within {START_MAX:?}")
    }

    /// CPU µs a request, and bytes of its answer.
    fn measure(&self, path: &str, is_cached: bool, time: Duration) -> Result<(f64, u64)> {
        let connections = (0..CONNECTIONS).map(|_| Connection::open(&self.address));
        let mut connections = connections.collect::<Result<Vec<_>>>()?;
        let mut size = 0;
        // Each asks before the first one is answered, as in a shop: a server that serves one at a time sleeps in between.
        let mut ask = |first: u64| -> Result<()> {
            for (number, connection) in connections.iter_mut().enumerate() {
                let id = (first + number as u64).wrapping_mul(0x9E37_79B9) % PRODUCTS + 1;
                connection.send(&path.replace(":id", &id.to_string()))?;
            }
            for connection in &mut connections {
                let (status, len) = connection.receive()?;
                ensure!(
                    matches!(status, 200 | 404),
                    "{path} was answered {status}: is there a database with products?"
                );
                size = if status == 200 { len } else { size };
            }
            Ok(())
        };
        if is_cached {
            (0..PRODUCTS).step_by(CONNECTIONS).try_for_each(&mut ask)?;
        }
        let (before, start, mut requests) = (self.ticks(), Instant::now(), 0u64);
        while start.elapsed() < time {
            ask(requests)?;
            requests += CONNECTIONS as u64;
        }
        Ok((self.cpu_us_since(&before) as f64 / requests as f64, size))
    }

    /// Ticks so far of each of its processes, and of PostgreSQL's on this machine.
    fn ticks(&self) -> HashMap<u64, u64> {
        let own = u64::from(self.child.id());
        let counts =
            |stat: &processes::Stat| stat.pid == own || stat.parent == own || stat.name == "postgres";
        processes::all().filter(counts).map(|stat| (stat.pid, stat.cpu_ticks)).collect()
    }

    /// CPU time since `before`; of processes that have ended since nothing is known.
    fn cpu_us_since(&self, before: &HashMap<u64, u64>) -> u64 {
        let since = |(pid, ticks): (u64, u64)| ticks.saturating_sub(before.get(&pid).copied().unwrap_or(0));
        self.ticks().into_iter().map(since).sum::<u64>() * TICK_US
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A connection to it.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(START_MAX))?;
        Ok(Connection(BufReader::with_capacity(64 * 1024, stream)))
    }

    fn send(&mut self, path: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: capacity\r\n\r\n").as_bytes())?)
    }

    /// Status, and bytes of the answer, head and body.
    fn receive(&mut self) -> Result<(u16, u64)> {
        let (mut line, mut head, mut body, mut status) = (String::new(), 0, 0, 0);
        loop {
            line.clear();
            head += self.0.read_line(&mut line)? as u64;
            let text = line.trim_end();
            if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some(len) = text.strip_prefix("Content-Length: ") {
                body = len.parse()?;
            } else if text.is_empty() {
                break;
            }
        }
        std::io::copy(&mut (&mut self.0).take(body), &mut std::io::sink())?;
        Ok((status, head + body))
    }
}
