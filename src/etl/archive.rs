//! An archive's directory: which file holds what, told by its header.
//! Runs in: offline.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use flate2::read::MultiGzDecoder;

use crate::etl::csv::Reader;
use crate::etl::progress::Meter;
use crate::etl::table::{plain, Table, TABLES};

/// Bytes of a file read ahead.
const BUFFER_SIZE_BYTES: usize = 256 * 1024;
/// So much of a stranger's header is told.
const HEADER_CHARS_MAX: usize = 200;

/// A file and what it holds.
#[derive(Debug)]
pub struct Source {
    pub path: PathBuf,
    /// Its name, without that of a compression: reports and rejects are named by it.
    pub file: String,
    pub size: u64,
    modified_ns: u128,
    pub table: &'static Table,
    /// For each column of the header, the table's.
    pub order: Vec<usize>,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Archive {
    /// In the order of the tables: parents before children.
    pub sources: Vec<Source>,
    /// Files that are passed over, and why.
    pub notes: Vec<String>,
}

impl Archive {
    /// Looks at every CSV file of `dir`; with `only`, takes those of these names.
    ///
    /// # Errors
    /// A file of an archive's name whose header does not fit, two files of the same content, a name in `only` that no file has.
    pub fn survey(dir: &Path, only: &[String]) -> Result<Archive> {
        let mut archive = Archive::default();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
            paths.push(entry?.path());
        }
        paths.sort();
        let mut unused: Vec<&String> = only.iter().collect();
        for path in paths {
            let Some((file, stem)) = csv_name(&path).map(|(file, stem)| (file, stem.to_string())) else {
                continue;
            };
            let stem = stem.as_str();
            let is_wanted = |name: &String| name == stem || *name == file;
            if !only.is_empty() && !only.iter().any(is_wanted) {
                continue;
            }
            unused.retain(|name| !is_wanted(name));
            match recognise(&path, stem).with_context(|| format!("reading {}", path.display()))? {
                Ok((table, order)) => {
                    let meta = path.metadata()?;
                    let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    let (size, modified_ns, path) = (meta.len(), modified.as_nanos(), path.canonicalize()?);
                    archive.sources.push(Source { path, file, size, modified_ns, table, order });
                }
                Err(note) => archive.notes.push(format!("{file} is passed over: {note}")),
            }
        }
        if let Some(name) = unused.first() {
            bail!("{} has no {name}.csv (nor .csv.gz, .csv.zst)", dir.display());
        }
        archive.sources.sort_by_key(|source| TABLES.iter().position(|table| table.file == source.table.file));
        let twice = archive.sources.windows(2).find(|pair| pair[0].table.file == pair[1].table.file);
        if let Some([a, b]) = twice {
            bail!(
                "{} and {} both hold {}: leave one of them there",
                a.path.display(),
                b.path.display(),
                a.table.name
            );
        }
        Ok(archive)
    }

    pub fn source(&self, table: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.table.name == table)
    }

    pub fn size(&self) -> u64 {
        self.sources.iter().map(|source| source.size).sum()
    }

    /// Another one for other files, or the same ones changed.
    pub fn fingerprint(&self) -> String {
        let one = |s: &Source| format!("{} {} {} {}", s.table.name, s.path.display(), s.size, s.modified_ns);
        self.sources.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl Source {
    /// Opens it behind its header; what is read is counted by `meter`, in bytes of the file as it lies there.
    pub fn open(&self, meter: &Meter) -> Result<Reader<Box<dyn BufRead>>> {
        let counted = meter.whole.wrap_read(open_file(&self.path)?);
        Ok(Reader::open(decompress(&self.path, counted)?)?.0)
    }
}

/// `product.csv` and `product` of `…/product.csv.gz`; None for what is no CSV file, or says what was rejected.
fn csv_name(path: &Path) -> Option<(String, &str)> {
    let name = path.file_name()?.to_str()?;
    let file = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(name);
    let stem = file.strip_suffix(".csv")?;
    (!file.ends_with(".rejects.csv") && path.is_file()).then(|| (file.to_string(), stem))
}

/// Whose header a file has, or why it is passed over.
fn recognise(path: &Path, stem: &str) -> Result<Result<(&'static Table, Vec<usize>), String>> {
    let (_, header) = Reader::open(decompress(path, open_file(path)?)?)?;
    for table in TABLES {
        if let Ok(order) = table.match_header(&header) {
            return Ok(Ok((table, order)));
        }
    }
    if stem == "cart" || header.iter().any(|name| plain(name) == "usersession") {
        return Ok(Err("carts belong to sessions, which an archive does not name".into()));
    }
    match TABLES.iter().find(|table| table.file == stem) {
        Some(table) => {
            table.match_header(&header).map(|order| Ok((table, order))).map_err(anyhow::Error::msg)
        }
        None => {
            let header: String = header.join(", ").chars().take(HEADER_CHARS_MAX).collect();
            Ok(Err(format!("its header ({}) is that of no file of an archive", header.escape_debug())))
        }
    }
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

fn decompress(path: &Path, file: impl Read + 'static) -> Result<Box<dyn BufRead>> {
    let plain: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER_SIZE_BYTES, plain)))
}
