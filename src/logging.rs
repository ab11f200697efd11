//! The log: to journald with its fields, as an object a line, or as text.
//! Runs in: both.

use std::fmt::Write as _;
use std::io::Write as _;

use jiff::Timestamp;
use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{connected_to_journal, JournalLog};

use crate::config::LogFormat;

enum Sink {
    Journal(JournalLog),
    Text { is_stamped: bool },
    Json,
}

struct Logger(Sink);

/// Starts logging, once; later calls change the level alone.
pub fn start(level: LevelFilter, format: LogFormat) {
    log::set_max_level(level);
    // Who has one already has it from the first call.
    let _ = log::set_boxed_logger(Box::new(Logger(Sink::choose(format))));
}

impl Sink {
    fn choose(format: LogFormat) -> Sink {
        // Standard error that leads to the journal is stamped there.
        let text = Sink::Text { is_stamped: std::env::var_os("JOURNAL_STREAM").is_none() };
        match format {
            LogFormat::Json => Sink::Json,
            LogFormat::Text => text,
            LogFormat::Auto if !connected_to_journal() => text,
            LogFormat::Auto | LogFormat::Journal => match JournalLog::new() {
                Ok(journal) => Sink::Journal(journal.with_syslog_identifier("catwalk".into())),
                Err(_) => text,
            },
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // may tells of every descriptor it sees at info.
        let is_runtime = metadata.target().split("::").next() == Some("may");
        metadata.level() <= if is_runtime { LevelFilter::Warn } else { log::max_level() }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match &self.0 {
            Sink::Journal(journal) => drop(journal.journal_send(record)),
            Sink::Text { is_stamped } => write_line(&text(record, *is_stamped)),
            Sink::Json => write_line(&json(record)),
        }
    }

    fn flush(&self) {}
}

/// One write a line: processes of one server share standard error. Nobody is there to be told when that fails.
fn write_line(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn text(record: &Record<'_>, is_stamped: bool) -> String {
    let mut line = match is_stamped {
        true => format!("[{:.0} {:<5}] {}", Timestamp::now(), record.level(), record.args()),
        false => format!("{:<5} {}", record.level(), record.args()),
    };
    each_field(record, |key, value| {
        let _ = write!(line, " {key}={value}");
    });
    line.push('\n');
    line
}

fn json(record: &Record<'_>) -> String {
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: serde_json::Value| drop(object.insert(key.to_string(), value));
    put("time", format!("{:.6}", Timestamp::now()).into());
    put("level", record.level().as_str().to_lowercase().into());
    put("pid", std::process::id().into());
    put("message", record.args().to_string().into());
    each_field(record, |key, value| {
        let value = value.to_u64().map_or_else(|| value.to_string().into(), serde_json::Value::from);
        put(key, value);
    });
    format!("{}\n", serde_json::Value::Object(object))
}

fn each_field(record: &Record<'_>, each: impl FnMut(&str, Value<'_>)) {
    struct Each<F>(F);
    impl<'kvs, F: FnMut(&str, Value<'_>)> VisitSource<'kvs> for Each<F> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            (self.0)(key.as_str(), value);
            Ok(())
        }
    }
    // The visitor above fails at nothing.
    let _ = record.key_values().visit(&mut Each(each));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_kind_has_the_fields() {
        let fields: &[(&str, Value<'_>)] =
            &[("status", Value::from(200_u64)), ("path", Value::from("/a\"b"))];
        let make = |write: &dyn Fn(&Record<'_>) -> String| {
            write(
                &Record::builder()
                    .level(log::Level::Info)
                    .args(format_args!("served"))
                    .key_values(&fields)
                    .build(),
            )
        };
        assert_eq!(make(&|record| text(record, false)), "INFO  served status=200 path=/a\"b\n");
        let object: serde_json::Value = serde_json::from_str(&make(&json)).unwrap();
        assert_eq!(object["status"], 200);
        assert_eq!((object["path"].as_str(), object["level"].as_str()), (Some("/a\"b"), Some("info")));
    }

    #[test]
    fn the_runtime_is_heard_only_when_something_is_wrong() {
        log::set_max_level(LevelFilter::Info);
        let logger = Logger(Sink::Json);
        let enabled =
            |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(!enabled("may::io", log::Level::Info) && enabled("may::io", log::Level::Warn));
        assert!(enabled("may_postgres::connection", log::Level::Info));
    }
}
