//! What is written beside the code: reference documents made from its tables, the dashboard, the units and what sandboxes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use catwalk::metrics::names::{COUNTERS, DURATION, GAUGES, LEVELS};

use crate::support::server::{directory, BIN};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A document is what its table says; `UPDATE_DOCS=1 cargo test a_papers` writes it.
fn is_current(name: &str, made: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == made,
        "docs/{name}: UPDATE_DOCS=1 cargo test a_papers writes it"
    );
}

#[test]
fn reference_documents_are_what_the_tables_say() {
    is_current("configuration.md", &catwalk::config::document::render());
    is_current("metrics.md", &catwalk::metrics::document::render());
}

#[test]
fn every_metric_says_what_it_is() {
    let all = COUNTERS.iter().chain(LEVELS).chain(GAUGES).chain([&DURATION]);
    let mut explained = std::collections::BTreeSet::new();
    for metric in all {
        assert!(!metric.help.is_empty() || explained.contains(metric.name), "{}", metric.name);
        explained.insert(metric.name);
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let text = fs::read_to_string(root().join("docs/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let known: Vec<&str> = COUNTERS.iter().chain(LEVELS).chain(GAUGES).map(|metric| metric.name).collect();
    let mut expressions = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            expressions += 1;
            let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in names.filter(|name| name.starts_with("catwalk_")) {
                let is_duration = name
                    .strip_prefix(DURATION.name)
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest));
                assert!(known.contains(&name) || is_duration, "{name} in {expression}");
            }
        }
    }
    assert!(expressions > 12);
}

/// systemd's own judge; None where it is not installed.
fn analyze(args: &[&str], units: &Path) -> Option<Output> {
    let has = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|out| out.status.success());
    if !has {
        println!("passed over: systemd-analyze is not installed");
        return None;
    }
    Some(Command::new("systemd-analyze").args(args).current_dir(units).output().unwrap())
}

/// The units in a directory of their own, with this binary in the program's place, and drop-ins of the service.
fn units(drop_ins: &[&str]) -> tempfile::TempDir {
    let dir = directory();
    for name in ["catwalk.service", "catwalk.socket", "catwalk-admin.socket"] {
        let text = fs::read_to_string(root().join("systemd").join(name)).unwrap();
        fs::write(dir.path().join(name), text.replace("/usr/bin/catwalk", BIN)).unwrap();
    }
    let drop_in = dir.path().join("catwalk.service.d");
    fs::create_dir(&drop_in).unwrap();
    for name in drop_ins {
        fs::copy(root().join("systemd").join(name), drop_in.join(name)).unwrap();
    }
    dir
}

fn assert_succeeds(out: &Output) {
    let said = [&out.stdout[..], &out.stderr[..]].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn units_are_what_systemd_understands() {
    for drop_ins in [&[][..], &["sealed.conf"]] {
        let dir = units(drop_ins);
        let names = ["./catwalk.service", "./catwalk.socket", "./catwalk-admin.socket"];
        let Some(out) = analyze(&[&["verify", "--man=no"][..], &names].concat(), dir.path()) else { return };
        assert_succeeds(&out);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        // Other units of this machine may have their own troubles.
        assert!(!said.contains("catwalk"), "{said}");
    }
}

#[test]
fn the_service_is_exposed_as_little_as_is_promised() {
    // The plain unit, then with no network of its own: tenths of systemd's ten points.
    for (drop_ins, threshold) in [(&[][..], 15), (&["sealed.conf"], 5)] {
        let dir = units(drop_ins);
        let threshold = format!("--threshold={threshold}");
        let judge = ["security", "--offline=true", "--no-pager", &threshold, "./catwalk.service"];
        let Some(out) = analyze(&judge, dir.path()) else { return };
        assert_succeeds(&out);
        println!("{}", String::from_utf8_lossy(&out.stdout).lines().last().unwrap_or_default());
    }
}

#[test]
fn the_packaged_configuration_is_good() {
    let out = Command::new(BIN)
        .args(["check", "--config"])
        .arg(root().join("systemd/catwalk.toml"))
        .output()
        .unwrap();
    assert_succeeds(&out);
}

#[test]
fn every_document_is_linked() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("docs")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("docs/{name}")), "README.md does not lead to docs/{name}");
    }
}
