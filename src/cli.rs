//! The command line: one Command and its flags.
//! Runs in: master | offline.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cache::Key;
use crate::etl::load::OnBad;
use crate::etl::seed::Profile;

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
    Serve(Serve),
    /// Have a running server read its settings anew: workers are replaced one after the other, and no request is lost.
    Reload(Ask),
    /// Have the binary that lies in its place take over from a running server, which goes on if that can't serve.
    Upgrade(Ask),
    /// Check the configuration, and with --database what it points to.
    Check(Check),
    /// Print every setting with its effective value and where it is from.
    Config(Settings),
    /// Make a database ready to be served from, or this machine's PostgreSQL a replica of one.
    Setup(Setup),
    /// Bring the database's schema up to this version.
    Migrate(Migrate),
    /// Put a CSV archive in the catalogue's place; a running server serves the old one until the new one is complete.
    Load(Load),
    /// Fill an empty catalogue with made-up products, or write them as an archive.
    Seed(Seed),
    /// Write the catalogue as an archive's CSV files.
    Export(Export),
    /// Look for what keeps this machine, its database and a running server from doing what they could; each finding with its fix.
    Doctor(Doctor),
    /// Watch a running server in the terminal, from its own memory.
    #[command(disable_help_flag = true)]
    Top(Lab),
    /// Drive a server at a constant rate, by the mixture of a shop, and say how long answers took.
    #[command(disable_help_flag = true)]
    Bench(Lab),
    /// Show the plan of a statement, by the name that the log and the metrics have for it.
    Explain(Explain),
    /// Say what this machine should sustain and burst: CPU a request, measured here, and what the instance is entitled to.
    Capacity(Capacity),
    /// Look into the cache of a running server, or clear it.
    Cache(Cache),
}

#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    pub verb: CacheVerb,
    /// The server's runtime directory [default: as configured, or that of `dev` here].
    #[arg(long, value_name = "DIR", global = true)]
    pub runtime_dir: Option<PathBuf>,
    /// TOML file with settings [default: /etc/catwalk/catwalk.toml, if it is there].
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// What it holds, how it does, how fresh it is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// What is hit most.
    Top {
        /// Keys that are shown.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        count: usize,
        /// Seconds over which hits are counted.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seconds: u64,
    },
    /// The records of a key, whole.
    Dump {
        /// KIND:ID or KIND:ID:VARIANT, as in product:17; `top` shows keys.
        key: Key,
        /// Only the JSON body, as it is sent.
        #[arg(long)]
        body: bool,
    },
    /// Check every segment, item and record; exit status 1 if something is wrong.
    Verify {
        /// A file that a server has left in its runtime directory, instead of a running server.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Void every cached answer.
    Clear,
}

#[derive(Debug, Args)]
pub struct Ask {
    /// Return when it is done, not when it has begun.
    #[arg(long)]
    pub wait: bool,
    /// The server's runtime directory [default: as configured, or that of `dev` here].
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// TOML file with settings [default: /etc/catwalk/catwalk.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Settings {
    /// TOML file with settings [default: /etc/catwalk/catwalk.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the database, before every other source.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// What another program, catwalk-lab, is asked for: `catwalk top --help` and `catwalk bench --help` have its flags.
#[derive(Debug, Args)]
pub struct Lab {
    /// Passed on; --help lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// Name of the statement; without one all names are printed.
    pub name: Option<String>,
    /// What it is run with, and rolled back; without values the plan is the one for any, and nothing is run.
    pub values: Vec<String>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Settings,
    /// Directory of a front end of one's own, served from / instead of the shop below /shop/.
    #[arg(long = "static", value_name = "DIR")]
    pub static_directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
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
    /// Directory of a front end of one's own, served from / instead of the shop below /shop/.
    #[arg(long = "static", value_name = "DIR")]
    pub static_directory: Option<PathBuf>,
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub settings: Settings,
    /// Print what would be applied, and which locks it takes; apply nothing.
    #[arg(long)]
    pub plan: bool,
    /// Also what takes away what only versions before this one need: once none of them runs any more.
    #[arg(long)]
    pub contract: bool,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub settings: Settings,
    /// As JSON: level, subject, found, fix and why of each.
    #[arg(long)]
    pub json: bool,
    /// Also what is fine.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Capacity {
    /// Seconds that each kind of request is measured for.
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub seconds: u64,
    /// Another instance type, as in t3.xlarge: its cores and baseline with this machine's time a request [default: this one].
    #[arg(long, value_name = "TYPE")]
    pub instance: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
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
pub struct Setup {
    /// Address of the server, with the rights of whoever may make roles and databases there; of the primary, for a replica [default: the
    /// variable DATABASE_URL, which other users of this machine can't read; without it PostgreSQL on this machine, where nobody needs a
    /// password].
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Take an address on which nobody checks who answers (without sslmode=verify-full).
    #[arg(long)]
    pub insecure: bool,
    /// Role that serves, and name of its database [default: catwalk].
    #[arg(long, value_name = "NAME", default_value = "catwalk", conflicts_with = "replica")]
    pub role: String,
    /// Give the role a new password if it is there already.
    #[arg(long, conflicts_with = "replica")]
    pub new_password: bool,
    /// File to write the settings to, readable by its owner only.
    #[arg(long, value_name = "FILE", default_value = "catwalk.toml", conflicts_with = "replica")]
    pub out: PathBuf,
    /// Make this machine's PostgreSQL a streaming replica.
    #[arg(long)]
    pub replica: bool,
    /// Name of the replica: of its slot, its role, and in pg_stat_replication [default: this machine's].
    #[arg(long, value_name = "NAME", requires = "replica")]
    pub name: Option<String>,
    /// Where the replica's data goes: a directory that is empty or not there yet.
    #[arg(long, value_name = "DIR", requires = "replica", default_value = "/var/lib/catwalk/replica")]
    pub data_dir: PathBuf,
    /// Port of the replica.
    #[arg(long, value_name = "PORT", requires = "replica", default_value_t = 5432)]
    pub port: u16,
    /// Have every commit on the primary wait until this replica has it on disk.
    #[arg(long, requires = "replica")]
    pub synchronous: bool,
}

#[derive(Debug, Args)]
pub struct Load {
    /// Directory of the archive's CSV files (.csv, .csv.gz, .csv.zst), recognised by their headers.
    pub dir: PathBuf,
    /// Read and report only: the database is left as it is.
    #[arg(long)]
    pub dry_run: bool,
    /// Only files of these names, as in product,styles; the other tables stay as they are.
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// What becomes of a line that can't be loaded: listed in FILE.rejects.csv, or nothing is loaded at all.
    #[arg(long, value_enum, default_value_t = OnBad::Reject)]
    pub on_bad: OnBad,
    /// Where FILE.rejects.csv go [default: beside the archive's files].
    #[arg(long, value_name = "DIR")]
    pub rejects: Option<PathBuf>,
    /// Leave what an interrupted load of the same files has left behind; else it is gone on with.
    #[arg(long)]
    pub start_over: bool,
    #[command(flatten)]
    pub job: Job,
    #[command(flatten)]
    pub settings: Settings,
}

/// How a long command works, and what it prints.
#[derive(Debug, Args)]
pub struct Job {
    /// Threads, each with a connection [default: one a core, at least 2].
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Print progress and summary as JSON, an object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Seed {
    /// How many products.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub products: u64,
    /// The same seed makes the same catalogue.
    #[arg(long, value_name = "S", default_value_t = 42)]
    pub seed: u64,
    /// What is made: all, or products, features, styles and the image service's images.
    #[arg(long, value_enum, default_value_t = Profile::Full)]
    pub profile: Profile,
    /// Write the files of an archive there, and leave the database alone.
    #[arg(long, value_name = "DIR")]
    pub csv: Option<PathBuf>,
    /// Damage so many of a thousand lines, in the ways of old archives.
    #[arg(long, value_name = "PER_MILLE", requires = "csv", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub dirt: u64,
    #[command(flatten)]
    pub job: Job,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Where the files are written.
    pub dir: PathBuf,
    #[command(flatten)]
    pub job: Job,
    #[command(flatten)]
    pub settings: Settings,
}
