//! `catwalk load` beside one psql session that copies the same files in turn into the same tables, then builds the same indexes and
//! constraints, then analyses: same server, one run.
//! Runs in: offline (`make bench-load`). LOAD_PRODUCTS=1000000 are written first, with everything that belongs to them.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use catwalk::etl::table::TABLES;

#[path = "server.rs"]
mod server;
use server::Server;

/// Memory for building an index in psql's session: as much as the load takes for each of two.
const MAINTENANCE_WORK_MEM: &str = "1GB";
/// Files with times, which psql can't read in epoch milliseconds: it gets them in ISO 8601, written before the clock starts.
const TIMED: &[&str] = &["reviews", "questions", "answers"];

fn main() {
    let products = std::env::var("LOAD_PRODUCTS").unwrap_or("1000000".into());
    let server = Server::start(&["--products", "0"]);
    let dir = std::env::temp_dir().join(format!("catwalk-archive-{}", std::process::id()));
    let seed = ["seed", "--products", &products, "--csv"];
    let status = Command::new(env!("CARGO_BIN_EXE_catwalk")).args(seed).arg(&dir).status();
    assert!(status.expect("catwalk starts").success());
    for table in TIMED {
        write_iso(&dir, table);
    }
    let psql = copy_with_psql(&server, &dir);
    settle(&server);
    let (load, peak_mib) = load(&server, &dir);
    println!("{products} products    | seconds | peak MiB");
    println!("psql, one session      | {:>7.1} |", psql.as_secs_f64());
    println!("catwalk load           | {:>7.1} | {peak_mib:>8}", load.as_secs_f64());
    println!("ratio of speeds        | {:>7.2} |", psql.as_secs_f64() / load.as_secs_f64());
    let _ = std::fs::remove_dir_all(&dir);
}

/// The load, and the most memory that it took.
fn load(server: &Server, dir: &Path) -> (Duration, u64) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_catwalk"))
        .arg("load")
        .arg(dir)
        .args(["--database-url", &server.database_url])
        .stdout(Stdio::null())
        .spawn()
        .expect("catwalk starts");
    let mut peak_kib = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak_kib = peak_kib.max(peak.and_then(|kib| kib.parse().ok()).unwrap_or(0));
        match child.try_wait().expect("a child of ours") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    assert!(status.success(), "{status}");
    (started.elapsed(), peak_kib >> 10)
}

/// Everything written before is on the disk, and the tables of the one before are gone.
fn settle(server: &Server) {
    let db = server.database();
    db.batch_execute("drop database plain").expect("nobody uses it");
    db.batch_execute("checkpoint").expect("a checkpoint");
}

fn copy_with_psql(server: &Server, dir: &Path) -> Duration {
    server.database().batch_execute("create database plain template template0").expect("a database");
    let url = server.database_url.replace("/catwalk", "/plain");
    psql(&url, &dump(server, "pre-data"));
    let mut script = String::new();
    for table in TABLES {
        let file = if TIMED.contains(&table.file) {
            format!("{}.iso", table.file)
        } else {
            format!("{}.csv", table.file)
        };
        script += &format!(
            "\\copy {} ({}) from '{}' with (format csv, header, null 'null')\n",
            table.name,
            table.column_names().join(", "),
            dir.join(file).display()
        );
    }
    script += &format!("set maintenance_work_mem = '{MAINTENANCE_WORK_MEM}';\n");
    script += &dump(server, "post-data");
    script += "analyze;\n";
    let started = Instant::now();
    psql(&url, &script);
    started.elapsed()
}

/// A part of the schema of the archive's tables, without the triggers.
fn dump(server: &Server, section: &str) -> String {
    let mut dump = Command::new("pg_dump");
    dump.args(["--schema-only", "--section", section, "--dbname", &server.database_url]);
    for table in TABLES {
        dump.args(["-t", table.name]);
    }
    let out = dump.output().expect("pg_dump is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("a dump is text");
    let lines = text.lines().filter(|line| !line.contains("TRIGGER"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn psql(url: &str, script: &str) {
    let mut child = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql is installed");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("psql reads");
    assert!(child.wait().expect("a child of ours").success());
}

/// `FILE.iso`: the times of a file, which are its first cells of 13 digits, as PostgreSQL reads them.
fn write_iso(dir: &Path, file: &str) {
    let input = BufReader::new(File::open(dir.join(format!("{file}.csv"))).expect("the seed wrote it"));
    let mut out = BufWriter::new(File::create(dir.join(format!("{file}.iso"))).expect("a file"));
    for line in input.lines() {
        let line = line.expect("text");
        let cells: Vec<&str> = line.split(',').collect();
        let at = cells.iter().position(|cell| cell.len() == 13 && cell.bytes().all(|b| b.is_ascii_digit()));
        let iso = at.map(|at| {
            let ms = cells[at].parse().expect("13 digits");
            let time = jiff::Timestamp::from_millisecond(ms).expect("a time of 2021");
            [&cells[..at], &[format!("{time:.3}").as_str()], &cells[at + 1..]].concat().join(",")
        });
        writeln!(out, "{}", iso.unwrap_or(line)).expect("room on the disk");
    }
    out.flush().expect("room on the disk");
}
