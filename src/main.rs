//! Parse, dispatch one command, print the error chain, exit.
//! Runs in: master | offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use catwalk::cli::{Check, Cli, Command, Explain, Export, Job, Load, Migrate, Seed, Serve, Settings};
use catwalk::config::{Config, ConfigError, Sources};
use catwalk::etl::progress::Audience;
use catwalk::etl::Effort;
use catwalk::front::Front;
use catwalk::master::events::Events;
use catwalk::os::fork;
use catwalk::succession::Inheritance;
use catwalk::{ask, capacity, db, dev, doctor, etl, heritage, inspect, logging, master, setup};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// EX_CONFIG of sysexits.h: a service manager need not try again.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(status) => ExitCode::from(status as u8),
        Err(e) => {
            eprintln!("catwalk: {e:#}");
            let bad_address = matches!(e.downcast_ref(), Some(may_postgres::Error::Config(_)));
            ExitCode::from(if bad_address || e.is::<ConfigError>() { EXIT_CONFIG } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<i32> {
    match command {
        Command::Dev(args) => dev::run(&args),
        Command::Serve(args) => serve(args),
        Command::Reload(args) => ask::reload(&args),
        Command::Upgrade(args) => ask::upgrade(&args),
        Command::Check(args) => check(&args),
        Command::Config(settings) => {
            print!("{}", read(&settings)?.describe());
            Ok(0)
        }
        Command::Setup(args) => setup::run(&args),
        Command::Migrate(args) => migrate(&args),
        Command::Load(args) => load(args),
        Command::Seed(args) => seed(&args),
        Command::Export(args) => export(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Top(lab) => run_lab("top", &lab.args),
        Command::Bench(lab) => run_lab("bench", &lab.args),
        Command::Explain(args) => explain(&args),
        Command::Capacity(args) => capacity::run(&args),
        Command::Cache(args) => inspect::run(&args),
    }
}

fn sources(settings: &Settings) -> Result<Sources> {
    let mut sources = Sources::read_with_default(settings.config.as_deref())?;
    sources.flag("--database-url", "database.url", settings.database_url.as_deref());
    Ok(sources)
}

fn serve_sources(args: &Serve) -> Result<Sources> {
    let mut sources = sources(&args.settings)?;
    sources.flag("--static", "static", args.static_directory.as_deref().map(Path::display));
    Ok(sources)
}

fn read(settings: &Settings) -> Result<Config> {
    let config = Config::new(sources(settings)?)?;
    logging::start(config.log, config.log_format);
    Ok(config)
}

fn serve(args: Serve) -> Result<i32> {
    let program = program().context("finding this program")?;
    let config = Config::new(serve_sources(&args)?)?;
    logging::start(config.log, config.log_format);
    db::addresses(&config.nodes(), "catwalk")?;
    let events = Events::open()?;
    let mut born_with = Inheritance::take()?;
    let predecessor = born_with.estate.as_mut().map(|estate| estate.master.try_clone()).transpose()?;
    let heritage = heritage::create(config, born_with)?;
    log::info!("serving http://{} with {} workers", heritage.address, heritage.workers);
    if let Some(tls) = heritage.https.address() {
        log::info!("serving https://{tls}");
    }
    let reread = move |before: &Config| {
        let renewed = before.renewed(serve_sources(&args)?)?;
        db::addresses(&renewed.0.nodes(), "catwalk")?;
        Ok(renewed)
    };
    let setup = master::Setup {
        events,
        companion: None,
        announce: String::new(),
        reread: Box::new(reread),
        predecessor,
        program,
    };
    master::run(heritage, setup)
}

/// The path by which this program was started, links and all: what lies there later is what an upgrade runs.
fn program() -> std::io::Result<PathBuf> {
    let name = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    if name.components().count() > 1 {
        return std::path::absolute(name);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|program| program.is_file());
    found.map_or_else(std::env::current_exe, std::path::absolute)
}

/// Becomes the program that looks at servers and drives them, which lies beside this one: its crates are none of a server's. Returns only
/// when it can't be run.
fn run_lab(verb: &str, args: &[String]) -> Result<i32> {
    let program = std::env::current_exe().context("finding this program")?.with_file_name("catwalk-lab");
    let args: Vec<String> = [verb.to_string()].into_iter().chain(args.iter().cloned()).collect();
    let why = fork::exec(&program, &args);
    anyhow::bail!(
        "`catwalk {verb}` is done by {}, which can't be run: {}; packages bring it, and `make lab` makes it",
        program.display(),
        why.desc()
    )
}

fn explain(args: &Explain) -> Result<i32> {
    let Some(name) = &args.name else {
        println!("{}", db::explain::names());
        return Ok(0);
    };
    let config = read(&args.settings)?;
    let client = db::connect(&config.database_url)?;
    println!("{}", db::explain::explain(&client, name, &args.values)?);
    Ok(0)
}

fn check(args: &Check) -> Result<i32> {
    let config = read(&args.settings)?;
    db::addresses(&config.nodes(), "catwalk")?;
    if let Some(files) = &config.tls {
        heritage::read_tls(files)?;
    }
    Front::load(&config, None)?;
    for url in config.nodes().iter().filter(|_| args.database) {
        let client = db::connect(url)?;
        db::check(&client)?;
        if let Some(problems) = db::changes::problems(&client)? {
            anyhow::bail!("changes made by others can't be followed: {problems}");
        }
    }
    println!("ok");
    Ok(0)
}

fn migrate(args: &Migrate) -> Result<i32> {
    let client = db::connect(&read(&args.settings)?.database_url)?;
    if args.plan {
        let pending = db::migrate::pending(&client, args.contract)?;
        pending.iter().for_each(|m| println!("{}\t{:?}\tlocks: {}", m.name, m.step(), m.locks()));
        if pending.is_empty() {
            println!("nothing to apply");
        }
        return Ok(0);
    }
    let applied = db::migrate::migrate(&client, args.contract)?;
    match applied.is_empty() {
        true => println!("nothing to apply"),
        false => applied.iter().for_each(|name| println!("applied {name}")),
    }
    Ok(0)
}

/// The database's address, with the schema of this version there.
fn migrated(settings: &Settings) -> Result<String> {
    let url = read(settings)?.database_url;
    db::migrate::migrate(&db::connect(&url)?, false)?;
    Ok(url)
}

fn audience(job: &Job) -> Audience {
    match job.json {
        true => Audience::Machines,
        false => Audience::People,
    }
}

fn load(args: Load) -> Result<i32> {
    let options = etl::load::Options {
        rejects: args.rejects.unwrap_or_else(|| args.dir.clone()),
        dir: args.dir,
        only: args.only,
        effort: Effort::of_machine(args.job.jobs),
        on_bad: args.on_bad,
        dry_run: args.dry_run,
        start_over: args.start_over,
        audience: audience(&args.job),
    };
    let url = match args.dry_run {
        true => read(&args.settings)?.database_url,
        false => migrated(&args.settings)?,
    };
    etl::load::run(&url, &options)
}

fn seed(args: &Seed) -> Result<i32> {
    let options = etl::seed::Options {
        products: args.products,
        seed: args.seed,
        profile: args.profile,
        effort: Effort::of_machine(args.job.jobs),
        audience: audience(&args.job),
    };
    match &args.csv {
        Some(dir) => etl::seed::write_csv(&options, dir, args.dirt)?,
        None => etl::seed::run(&migrated(&args.settings)?, &options)?,
    }
    Ok(0)
}

/// Exit status 3 with rows that a load would read otherwise.
fn export(args: &Export) -> Result<i32> {
    let url = read(&args.settings)?.database_url;
    let effort = Effort::of_machine(args.job.jobs);
    match etl::export::run(&url, &args.dir, effort.jobs, audience(&args.job))? {
        0 => Ok(0),
        _ => Ok(etl::EXIT_REJECTS),
    }
}
