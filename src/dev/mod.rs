//! `catwalk dev`: a private PostgreSQL, filled, served. Nothing to set up, nothing left running.
//! Runs in: master (the process one starts becomes it); filling runs in a child.

pub mod cluster;
pub mod place;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::cli;
use crate::config::{Config, Sources};
use crate::etl::load::OnBad;
use crate::etl::progress::Audience;
use crate::etl::seed::Profile;
use crate::etl::{self, Effort};
use crate::heritage;
use crate::limits::DEV_CACHE_SIZE_MAX_BYTES;
use crate::logging;
use crate::master::{self, companion::Companion, events::Events};
use crate::os::fork::{self, Ending};
use crate::succession::Inheritance;
use cluster::Cluster;
use place::Place;

/// Products of the demonstration catalogue.
const PRODUCTS: u64 = 10_000;
const SEED: u64 = 42;
/// Longest fill before it is taken for stuck: none, it shows progress.
const FILL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Runs until stopped. Returns the exit status.
pub fn run(args: &cli::Dev) -> Result<i32> {
    let mut events = Events::open().context("blocking signals")?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
    let dir = args.dir.canonicalize().with_context(|| format!("finding {}", args.dir.display()))?;
    let _lock = lock(&dir)?;
    let place = Place::choose(&dir)?;
    make_token(&token_file(&dir))?;
    let url = place.database_url();
    let mut config = Config::new(sources(args, &dir, &url)?)?;
    config.for_development();
    config.limit_cache(DEV_CACHE_SIZE_MAX_BYTES);
    logging::start(config.log, config.log_format);
    // A taken port is told before minutes are spent on filling.
    drop(heritage::listen(config.listen, 1, "--listen")?);
    let cluster = Cluster::open(place, &mut events)?;
    std::fs::write(dir.join("database.url"), format!("{}\n", config.database_url))?;
    let postgres = cluster.start(&mut events)?;
    let companion = companion(cluster, postgres);
    if let Err(e) = fill(args, &config, &mut events) {
        companion.stop(&mut events);
        return Err(e);
    }
    let heritage = match heritage::create(config, Inheritance::default()) {
        Ok(heritage) => heritage,
        Err(e) => {
            companion.stop(&mut events);
            return Err(e);
        }
    };
    let url = format!("http://{}", heritage.address);
    std::fs::write(dir.join("server.url"), format!("{url}\n"))?;
    let admin = heritage.admin.address().map_or_else(|| url.clone(), |address| format!("http://{address}"));
    let announce = announce(&url, &admin, &dir);
    let (args, database_url) = (args.clone(), heritage.config.database_url.clone());
    let reread = move |before: &Config| Ok(before.renewed(sources(&args, &dir, &database_url)?)?);
    let setup = master::Setup {
        events,
        companion: Some(companion),
        announce,
        reread: Box::new(reread),
        predecessor: None,
        program: PathBuf::new(),
    };
    master::run(heritage, setup)
}

fn token_file(dir: &Path) -> PathBuf {
    dir.join("admin-token")
}

/// The settings, with what `dev` adds to them.
fn sources(args: &cli::Dev, dir: &Path, database_url: &str) -> Result<Sources> {
    let mut sources = Sources::read(args.config.as_deref())?;
    sources.flag("--listen", "listen", args.listen);
    sources.flag("--workers", "workers", args.workers.as_deref());
    sources.flag("--cache-size", "cache.size", args.cache_size.as_deref());
    sources.flag("--static", "static", args.static_directory.as_deref().map(Path::display));
    sources.flag("dev's own cluster", "database.url", Some(database_url));
    sources.default_to("dev's own token", "http.admin_token_file", token_file(dir).display());
    sources.default_to("dev's own directory", "runtime_dir", dir.join("run").display());
    Ok(sources)
}

/// Makes a token for administration, if there is none yet, that only this user can read.
fn make_token(path: &Path) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if path.exists() {
        return Ok(());
    }
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("asking for random bytes: {e}"))?;
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{text}")?;
        std::fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("making {}", path.display()))
}

/// One `dev` a directory. The lock goes with the process, whatever ends it.
fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
        anyhow::anyhow!(
            "another `catwalk dev` runs on {}; stop it, or take another directory with --dir",
            dir.display()
        )
    })
}

fn companion(cluster: Cluster, pid: nix::unistd::Pid) -> Companion {
    // PostgreSQL's fast and immediate shutdown.
    Companion::new("the private PostgreSQL", pid, Signal::SIGINT, Signal::SIGQUIT, move || cluster.spawn())
}

/// Migrates and fills, in a child: this process must stay single-threaded.
fn fill(args: &cli::Dev, config: &Config, events: &mut Events) -> Result<()> {
    let (url, archive, rejects) = (config.database_url.clone(), args.load.clone(), args.dir.clone());
    let products = args.products.unwrap_or(PRODUCTS);
    let parent = fork::own_pid();
    let child = fork::fork(|| {
        let done = crate::os::signal::reset_for_exec()
            .and_then(|()| fork::die_with_parent(parent, Signal::SIGKILL))
            .map_err(anyhow::Error::from)
            .and_then(|()| fill_in_child(&url, archive, rejects, products));
        match done {
            Ok(status) => status,
            Err(e) => {
                eprintln!("catwalk dev: {e:#}");
                1
            }
        }
    })?;
    match events.wait_for(child, FILL_MAX) {
        Some(Ending::Exit(0)) => Ok(()),
        // Some lines were rejected, and reported: what was loaded is served.
        Some(Ending::Exit(etl::EXIT_REJECTS)) => Ok(()),
        Some(ending) => bail!("filling the database {ending}"),
        None => {
            fork::signal(child, Signal::SIGKILL);
            events.wait_for(child, Duration::from_secs(5));
            bail!("stopped while filling the database; the next run starts the fill over")
        }
    }
}

fn fill_in_child(url: &str, archive: Option<PathBuf>, rejects: PathBuf, products: u64) -> Result<i32> {
    make_database(url)?;
    let client = crate::db::connect(url)?;
    crate::db::migrate::migrate(&client, false)?;
    if etl::load::has_rows(&client, "products")? {
        return Ok(0);
    }
    let effort = Effort::of_machine(None);
    match archive {
        Some(dir) => etl::load::run(
            url,
            &etl::load::Options {
                dir,
                rejects,
                only: Vec::new(),
                effort,
                on_bad: OnBad::Reject,
                dry_run: false,
                start_over: false,
                audience: Audience::People,
            },
        ),
        None => {
            let profile = Profile::Full;
            let options =
                etl::seed::Options { products, seed: SEED, profile, effort, audience: Audience::People };
            etl::seed::run(url, &options).map(|()| 0)
        }
    }
}

/// A fresh cluster has only the database `postgres`.
fn make_database(url: &str) -> Result<()> {
    let maintenance = crate::db::connect(&url.replacen(place::DATABASE, "postgres", 1))?;
    let found =
        maintenance.query_text("select 1 from pg_database where datname = $1", &[&place::DATABASE])?;
    if found.is_empty() {
        maintenance.batch_execute(&format!("create database {}", place::DATABASE))?;
    }
    Ok(())
}

fn announce(url: &str, admin: &str, dir: &Path) -> String {
    format!(
        "\ncatwalk serves {url}\n\n  see   {url}/shop/  a storefront\n        {url}/docs  every call, to be tried\n  try   curl {url}/products/1\n        \
         curl '{url}/reviews?product_id=1'\n        curl '{url}/qa/questions?product_id=1'\n        \
         curl -X PUT {url}/reviews/1/helpful\n        curl '{url}/api/images?shoe_id=1'\n        \
         curl -H \"Authorization: Bearer $(cat '{}')\" {url}/admin/products/1\n        \
         {url}/readyz  {admin}/metrics\n  psql  psql \"$(cat '{}')\"\n\nCtrl-C stops everything.",
        dir.join("admin-token").display(),
        dir.join("database.url").display()
    )
}
