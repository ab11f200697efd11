//! What catwalk(8) says beyond its command line.
//! Runs in: offline.

use roff::{bold, roman, Roff};

use crate::toml_page::section;

const SIGNALS: [(&str, &str); 6] = [
    ("SIGTERM, SIGINT", "stop: requests under way are finished, connections get their next answer with Connection: close; a second one ends at once"),
    ("SIGHUP", "reload: settings, certificate and key are read and checked; workers are replaced one after the other. Bad ones change nothing"),
    ("SIGUSR2", "upgrade: the program that lies in this one's place is started beside it and takes over listeners and cache; if its workers don't serve, this one goes on"),
    ("SIGTTIN", "one worker more"),
    ("SIGTTOU", "one worker less"),
    ("SIGKILL", "of a worker: it is replaced within milliseconds, and only what it held is lost; of the master: workers end within a second"),
];

const STATUSES: [(&str, &str); 5] = [
    ("0", "done"),
    ("1", "it failed; standard error says why"),
    ("2", "the command line can't be understood; of `doctor`: something should be mended; of `bench`: errors, or no rate that goes"),
    ("3", "of `load` and `export`: done, but for rows that were rejected; of `reload` and `upgrade`: no server could be asked"),
    ("78", "the configuration is wrong (EX_CONFIG): trying again changes nothing"),
];

const FILES: [(&str, &str); 4] = [
    ("/etc/catwalk/catwalk.toml", "settings of the service"),
    ("/run/catwalk", "where a running server is found by `catwalk reload`, `upgrade`, `cache` and `top`"),
    (
        "/usr/share/catwalk/systemd",
        "drop-ins: sealed.conf for a service without a network of its own, 254.conf for newer systemd",
    ),
    ("/usr/share/doc/catwalk", "documents and examples"),
];

/// The sections.
pub fn render() -> Vec<u8> {
    let mut page = Roff::default();
    table(&mut page, "SIGNALS", &SIGNALS);
    table(&mut page, "EXIT STATUS", &STATUSES);
    table(&mut page, "FILES", &FILES);
    section(&mut page, "SEE ALSO", &["catwalk.toml(5), systemctl(1), journalctl(1), psql(1)"]);
    page.to_roff().into_bytes()
}

fn table(page: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    page.control("SH", [title]);
    for (name, text) in rows {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*text)]);
    }
}
