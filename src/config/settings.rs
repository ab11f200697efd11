//! Every setting there is: key, default, and what it does. The documents of the configuration are made from this table.
//! Runs in: both, before anything is forked.

/// One setting: its key in the file (dotted) and its variable (`CATWALK_` + key in capitals, dots as `_`).
pub struct Setting {
    pub key: &'static str,
    pub default: &'static str,
    pub help: &'static str,
    /// Whether a reload changes it; else it takes a restart or an upgrade.
    pub is_reloaded: bool,
}

const fn setting(key: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, help, is_reloaded: true }
}

/// One that listeners, shared memory or cached answers depend on.
const fn fixed(key: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, help, is_reloaded: false }
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    fixed("listen", "127.0.0.1:8080", "address and port to serve on; port 0 takes a free one"),
    fixed("admin.listen", "127.0.0.1:9180", "address and port of /metrics, beside /healthz and /readyz; not for the public; empty: none"),
    fixed("public_url", "", "address that clients see, for absolute URLs of generated pictures; empty: http:// and the listen address"),
    setting("workers", "auto", "worker processes; auto: one a core this process may use"),
    setting("static", "", "directory of a front end of one's own, served from / instead of the shop below /shop/; its files are read at start and at each reload into memory (64 MiB and 20,000 files at most, links followed, names with a dot in front left out but .well-known); the API's paths come first, a browser that asks for a path without a dot which is no file gets index.html"),
    setting("loader_io", "", "token of loader.io, as in loaderio-0123456789abcdef0123456789abcdef: the page that proves to it whose server this is"),
    fixed("campus", "hr-rfp", "the campus word of product answers"),
    fixed("runtime_dir", "auto", "directory of this user's own in which a running server is found by `catwalk cache`, and, where no service manager keeps descriptors, its cache over a restart; auto: $RUNTIME_DIRECTORY, /run/catwalk for root, else $XDG_RUNTIME_DIR/catwalk; empty: none"),
    setting("log", "info", "error, warn, info, debug or trace"),
    fixed("log_format", "auto", "journal (journald's own protocol, with fields), text or json (an object a line, on standard error); auto: journal where standard error leads there, else text"),
    setting("access_log", "", "where each request is noted, as an object a line: a file, or log for where the rest goes; empty: nowhere"),
    setting("access_log_one_in", "1", "of the requests, one in so many is noted"),
    setting("slow_log", "500ms", "requests that take longer are told of, with the statement that they waited for; 0: none"),
    fixed("database.url", "", "postgresql:// address; DATABASE_URL sets it too"),
    fixed("database.replicas", "", "postgresql:// addresses of streaming replicas: reads go there, and the change feed; a list, or separated by commas. Whoever of all these is no replica takes the writes"),
    setting("database.replica_lag_max", "100ms", "a replica that lags behind by more is not read from until it has caught up"),
    setting("database.connections", "auto", "connections of the whole box to each node; auto: five a worker (two for reads by ids, one for lists, two for writes), fewer where the server's max_connections, shared among boxes, takes no more"),
    setting("database.timeout", "5s", "longest wait for one answer of the database"),
    fixed("cache.size", "auto", "shared memory for the cache; auto: a quarter of the memory; 0: none"),
    setting("cache.staleness_max", "250ms", "a change, whoever makes it, is served after at most this long; while that can't be known, answers come from the database"),
    setting("cache.max_age", "1h", "no cached answer is served for longer, changed or not"),
    setting("cache.missing_max_age", "60s", "the same for products that do not exist"),
    setting("cache.audit_one_in", "10000", "of the hits, one in so many is read again from the database and compared, behind the requests"),
    setting("cache.stale_if_error", "60s", "while no database can be reached, answers staler than those bounds by at most this long are served; 0: none"),
    setting("http.max_age", "0s", "max-age of product answers for clients and proxies; 0: they revalidate each time"),
    setting("http.max_ages", "", "the same for some kinds of answers, as in reviews=10s, styles=1min; kinds: product, styles, related, list, meta, reviews, questions, answers"),
    setting("http.origins", "*", "CORS: * or a list of origins, separated by commas"),
    setting("http.token", "", "if set, shopper routes need Authorization: Bearer with it, or with it alone; the shop below /shop/ sends none"),
    setting("http.admin_token_file", "", "file, readable by its owner only, with the token that /admin and image writes need as Authorization: Bearer; empty: the systemd credential admin-token, if there is one"),
    setting("http.write_rate", "20", "writes a second from one client address, over it 429; 0: no limit"),
    setting("http.write_burst", "100", "writes at once from one client address"),
    setting("cart.anonymous", "auto", "shared: what is put into a cart without a session is shown to all who have none; off; auto: shared in `dev`"),
    setting("http.connections", "auto", "open connections of the whole box, over it 503; auto: what descriptors and an eighth of the memory allow"),
    setting("http.headers_max", "100", "header fields of a request, over it 431"),
    setting("http.head_size_max", "64KiB", "size of a request's head, over it 431"),
    setting("http.request_line_size_max", "16KiB", "size of a request line, over it 414"),
    setting("http.body_size_max", "1MiB", "size of a request body, over it 413"),
    setting("http.header_timeout", "10s", "for a request's head, from its first byte; then 408"),
    setting("http.body_timeout", "30s", "for a request's body, and a second more for each 8 KiB received; then 408"),
    setting("http.idle_timeout", "75s", "between two requests of a connection"),
    setting("http.write_timeout", "30s", "without a byte of an answer taken by the client"),
    setting("http.trusted_proxies", "", "networks whose Forwarded, X-Forwarded-For and PROXY headers are believed, as in 10.0.0.0/8, fd00::/8"),
    setting("http.proxy_protocol", "false", "true: connections from trusted proxies begin with a PROXY header, version 1 or 2"),
    fixed("tls.listen", "", "address and port for HTTPS; empty: none"),
    setting("tls.certificate", "", "PEM file with the certificate and its chain; read again on SIGHUP"),
    setting("tls.key", "", "PEM file with the certificate's key; read again on SIGHUP"),
    fixed("styles.placeholders", "true", "null photos and skus for a style without, as the old service answered"),
    setting("shutdown.timeout", "10s", "longest drain before what is left is ended"),
];
