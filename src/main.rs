//! Parse, dispatch one command, print the error chain, exit.
//! Runs in: master | offline.

use std::process::ExitCode;

use anyhow::Result;
use catwalk::cli::{Check, Cli, Command, Load, Seed, Settings};
use catwalk::config::{Config, ConfigError, Sources};
use catwalk::master::events::Events;
use catwalk::{db, dev, etl, heritage, master};
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
        Command::Serve(settings) => serve(&settings),
        Command::Check(args) => check(&args),
        Command::Config(settings) => {
            print!("{}", read(&settings)?.describe());
            Ok(0)
        }
        Command::Migrate(settings) => migrate(&settings),
        Command::Load(args) => load(args),
        Command::Seed(args) => seed(&args),
    }
}

fn read(settings: &Settings) -> Result<Config> {
    let mut sources = Sources::read(settings.config.as_deref())?;
    sources.flag("--database-url", "database.url", settings.database_url.as_deref());
    let config = Config::new(sources)?;
    catwalk::start_log(config.log);
    Ok(config)
}

fn serve(settings: &Settings) -> Result<i32> {
    let config = read(settings)?;
    db::address(&config.database_url, "catwalk")?;
    let events = Events::open()?;
    let heritage = heritage::create(config)?;
    log::info!("serving http://{} with {} workers", heritage.address, heritage.workers);
    if let Some(tls) = heritage.tls_address() {
        log::info!("serving https://{tls}");
    }
    Ok(master::run(heritage, events, None, String::new()))
}

fn check(args: &Check) -> Result<i32> {
    let config = read(&args.settings)?;
    db::address(&config.database_url, "catwalk")?;
    if let Some(files) = &config.tls {
        heritage::read_tls(files)?;
    }
    if args.database {
        let client = db::connect(&config.database_url)?;
        db::migrate::check(&client)?;
        if let Some(problems) = db::changes::problems(&client)? {
            anyhow::bail!("changes made by others can't be followed: {problems}");
        }
    }
    println!("ok");
    Ok(0)
}

fn migrate(settings: &Settings) -> Result<i32> {
    let applied = db::migrate::migrate(&db::connect(&read(settings)?.database_url)?)?;
    match applied.is_empty() {
        true => println!("nothing to apply"),
        false => applied.iter().for_each(|name| println!("applied {name}")),
    }
    Ok(0)
}

fn load(args: Load) -> Result<i32> {
    let client = db::connect(&read(&args.settings)?.database_url)?;
    db::migrate::migrate(&client)?;
    let rejects = args.rejects.unwrap_or_else(|| args.dir.clone());
    etl::load::run(&client, &etl::load::Options { dir: args.dir, rejects, replace: args.replace })
}

fn seed(args: &Seed) -> Result<i32> {
    let client = db::connect(&read(&args.settings)?.database_url)?;
    db::migrate::migrate(&client)?;
    etl::seed::run(&client, args.products, args.seed).map(|()| 0)
}
