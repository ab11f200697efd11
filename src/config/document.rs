//! The table of settings as a document: docs/configuration.md is made from it.
//! Runs in: offline.

use std::fmt::Write;

use crate::config::SETTINGS;

const HEAD: &str = "# Configuration

Defaults, then a TOML file (`--config`, else `/etc/catwalk/catwalk.toml` where that is), then `CATWALK_…` variables and `DATABASE_URL`, then flags.
An unknown key is an error that names its line. Sizes and durations carry units: `\"512MiB\"`, `\"250ms\"`, `\"2 GiB\"`, `\"1h\"`. Dotted keys are
tables or dotted names, as you like. `catwalk config` prints every setting with its value and where it is from; `catwalk check` tells what is wrong.

**Applies**: *reload* (`systemctl reload catwalk`, `catwalk reload --wait`, SIGHUP: no request is lost), or *upgrade* (`catwalk upgrade --wait`,
which loses none either, or a restart). A reload with a changed key of the second kind names it and applies the others.

| key | default | applies | |
|---|---|---|---|
";

const TAIL: &str = "
Each key is a variable too: `CATWALK_` and the key in capitals, with `_` for dots.

## Sized by the machine
What is `auto` follows what this process may use: the CPUs of its affinity mask and its control group's quota (`cpu.max`), and the smaller of the
machine's memory and its group's limits. So moving to a larger instance is: stop, move, start.

| | one worker a core | cache | connections to each database node | HTTP connections |
|---|---|---|---|---|
| t3.micro, 1 GiB | 2 | 256 MiB | 10 | 8,192 |
| t3.medium, 4 GiB | 2 | 1 GiB | 10 | 32,768 |
| t3.xlarge, 16 GiB | 4 | 4 GiB | 20 | 131,072 |
| t3.2xlarge, 32 GiB | 8 | 8 GiB | 40 | 262,144 |

HTTP connections are at most what descriptors allow, less 256 in each worker (the unit grants 1,048,576 each). `catwalk setup` gives PostgreSQL on
the same machine a quarter of the memory too. `catwalk capacity` says what the instance should sustain and burst.
";

/// The document.
pub fn render() -> String {
    let mut out = HEAD.to_string();
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let applies = if setting.is_reloaded { "reload" } else { "upgrade" };
        let help = setting.help.replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {default} | {applies} | {help} |", setting.key);
    }
    out += TAIL;
    out
}
