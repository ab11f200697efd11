//! The command line: one Command and its flags.
//! Runs in: master | offline.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// One box, one command, a whole retail catalogue API.
#[derive(Debug, Parser)]
#[command(name = "catwalk", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve with a private PostgreSQL and a demonstration catalogue: nothing to set up.
    Dev(Dev),
    /// Serve with the database of the configuration.
    Serve(Settings),
    /// Check the configuration, and with --database what it points to.
    Check(Check),
    /// Print every setting with its effective value and where it is from.
    Config(Settings),
    /// Bring the database's schema up to this version.
    Migrate(Settings),
    /// Load a CSV archive into an empty catalogue.
    Load(Load),
    /// Fill an empty catalogue with made-up products, the same ones for the same seed.
    Seed(Seed),
}

#[derive(Debug, Args)]
pub struct Settings {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the database, before every other source.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

#[derive(Debug, Args)]
pub struct Dev {
    /// Where the private cluster lives.
    #[arg(long, value_name = "DIR", default_value = ".catwalk")]
    pub dir: PathBuf,
    /// Address and port to serve on.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Products of the demonstration catalogue, when the cluster is new [default: 10000].
    #[arg(long, value_name = "N", conflicts_with = "load")]
    pub products: Option<u64>,
    /// Fill the new cluster from a CSV archive instead.
    #[arg(long, value_name = "ARCHIVE")]
    pub load: Option<PathBuf>,
    /// Worker processes; auto: one a core.
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Shared memory for the cache, as in 64MiB; 0 turns it off.
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub settings: Settings,
    /// Also connect, and check version and schema of the database.
    #[arg(long)]
    pub database: bool,
}

#[derive(Debug, Args)]
pub struct Load {
    /// Directory of the archive's CSV files.
    pub dir: PathBuf,
    /// Replace the catalogue that is there; readers wait until the load has ended.
    #[arg(long)]
    pub replace: bool,
    /// Where FILE.rejects.csv go [default: beside the archive's files].
    #[arg(long, value_name = "DIR")]
    pub rejects: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Seed {
    /// How many products.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub products: u64,
    /// The same seed makes the same catalogue.
    #[arg(long, value_name = "S", default_value_t = 42)]
    pub seed: u64,
    #[command(flatten)]
    pub settings: Settings,
}
