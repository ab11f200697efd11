//! catwalk.toml(5).
//! Runs in: offline.

use anyhow::Result;
use catwalk::config::SETTINGS;
use roff::{bold, roman, Roff};

/// The page.
pub fn render() -> Result<Vec<u8>> {
    let mut page = Roff::default();
    page.control("TH", ["catwalk.toml", "5", "", "catwalk", ""]);
    section(&mut page, "NAME", &["catwalk.toml - settings of catwalk(8)"]);
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "A TOML file. Dotted keys are tables or dotted names, as you like. Sizes and durations carry units: \"512MiB\", \"250ms\". An unknown key is an error that names its line.",
            "Each key is also a variable: CATWALK_ and the key in capitals, dots as underscores (CATWALK_CACHE_SIZE); DATABASE_URL sets database.url. Variables come before the file, flags before both. `catwalk config` prints every setting with its value and where it is from.",
            "`systemctl reload catwalk` applies what has changed without losing a request. Keys marked with (restart) take `catwalk upgrade`, which loses none either, or a restart.",
        ],
    );
    page.control("SH", ["SETTINGS"]);
    for setting in SETTINGS {
        page.control("TP", []);
        let default = if setting.default.is_empty() { "empty" } else { setting.default };
        let restart = if setting.is_reloaded { "" } else { " (restart)" };
        page.text([bold(setting.key), roman(format!(" [default: {default}]{restart}"))]);
        page.text([roman(setting.help)]);
    }
    section(
        &mut page,
        "FILES",
        &["/etc/catwalk/catwalk.toml is what the service reads; `catwalk check --config FILE` tells what is wrong with one."],
    );
    section(&mut page, "SEE ALSO", &["catwalk(8)"]);
    Ok(page.to_roff().into_bytes())
}

pub fn section(page: &mut Roff, title: &str, paragraphs: &[&str]) {
    page.control("SH", [title]);
    for paragraph in paragraphs {
        page.control("PP", []);
        page.text([roman(*paragraph)]);
    }
}
