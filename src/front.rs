//! The front end: the shop that is part of the binary, or a directory of somebody's own; read and compressed once, served from memory.
//! Runs in: master (read), worker (found).

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use anyhow::{ensure, Context, Result};
use brotli::enc::BrotliEncoderParams;
use libdeflater::{CompressionLvl, Compressor};

use crate::cache::record::etag_of;
use crate::cache::Encoding;
use crate::config::Config;
use crate::limits::{FRONT_CODED_SIZE_MAX_BYTES, FRONT_DEPTH_MAX, FRONT_FILES_MAX, FRONT_SIZE_MAX_BYTES};

/// What is served where nothing else is: the router of the front end knows the path.
const INDEX: &str = "index.html";

/// The shop's files, by their names below `/shop/`.
const SHOP: &[(&str, &[u8])] = &[
    (INDEX, include_bytes!("../web/shop/index.html")),
    ("icon.svg", include_bytes!("../web/shop/icon.svg")),
    ("style.css", include_bytes!("../web/shop/style.css")),
    ("app.js", include_bytes!("../web/shop/app.js")),
    ("api.js", include_bytes!("../web/shop/api.js")),
    ("dom.js", include_bytes!("../web/shop/dom.js")),
    ("catalogue.js", include_bytes!("../web/shop/catalogue.js")),
    ("product.js", include_bytes!("../web/shop/product.js")),
    ("reviews.js", include_bytes!("../web/shop/reviews.js")),
    ("questions.js", include_bytes!("../web/shop/questions.js")),
    ("cart.js", include_bytes!("../web/shop/cart.js")),
];

/// The status page's, below `/status/` of the listener for administration.
const STATUS: &[(&str, &[u8])] = &[
    (INDEX, include_bytes!("../web/status/index.html")),
    ("status.css", include_bytes!("../web/status/status.css")),
    ("status.js", include_bytes!("../web/status/status.js")),
];

/// Their own scripts, styles and calls; pictures from wherever the catalogue has them.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' http: https: data:; \
                           base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Media types by the ends of names (IANA).
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json; charset=utf-8"),
    ("map", "application/json; charset=utf-8"),
    ("webmanifest", "application/manifest+json"),
    ("txt", "text/plain; charset=utf-8"),
    ("xml", "application/xml; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("wasm", "application/wasm"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("csv", "text/csv; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
];

/// A file, in the encodings that pay.
pub struct File {
    pub content_type: &'static str,
    pub etag: u64,
    /// Content-Security-Policy, where this server knows what the page does.
    pub policy: Option<&'static str>,
    identity: Vec<u8>,
    gzip: Vec<u8>,
    br: Vec<u8>,
}

impl File {
    fn new(name: &str, identity: Vec<u8>, policy: Option<&'static str>) -> File {
        let last = name.rsplit('/').next().unwrap_or_default();
        let extension = last.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
        let known = TYPES.iter().find(|(end, _)| *end == extension);
        let content_type = known.map_or("application/octet-stream", |(_, media_type)| media_type);
        let is_text =
            content_type.contains("charset=") || content_type.contains("svg") || extension == "wasm";
        let (gzip, br) = match is_text && identity.len() <= FRONT_CODED_SIZE_MAX_BYTES {
            true => (if_smaller(gzip(&identity), &identity), if_smaller(br(&identity), &identity)),
            false => Default::default(),
        };
        let is_page = content_type.starts_with("text/html");
        File {
            content_type,
            etag: etag_of(&identity),
            policy: policy.filter(|_| is_page),
            identity,
            gzip,
            br,
        }
    }

    pub fn has(&self, encoding: Encoding) -> bool {
        !self.body(encoding).is_empty()
    }

    pub fn body(&self, encoding: Encoding) -> &[u8] {
        match encoding {
            Encoding::Gzip => &self.gzip,
            Encoding::Br => &self.br,
            Encoding::Identity => &self.identity,
            Encoding::Zstd => &[],
        }
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; compressor.gzip_compress_bound(body.len())];
    let len = compressor.gzip_compress(body, &mut out).unwrap_or(0);
    out.truncate(len);
    out
}

fn br(body: &[u8]) -> Vec<u8> {
    let params = BrotliEncoderParams { quality: 5, size_hint: body.len(), ..Default::default() };
    let mut out = Vec::new();
    match brotli::BrotliCompress(&mut &body[..], &mut out, &params) {
        Ok(_) => out,
        Err(_) => Vec::new(),
    }
}

fn if_smaller(coded: Vec<u8>, body: &[u8]) -> Vec<u8> {
    if coded.len() < body.len() {
        coded
    } else {
        Vec::new()
    }
}

/// What a path of the front end leads to.
pub enum Found<'f> {
    File(&'f File),
    /// A directory without its slash: what its page links to lies below.
    Directory,
    /// Not the front end's, and its shop is elsewhere.
    Shop,
}

/// All files of a front end.
pub struct Front {
    files: HashMap<String, Arc<File>>,
    /// What all paths begin with.
    root: &'static str,
    /// A text that proves to loader.io whose server this is, and its page.
    verification: Option<(String, File)>,
}

impl Front {
    /// The shop, or what the settings have instead; files that are as they were `before` are taken over.
    ///
    /// # Errors
    /// As [`Front::read`].
    pub fn load(config: &Config, before: Option<&Front>) -> Result<Front> {
        let mut front = match &config.static_directory {
            Some(directory) => Front::read(directory, before)?,
            None => Front::shop(),
        };
        let page = |token: &String| (token.clone(), File::new("token.txt", token.clone().into_bytes(), None));
        front.verification = Some(&config.loader_io).filter(|token| !token.is_empty()).map(page);
        Ok(front)
    }

    /// The shop, below `/shop/`.
    fn shop() -> Front {
        Front::built_in(SHOP, "/shop/")
    }

    /// The status page, below `/status/`.
    pub fn status() -> &'static Front {
        static STATUS_FRONT: LazyLock<Front> = LazyLock::new(|| Front::built_in(STATUS, "/status/"));
        &STATUS_FRONT
    }

    fn built_in(files: &[(&str, &[u8])], root: &'static str) -> Front {
        let files = files.iter().map(|(name, text)| {
            (name.to_string(), Arc::new(File::new(name, text.to_vec(), Some(PAGE_POLICY))))
        });
        Front { files: files.collect(), root, verification: None }
    }

    /// All files below `directory`, links followed, but for names that begin with a dot other than `.well-known` (RFC 8615); served from `/`.
    ///
    /// # Errors
    /// What can't be read; that there is no index.html; that it is too much to be kept in memory.
    fn read(directory: &Path, before: Option<&Front>) -> Result<Front> {
        let mut front = Front { files: HashMap::new(), root: "/", verification: None };
        let mut size = 0;
        front
            .read_below(directory, "", 0, &mut size, before)
            .with_context(|| format!("static: reading {}", directory.display()))?;
        ensure!(front.files.contains_key(INDEX), "static: {} has no {INDEX}", directory.display());
        Ok(front)
    }

    fn read_below(
        &mut self,
        directory: &Path,
        above: &str,
        depth: usize,
        size: &mut u64,
        before: Option<&Front>,
    ) -> Result<()> {
        ensure!(depth <= FRONT_DEPTH_MAX, "it is over {FRONT_DEPTH_MAX} directories deep");
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name is not UTF-8")?;
            if name.starts_with('.') && !(above.is_empty() && name == ".well-known") {
                continue;
            }
            let (path, name) = (entry.path(), format!("{above}{name}"));
            let metadata = fs::metadata(&path).with_context(|| path.display().to_string())?;
            if metadata.is_dir() {
                self.read_below(&path, &format!("{name}/"), depth + 1, size, before)?;
                continue;
            }
            // Whoever opens a pipe waits for its other end.
            ensure!(metadata.is_file(), "{} is neither file nor directory", path.display());
            let left = FRONT_SIZE_MAX_BYTES - *size;
            // Some files have more in them than they say.
            let mut body = Vec::new();
            let read = fs::File::open(&path).and_then(|file| file.take(left + 1).read_to_end(&mut body));
            read.with_context(|| path.display().to_string())?;
            *size += body.len() as u64;
            ensure!(
                *size <= FRONT_SIZE_MAX_BYTES && self.files.len() < FRONT_FILES_MAX,
                "it has over {FRONT_FILES_MAX} files or {} MiB: what is large is better kept elsewhere, files are served from memory",
                FRONT_SIZE_MAX_BYTES >> 20
            );
            let known = before.and_then(|front| front.files.get(&name));
            let file = match known.filter(|file| file.identity == body) {
                Some(file) => file.clone(),
                None => Arc::new(File::new(&name, body, None)),
            };
            self.files.insert(name, file);
        }
        Ok(())
    }

    /// What is at a path, escapes undone; `is_browser`: somebody looks at it.
    pub fn find(&self, path: &str, is_browser: bool) -> Option<Found<'_>> {
        if let Some(page) = self.verifies(path) {
            return Some(Found::File(page));
        }
        let Some(name) = self.name_of(path) else {
            return (path == "/" && is_browser).then_some(Found::Shop);
        };
        let index = match name.trim_end_matches('/') {
            "" => INDEX.to_string(),
            directory => format!("{directory}/{INDEX}"),
        };
        let file = self.files.get(name).or_else(|| self.files.get(&index));
        if !name.is_empty() && !name.ends_with('/') && !self.files.contains_key(name) && file.is_some() {
            return Some(Found::Directory);
        }
        // The last part of a path that the front end's own router knows has no dot.
        let is_route = || is_browser && !name.rsplit('/').next().unwrap_or_default().contains('.');
        file.or_else(|| self.files.get(INDEX).filter(|_| is_route())).map(|file| Found::File(file))
    }

    /// A path below the root, without it; the root's slash may be missing.
    fn name_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let is_root = path == self.root.trim_end_matches('/');
        path.strip_prefix(self.root).or(is_root.then_some(""))
    }

    /// loader.io asks for its token as a directory, a text or a page.
    fn verifies(&self, path: &str) -> Option<&File> {
        let (token, page) = self.verification.as_ref()?;
        let rest = path.strip_prefix('/')?.strip_prefix(token.as_str())?;
        matches!(rest, "" | "/" | ".txt" | ".html").then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_at(front: &Front, path: &str, is_browser: bool) -> Option<&'static str> {
        match front.find(path, is_browser) {
            Some(Found::File(file)) => Some(file.content_type),
            Some(Found::Directory | Found::Shop) => Some("elsewhere"),
            None => None,
        }
    }

    #[test]
    fn the_shop_has_its_files_and_the_pages_of_its_router() {
        let shop = Front::shop();
        const HTML: Option<&str> = Some("text/html; charset=utf-8");
        for path in ["/shop", "/shop/", "/shop/cart", "/shop/products/17"] {
            assert_eq!(type_at(&shop, path, true), HTML, "{path}");
        }
        assert_eq!(type_at(&shop, "/shop/app.js", false), Some("text/javascript; charset=utf-8"));
        assert_eq!(type_at(&shop, "/shop/other.js", true), None);
        assert_eq!(type_at(&shop, "/shopping", true), None);
        assert_eq!((type_at(&shop, "/", true), type_at(&shop, "/", false)), (Some("elsewhere"), None));
        let Some(Found::File(page)) = shop.find("/shop/", true) else { panic!("it has an index") };
        assert!(page.policy.is_some() && page.has(Encoding::Br) && page.has(Encoding::Gzip));
    }

    #[test]
    fn loader_io_finds_its_token() {
        let token = "loaderio-0123456789abcdef0123456789abcdef";
        let mut front = Front::shop();
        let path = |end: &str| format!("/{token}{end}");
        assert_eq!(type_at(&front, &path("/"), true), None);
        front.verification = Some((token.into(), File::new("token.txt", token.into(), None)));
        for end in ["", "/", ".txt", ".html"] {
            let Some(Found::File(page)) = front.find(&path(end), false) else { panic!("{end}") };
            assert_eq!(page.body(Encoding::Identity), token.as_bytes());
        }
        assert_eq!(type_at(&front, &path("0"), true), None);
    }

    #[test]
    fn whatever_the_shop_links_to_is_part_of_it() {
        let shop = Front::shop();
        for (name, text) in SHOP {
            let text = std::str::from_utf8(text).unwrap();
            let quoted =
                text.split(['"', '\'']).filter(|word| word.starts_with("/shop/") || word.starts_with("./"));
            for word in quoted.filter(|word| word.rsplit('/').next().is_some_and(|last| last.contains('.'))) {
                let path = word.replace("./", "/shop/");
                assert!(type_at(&shop, &path, false).is_some(), "{name}: {word}");
            }
            assert!(!text.contains("//cdn") && !text.contains("src=\"http"), "{name} asks somebody else");
        }
    }

    #[test]
    fn what_is_too_much_for_memory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("index.html"), "<p>Hello").unwrap();
        let large = fs::File::create(dir.path().join("large.mp4")).unwrap();
        large.set_len(FRONT_SIZE_MAX_BYTES).unwrap();
        let why = |dir: &Path| format!("{:#}", Front::read(dir, None).err().unwrap());
        assert!(why(dir.path()).contains("or 64 MiB"), "{}", why(dir.path()));
        large.set_len(0).unwrap();
        // A link that leads around.
        std::os::unix::fs::symlink(dir.path(), dir.path().join("around")).unwrap();
        assert!(why(dir.path()).contains("16 directories deep"), "{}", why(dir.path()));
        fs::remove_file(dir.path().join("around")).unwrap();
        assert!(Front::read(dir.path(), None).is_ok());
    }

    #[test]
    fn a_directory_of_ones_own_is_served_from_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Front::read(dir.path(), None).err().unwrap().to_string();
        assert!(missing.contains("has no index.html"), "{missing}");
        fs::create_dir_all(dir.path().join("assets")).unwrap();
        fs::write(dir.path().join("index.html"), "<p>Hello").unwrap();
        fs::write(dir.path().join("assets/a.bundle.js"), "let a;").unwrap();
        fs::write(dir.path().join(".secret"), "x").unwrap();
        fs::write(dir.path().join("json"), "no extension").unwrap();
        fs::create_dir_all(dir.path().join(".well-known")).unwrap();
        fs::write(dir.path().join(".well-known/security.txt"), "Contact: mailto:shop@example.invalid")
            .unwrap();
        let front = Front::read(dir.path(), None).unwrap();
        assert_eq!(type_at(&front, "/", false), Some("text/html; charset=utf-8"));
        assert_eq!(type_at(&front, "/assets/a.bundle.js", false), Some("text/javascript; charset=utf-8"));
        assert_eq!(type_at(&front, "/anything/else", true), Some("text/html; charset=utf-8"));
        assert_eq!(type_at(&front, "/json", false), Some("application/octet-stream"));
        assert_eq!(
            type_at(&front, "/assets", true),
            Some("text/html; charset=utf-8"),
            "it has no page of its own"
        );
        assert_eq!(type_at(&front, "/.well-known/security.txt", false), Some("text/plain; charset=utf-8"));
        for path in ["/.secret", "/assets/none.js"] {
            assert_eq!(type_at(&front, path, true), None, "{path}");
        }
        assert_eq!(
            type_at(&front, "/anything/else", false),
            None,
            "who asks for data hears that there is none"
        );
    }
}
