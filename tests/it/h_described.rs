//! A fuzzer driven by the description of the API (schemathesis): what it allows, what it does not, and one call after another.
//! `API_FUZZ_SECONDS` sets how long; `make api-fuzz` takes an hour.

use std::path::PathBuf;
use std::process::Command;

use crate::support::server::directory;
use crate::support::{seed, Server};

/// Of the short form: no finding of these is a matter of how the description puts it.
const CHECKS_SHORT: &str = "not_a_server_error,response_schema_conformance";
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance,unsupported_method,allow_header_conformance";

/// The virtual environment that `.ci/instruments` makes.
fn fuzzer() -> Option<PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    Some(target.join("schemathesis/bin/st")).filter(|path| path.exists())
}

#[test]
fn no_input_gets_a_server_error_or_an_answer_that_is_not_described() {
    let Some(fuzzer) = fuzzer() else {
        println!("passed over: there is no schemathesis here");
        return;
    };
    let dir = directory();
    let path = dir.path().join("d");
    let server = Server::start_in(&path, &["--products", "100"]).keep(dir);
    let token = std::fs::read_to_string(path.join("admin-token")).unwrap();
    let (seconds, checks) = match std::env::var("API_FUZZ_SECONDS") {
        Ok(seconds) => (seconds, CHECKS),
        Err(_) => ("60".to_string(), CHECKS_SHORT),
    };
    let out = Command::new(fuzzer)
        .current_dir(&path)
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.address))
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        .args(["--max-time", &seconds, "--workers", "1", "--checks", checks, "--continue-on-failure"])
        .args(["--seed", &seed().to_string(), "--no-color"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    let summary = text.lines().rfind(|line| line.contains("generated"));
    println!("{}", summary.unwrap_or("no summary"));
    assert_eq!(server.metric("catwalk_worker_deaths_total"), 0);
}
