//! Never stale, whoever writes: a history of reads and writes under every fault that the change feed is made for, and one
//! test for each of its rules.

pub mod history;
mod joins;
mod rules;
pub mod traffic;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};

use crate::support::server::{directory, BIN};
use crate::support::{eventually, Dice, Server};
use history::{now_ns, Item, Place, Verdict, Write, Writer};
use traffic::{Stage, ADMIN_TOKEN, FEATURES, LATE};

const BOUND: Duration = Duration::from_millis(250);
const AUDIT_ONE_IN: u64 = 20;

/// A server whose products have a feature, a style and a sku that can be written.
fn start(configure: impl FnOnce(&mut Command)) -> Server {
    let dir = directory();
    let config = dir.path().join("catwalk.toml");
    let token = dir.path().join("token");
    std::fs::write(&token, ADMIN_TOKEN).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(
        &config,
        format!("[http]\nadmin_token_file = {token:?}\n[cache]\naudit_one_in = {AUDIT_ONE_IN}\n"),
    )
    .unwrap();
    let mut command = Command::new(BIN);
    command.arg("dev").arg("--dir").arg(dir.path().join("d")).args(["--listen", "127.0.0.1:0"]);
    command.env("CATWALK_WORKERS", "2");
    command.args(["--products", "70", "--cache-size", "16MiB", "--config"]).arg(config);
    configure(&mut command);
    let path = dir.path().join("d");
    let server = Server::launch(command, &path).keep(dir);
    server.database().batch_execute(traffic::FILL).unwrap();
    server
}

/// Runs traffic while `disturb` does its worst; what came of it.
fn under_traffic(server: &Server, disturb: impl FnOnce(&Stage)) -> Verdict {
    let stage = Stage::new(vec![server.address.clone()], vec![server.database_url()]);
    traffic::run(&stage, || disturb(&stage));
    let verdict = stage.history.lock().judge(BOUND);
    let missed = |share: f64| {
        let at = (verdict.missed_ms.len() as f64 * share) as usize;
        verdict.missed_ms.get(at.min(verdict.missed_ms.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    println!(
        "{} reads, {} writes, {} stale-if-error, {} refused, {} connections broken; {} answers without the latest version, \
         committed before they were asked for by {:.1} ms (median), {:.1} (p99), {:.1} (most)",
        verdict.reads,
        verdict.writes,
        verdict.stale_if_error,
        stage.refused.load(Ordering::Relaxed),
        stage.broken.load(Ordering::Relaxed),
        verdict.missed_ms.len(),
        missed(0.5),
        missed(0.99),
        missed(1.0)
    );
    verdict.violations.iter().take(10).for_each(|violation| println!("  {violation}"));
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
    assert_eq!(
        stage.refused_in_peace.load(Ordering::Relaxed),
        0,
        "refused or stale-if-error without an outage"
    );
    assert_eq!(server.metric("catwalk_cache_inconsistent_total"), 0);
    verdict
}

fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

const SHORT: Duration = Duration::from_millis(1500);

/// Something that goes wrong, by name.
type Fault = (&'static str, fn(&Server, &Stage));

/// Everything that goes wrong, one after the other.
const FAULTS: &[Fault] = &[
    ("peace", |_, _| wait(SHORT)),
    ("the feed's backend is terminated every second", terminate_the_feeds_backend),
    ("the feed is stopped for 5 s", stop_the_feed),
    ("the feed is killed", kill_the_feed),
    ("workers are killed", kill_workers),
    ("a table is truncated and filled anew", |_, stage| in_one_transaction(stage, "truncate features", "")),
    ("a bulk load", bulk_load),
    ("a table is swapped", swap),
    ("triggers are disabled, a change is made, they are enabled again", disable_triggers),
    ("the same within one transaction", disable_triggers_within),
    ("a function of the triggers is replaced for a moment", replace_a_function),
    ("PostgreSQL is restarted", |server, stage| restart(server, stage, Signal::SIGINT)),
    ("PostgreSQL crashes", |server, stage| restart(server, stage, Signal::SIGQUIT)),
];

fn terminate_the_feeds_backend(server: &Server, _: &Stage) {
    let db = server.database();
    for _ in 0..3 {
        let terminate =
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'catwalk feed'";
        assert!(!db.query_text(terminate, &[]).unwrap().is_empty());
        wait(Duration::from_secs(1));
    }
}

fn stop_the_feed(server: &Server, _: &Stage) {
    let (feed, before) = (server.feed(), server.metric("catwalk_cache_untrusted_total"));
    kill(feed, Signal::SIGSTOP).unwrap();
    wait(Duration::from_secs(5));
    assert!(server.metric("catwalk_cache_untrusted_total") > before, "lookups pass the cache by");
    assert!(!server.get("/readyz").json()["feed"]["ok"].as_bool().unwrap());
    kill(feed, Signal::SIGCONT).unwrap();
    wait(SHORT);
    let hits = server.metric("catwalk_cache_hits_total");
    eventually("the cache is trusted again", || server.metric("catwalk_cache_hits_total") > hits);
}

fn kill_the_feed(server: &Server, _: &Stage) {
    for _ in 0..5 {
        kill(server.feed(), Signal::SIGKILL).unwrap();
        wait(Duration::from_millis(300));
    }
}

fn kill_workers(server: &Server, stage: &Stage) {
    let mut dice = Dice(now_ns());
    for _ in 0..6 {
        let workers = server.workers();
        kill(workers[dice.below(workers.len() as u64) as usize], Signal::SIGKILL).unwrap();
        wait(Duration::from_millis(200 + dice.below(200)));
        assert!(!stage.is_over());
    }
}

/// All features get their next version in one transaction, between two statements.
fn in_one_transaction(stage: &Stage, before: &str, after: &str) {
    let db = stage.database();
    let version = stage.next_version();
    let begun_ns = now_ns();
    let fill = format!(
        "insert into features (product_id, feature, value) select id, 'Version', 'v{version}' from generate_series({}, {}) id",
        FEATURES.start(),
        FEATURES.end()
    );
    db.batch_execute(&format!("begin; {before}; {fill}; {after}; commit")).unwrap();
    note_features(stage, version, begun_ns);
    wait(SHORT);
}

fn note_features(stage: &Stage, version: i64, begun_ns: u64) {
    let done_ns = Some(now_ns());
    stage.note(FEATURES.map(|id| {
        let item = Item { place: Place::Feature, id };
        Write { item, version, by: Writer::Database, begun_ns, done_ns }
    }));
}

fn bulk_load(_: &Server, stage: &Stage) {
    let many = "insert into features (product_id, feature, value) select 70, 'Bulk', n::text from generate_series(1, 140000) n";
    in_one_transaction(stage, "delete from features where product_id between 31 and 50", many);
    stage.database().batch_execute("delete from features where product_id = 70").unwrap();
    wait(SHORT);
}

fn swap(_: &Server, stage: &Stage) {
    let past = stage.next_version();
    let before = format!(
        "create table features_next (like features including all); alter table features rename to features_past_{past};
         alter table features_next rename to features; select catwalk_follow('features')"
    );
    in_one_transaction(stage, &before, "");
}

fn disable_triggers(_: &Server, stage: &Stage) {
    let db = stage.database();
    let (version, begun_ns) = (stage.next_version(), now_ns());
    db.batch_execute("alter table features disable trigger user").unwrap();
    db.batch_execute(&format!("update features set value = 'v{version}' where feature = 'Version'")).unwrap();
    note_features(stage, version, begun_ns);
    db.batch_execute("select catwalk_follow('features')").unwrap();
    wait(SHORT);
}

fn disable_triggers_within(_: &Server, stage: &Stage) {
    let db = stage.database();
    let (version, begun_ns) = (stage.next_version(), now_ns());
    let change = format!("update features set value = 'v{version}' where feature = 'Version'");
    let hidden = format!(
        "begin; alter table features disable trigger user; {change}; select catwalk_follow('features'); commit"
    );
    db.batch_execute(&hidden).unwrap();
    note_features(stage, version, begun_ns);
    wait(SHORT);
}

fn replace_a_function(_: &Server, stage: &Stage) {
    let db = stage.database();
    let (version, begun_ns) = (stage.next_version(), now_ns());
    let rows = db.query_text("select pg_get_functiondef('catwalk_note_product_id'::regproc)", &[]).unwrap();
    let definition: String = rows[0].get(0);
    let nothing = "create or replace function catwalk_note_product_id() returns trigger language plpgsql as 'begin return null; end'";
    let change = format!("update features set value = 'v{version}' where feature = 'Version'");
    db.batch_execute(&format!("begin; {nothing}; {change}; {definition}; commit")).unwrap();
    note_features(stage, version, begun_ns);
    wait(SHORT);
}

fn restart(server: &Server, stage: &Stage, how: Signal) {
    stage.outage.store(true, Ordering::SeqCst);
    let before = server.postgres();
    kill(before, how).unwrap();
    eventually("another PostgreSQL runs", || server.find_postgres().is_some_and(|pid| pid != before));
    eventually("it is served and followed again", || {
        let ready = server.get("/readyz").json();
        ready["database"]["ok"] == true && ready["feed"]["ok"] == true
    });
    wait(Duration::from_millis(500));
    stage.outage.store(false, Ordering::SeqCst);
    wait(SHORT);
}

/// The faults one after the other; with COHERENCE_READS set, again and again until so many reads were made, and with a writer
/// that stays open for a minute.
#[test]
fn nobody_is_ever_served_anything_older_than_the_bound_allows() {
    let reads_min: Option<usize> = std::env::var("COHERENCE_READS").ok().and_then(|n| n.parse().ok());
    let server = start(|_| {});
    let verdict = under_traffic(&server, |stage| loop {
        let late = stage.database();
        let transaction = late.transaction().unwrap();
        let (item, version) = (Item { place: Place::Name, id: LATE }, stage.next_version());
        late.batch_execute(&traffic::statement(item, version)).unwrap();
        let (opened, begun_ns) = (Instant::now(), now_ns());
        for (name, fault) in &FAULTS[..FAULTS.len() - 2] {
            println!("{name} ({} reads so far)", stage.reads.load(Ordering::Relaxed));
            fault(&server, stage);
        }
        let patience = if reads_min.is_some() { Duration::from_secs(60) } else { Duration::from_secs(5) };
        wait(patience.saturating_sub(opened.elapsed()));
        transaction.commit().unwrap();
        stage.note([Write { item, version, by: Writer::Database, begun_ns, done_ns: Some(now_ns()) }]);
        println!("a writer commits after {:.0} s", opened.elapsed().as_secs_f64());
        wait(SHORT);
        for (name, fault) in &FAULTS[FAULTS.len() - 2..] {
            println!("{name} ({} reads so far)", stage.reads.load(Ordering::Relaxed));
            fault(&server, stage);
        }
        if stage.reads.load(Ordering::Relaxed) >= reads_min.unwrap_or(0) {
            return;
        }
    });
    assert!(verdict.reads >= reads_min.unwrap_or(5_000), "{} reads", verdict.reads);
    assert!(server.metric("catwalk_cache_hits_total") > verdict.reads as u64 / 4, "the cache took part");
    assert!(server.metric("catwalk_cache_audited_total") > 0, "hits were audited");
}

/// The database's and the server's clock of day is stepped to and fro (libfaketime): nothing depends on it.
#[test]
fn a_stepped_clock_changes_nothing() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(library).exists() {
        println!("passed over: libfaketime is not installed");
        return;
    }
    let dir = directory();
    let time = dir.path().join("time");
    let set = |step: &str| {
        let next = dir.path().join("next");
        std::fs::write(&next, step).unwrap();
        std::fs::rename(&next, &time).unwrap();
    };
    set("+0");
    let server = start(|command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &time);
        command.env("FAKETIME_CACHE_DURATION", "1").env("DONT_FAKE_MONOTONIC", "1");
    });
    let db_now = || {
        let rows = server.database().query_text("select extract(epoch from now())::int8", &[]).unwrap();
        rows[0].get::<i64>(0)
    };
    let before = db_now();
    under_traffic(&server, |_| {
        for step in ["+1h", "-1h", "+3d", "-1d", "+0"] {
            set(step);
            wait(Duration::from_secs(2));
            if step == "+3d" {
                assert!(db_now() > before + 86_400, "the clock was stepped");
            }
        }
    });
}
