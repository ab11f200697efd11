//! The code itself: headers, sizes, who imports whom, dead SQL.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, extension));
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    let mut all = files(&root().join("src"), "rs");
    all.extend(files(&root().join("crates/may_minihttp/src"), "rs"));
    all.extend(files(&root().join("crates/may_postgres/src"), "rs"));
    all
}

/// A room's tests, in a file or a directory of their own.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.parent().is_some_and(|dir| dir.ends_with("tests"))
}

#[test]
fn every_file_opens_with_its_purpose_and_where_it_runs() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} has no purpose", path.display());
        let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
        let is_map = path.ends_with("lib.rs");
        let is_test = is_test(&path);
        assert!(
            is_map || is_test || head.contains("Runs in: ") || head.contains("Imported by"),
            "{}: where does it run?",
            path.display()
        );
    }
}

#[test]
fn files_and_functions_are_short() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        assert!(code.lines().count() <= FILE_LINES_MAX, "{} is too long", path.display());
        for (name, lines) in functions(code) {
            assert!(lines <= FUNCTION_LINES_MAX, "{}: {name} has {lines} lines", path.display());
        }
    }
}

/// Functions of formatted code: from `fn` to the closing brace at its indentation.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_function =
            trimmed.starts_with("fn ") || (trimmed.starts_with("pub") && trimmed.contains(" fn "));
        if !is_function || trimmed.ends_with(';') || trimmed.ends_with('}') {
            continue;
        }
        let closing = format!("{}}}", &line[..line.len() - trimmed.len()]);
        if let Some(end) = lines[n..].iter().position(|l| *l == closing) {
            found.push((trimmed.to_string(), end + 1));
        }
    }
    found
}

/// Rooms that a room's files must not name. From the table of the house; a file listed apart is let off.
const MUST_NOT_IMPORT: &[(&str, &[&str], &[&str])] = &[
    (
        "limits.rs",
        &["os", "machine", "config", "cache", "db", "api", "worker", "master", "etl", "dev", "metrics"],
        &[],
    ),
    (
        "os/",
        &[
            "machine", "config", "cache", "db", "api", "worker", "master", "etl", "dev", "metrics",
            "heritage", "slots",
        ],
        &[],
    ),
    ("metrics/", &["feed", "api", "db", "cache", "worker", "master", "etl", "dev"], &[]),
    ("cache/", &["feed", "db", "api", "master", "worker", "etl", "dev"], &[]),
    ("db/", &["feed", "cache", "api", "master", "worker", "etl", "dev"], &[]),
    ("api/", &["feed", "worker", "master", "etl", "dev"], &[]),
    ("worker/", &["feed", "master", "etl", "cli", "dev"], &[]),
    ("feed/", &["api", "master", "worker", "etl", "dev"], &[]),
    ("master/", &["cache", "db", "api", "etl", "dev", "worker", "feed"], &["master/spawn.rs"]),
    ("etl/", &["feed", "cache", "api", "master", "worker", "dev"], &[]),
    ("machine/", &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "heritage", "slots"], &[]),
    ("config/", &["db", "api", "master", "worker", "feed", "etl", "dev", "heritage", "slots"], &[]),
    (
        "logging.rs",
        &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "heritage", "slots"],
        &[],
    ),
    ("keep.rs", &["db", "api", "master", "worker", "feed", "etl", "dev", "config"], &[]),
    ("succession.rs", &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "config"], &[]),
    ("control.rs", &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "config"], &[]),
    ("heritage.rs", &["db", "api", "master", "worker", "feed", "etl", "dev"], &[]),
    // Those look at a server from outside: by its memory, its socket or its answers.
    ("ask.rs", &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "heritage"], &[]),
    ("inspect/", &["db", "api", "master", "worker", "feed", "etl", "dev", "heritage"], &[]),
    ("doctor/", &["api", "master", "worker", "feed", "etl", "dev", "heritage"], &[]),
    ("capacity.rs", &["db", "cache", "api", "master", "worker", "feed", "etl", "dev", "heritage"], &[]),
    ("setup/", &["cache", "api", "master", "worker", "feed", "etl", "dev", "heritage"], &[]),
];

#[test]
fn rooms_import_only_what_they_may() {
    let src = root().join("src");
    for path in files(&src, "rs") {
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (room, forbidden, let_off) in MUST_NOT_IMPORT {
            if !name.starts_with(room) || let_off.contains(&name.as_str()) {
                continue;
            }
            for other in *forbidden {
                assert!(!code.contains(&format!("crate::{other}")), "{name} imports {other}");
            }
        }
        assert!(
            !name.starts_with("master/") || !code.contains("may::"),
            "{name}: the master never touches may"
        );
        let speaks_libc = code.contains("libc::");
        assert!(!speaks_libc || name.starts_with("os/"), "{name} speaks libc");
    }
}

#[test]
fn every_statement_has_a_user_and_its_name_in_front() {
    let used = fs::read_to_string(root().join("src/statements.rs")).unwrap();
    for path in files(&root().join("sql/queries"), "sql") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(used.contains(&format!("\"{name}\";")), "{name}.sql is used by nobody");
        assert!(text.starts_with(&format!("/* {name} */")), "{name}.sql does not say its name");
    }
}

#[test]
fn every_migration_is_applied_and_says_what_it_locks() {
    let used = fs::read_to_string(root().join("src/db/migrate.rs")).unwrap();
    let mut numbers = BTreeSet::new();
    for path in fs::read_dir(root().join("sql"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
    {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(used.contains(&format!("\"{name}\"")), "{name} is applied by nobody");
        let header: String = text.lines().take_while(|l| l.starts_with("--")).collect();
        assert!(header.contains("Locks:"), "{name} does not say which locks it takes");
        numbers.insert(name[..4].parse::<u32>().unwrap());
    }
    assert_eq!(numbers, (1..=numbers.len() as u32).collect(), "numbers without gaps");
}

/// Crates in the server's tree, ours not counted.
const CRATES_MAX: usize = 130;

#[test]
fn the_servers_tree_of_crates_stays_small() {
    let mut tree = std::process::Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "-p", "catwalk", "-e", "normal", "--prefix", "none", "--no-dedupe"]);
    let out = tree.current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<_> = text.lines().filter(|l| !l.contains('/')).map(name).collect();
    assert!(crates.len() > 50 && crates.len() <= CRATES_MAX, "{} crates", crates.len());
}

#[test]
fn comments_speak_of_the_present() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if !is_test(&path) {
            assert!(!code.contains(".unwrap()"), "{}: unwrap outside tests", path.display());
        }
    }
}

/// Every number of links in the documents leads somewhere.
#[test]
fn documents_name_files_that_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if !target.starts_with("http") && !target.starts_with('#') {
                assert!(root().join(target).exists(), "{document} links to {target}");
            }
        }
    }
}

#[test]
fn every_code_of_a_problem_is_documented() {
    let text = fs::read_to_string(root().join("src/api/problem.rs")).unwrap();
    let known = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let mut codes = BTreeSet::new();
    for path in files(&root().join("src/api"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        codes.extend(
            text.split("bad_request(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_string()),
        );
    }
    // Of all texts of the file those that look like codes.
    let quoted = text.split('"').skip(1).step_by(2);
    let is_code =
        |word: &&str| word.contains('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    codes.extend(quoted.filter(is_code).map(str::to_string));
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        assert!(known.contains(&format!("`{code}`")), "{code} is not in docs/errors.md");
    }
}
