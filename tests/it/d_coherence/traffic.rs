//! Who reads and who writes: shoppers on several connections each, a writer at the database, one through the server.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use may_postgres::{connect, Client, Config};
use parking_lot::Mutex;

use super::history::{now_ns, History, Item, Place, Read, Write, Writer};
use crate::support::{seed, Connection, Dice};

/// Products whose name, first feature or first sku is written.
pub const NAMES: std::ops::RangeInclusive<i64> = 1..=20;
pub const SERVED: std::ops::RangeInclusive<i64> = 21..=30;
pub const FEATURES: std::ops::RangeInclusive<i64> = 31..=50;
pub const QUANTITIES: std::ops::RangeInclusive<i64> = 51..=60;
/// Written by a transaction that stays open.
pub const LATE: i64 = 61;
pub const ADMIN_TOKEN: &str = "a token of the tests";
/// Gives products features, styles and skus that can be written.
pub const FILL: &str = "
        delete from features where product_id between 31 and 50;
        insert into features (product_id, feature, value) select id, 'Version', 'v0' from generate_series(31, 50) id;
        delete from styles where product_id between 51 and 60;
        insert into styles (id, product_id, name, original_price, default_style)
            select 1000000 + id, id, 'One', 1, true from generate_series(51, 60) id;
        insert into skus (style_id, size, quantity) select 1000000 + id, 'M', 0 from generate_series(51, 60) id;";
/// Connections of a client: they reach different workers.
const CONNECTIONS: usize = 3;

/// What all of them share.
pub struct Stage {
    /// Of one server, or of several that clients are spread over.
    pub addresses: Vec<String>,
    /// Of all nodes: whoever is no replica is written to.
    pub database_urls: Vec<String>,
    /// Whether there are several servers, be they behind one address.
    pub is_shared: bool,
    pub stop: AtomicBool,
    pub history: Mutex<History>,
    pub reads: AtomicUsize,
    /// Answers 503, and connections that broke.
    pub refused: AtomicUsize,
    pub broken: AtomicUsize,
    /// While the database is down or coming up, set by who takes it down.
    pub outage: AtomicBool,
    pub refused_in_peace: AtomicUsize,
    versions: AtomicI64,
}

impl Stage {
    pub fn new(addresses: Vec<String>, database_urls: Vec<String>) -> Stage {
        Stage {
            addresses,
            database_urls,
            is_shared: false,
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            reads: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            outage: AtomicBool::new(false),
            refused_in_peace: AtomicUsize::new(0),
            versions: AtomicI64::new(0),
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A version higher than any before.
    pub fn next_version(&self) -> i64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn note(&self, writes: impl IntoIterator<Item = Write>) {
        self.history.lock().writes.extend(writes);
    }

    /// A connection to the database, waited for while it is away.
    pub fn database(&self) -> Client {
        loop {
            // Of two that both believe to be it, the later one.
            let primaries = self.database_urls.iter().filter_map(|url| connect_to_primary(url));
            if let Some((_, client)) = primaries.max_by_key(|(timeline, _)| timeline.clone()) {
                return client;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whom a client asks.
    fn address_of(&self, client: usize) -> &str {
        &self.addresses[client % self.addresses.len()]
    }
}

fn connect_to_primary(url: &str) -> Option<(String, Client)> {
    let mut config: Config = url.parse().unwrap();
    config.application_name = "writer".into();
    config.request_timeout = Some(Duration::from_secs(5));
    let client = connect(&config).ok()?;
    let timeline =
        "select case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end";
    let rows = client.query_text(timeline, &[]).ok()?;
    Some((rows[0].try_get::<Option<String>>(0).ok()??, client))
}

/// The statement that writes a version.
pub fn statement(item: Item, version: i64) -> String {
    let id = item.id;
    match item.place {
        Place::Name | Place::Listed => format!("update products set name = 'v{version}' where id = {id}"),
        Place::Feature => format!("update features set value = 'v{version}' where product_id = {id}"),
        Place::Quantity => format!(
            "update skus set quantity = {version} where style_id in (select id from styles where product_id = {id})"
        ),
    }
}

fn path(item: Item) -> String {
    match item.place {
        Place::Quantity => format!("/products/{}/styles", item.id),
        Place::Listed => "/products?count=30".to_string(),
        _ => format!("/products/{}", item.id),
    }
}

/// The version that an answer shows; 0 is the one from before the test.
fn version_of(item: Item, json: &serde_json::Value) -> Option<i64> {
    let text = match item.place {
        Place::Name => &json["name"],
        Place::Listed => &json.as_array()?.iter().find(|product| product["id"] == item.id)?["name"],
        Place::Feature => &json["features"][0]["value"],
        Place::Quantity => {
            let skus = json["results"][0]["skus"].as_object()?;
            return skus.values().next()?["quantity"].as_i64();
        }
    };
    let text = text.as_str()?;
    Some(text.strip_prefix('v').and_then(|v| v.parse().ok()).unwrap_or(0))
}

/// Clients that shop, and stay with a server each.
const SHOPPERS: usize = 4;

/// Has everybody shop and write while `disturb` does its worst.
pub fn run(stage: &Stage, disturb: impl FnOnce()) {
    let seed = seed();
    std::thread::scope(|scope| {
        for client in 0..SHOPPERS {
            scope.spawn(move || shop(stage, client, seed + client as u64));
        }
        scope.spawn(move || write_at_the_database(stage, seed + 100));
        scope.spawn(move || write_through_the_server(stage, SHOPPERS, seed + 200));
        // What ends this early ends the others too.
        let over = Over(stage);
        disturb();
        drop(over);
    });
}

struct Over<'a>(&'a Stage);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// A client that shops until the stage is over.
fn shop(stage: &Stage, client: usize, seed: u64) {
    let mut dice = Dice(seed);
    let mut connections: Vec<Option<Connection>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut reads = Vec::new();
    while !stage.is_over() {
        let place = dice.below(12);
        let pick = |dice: &mut Dice, range: std::ops::RangeInclusive<i64>| {
            range.start() + dice.below((range.end() - range.start() + 1) as u64) as i64
        };
        let item = match place {
            0..=3 => Item { place: Place::Name, id: pick(&mut dice, NAMES) },
            4 | 5 => Item { place: Place::Name, id: pick(&mut dice, SERVED) },
            6 | 7 => Item { place: Place::Feature, id: pick(&mut dice, FEATURES) },
            8 => Item { place: Place::Listed, id: pick(&mut dice, NAMES) },
            9 => Item { place: Place::Listed, id: pick(&mut dice, SERVED) },
            10 => Item { place: Place::Quantity, id: pick(&mut dice, QUANTITIES) },
            _ => Item { place: Place::Name, id: LATE },
        };
        let at = dice.below(CONNECTIONS as u64) as usize;
        if let Some(read) = ask(stage, &mut connections[at], client, item) {
            reads.push(read);
            stage.reads.fetch_add(1, Ordering::Relaxed);
        }
    }
    stage.history.lock().reads.extend(reads);
}

/// One request; None when there was no answer that shows a version.
fn ask(stage: &Stage, connection: &mut Option<Connection>, client: usize, item: Item) -> Option<Read> {
    ask_at(stage, client, connection, item, &[])
}

/// The same, with header fields.
fn ask_at(
    stage: &Stage,
    client: usize,
    connection: &mut Option<Connection>,
    item: Item,
    fields: &[(&str, &str)],
) -> Option<Read> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::try_open(stage.address_of(client)).ok()?),
    };
    let was_outage = stage.outage.load(Ordering::SeqCst);
    let sent_ns = now_ns();
    let name = client.to_string();
    // Whoever has no token stays with one box.
    let named = [("X-Client", name.as_str())];
    let fields = if fields.is_empty() { &named[..] } else { fields };
    let Ok(reply) = open.try_request("GET", &path(item), fields) else {
        *connection = None;
        stage.broken.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    let received_ns = now_ns();
    let cache_status = reply.header("cache-status").unwrap_or_default();
    let stale_if_error = ["stale-if-error", "no-primary"].iter().any(|detail| cache_status.contains(detail));
    let calm = !was_outage && !stage.outage.load(Ordering::SeqCst);
    if reply.status == 503 || stale_if_error {
        if reply.status == 503 && stage.is_shared {
            println!("  refused: {cache_status} {}", reply.text());
        }
        if calm {
            stage.refused_in_peace.fetch_add(1, Ordering::Relaxed);
            eprintln!("{} without an outage: {cache_status} {}", reply.status, reply.text());
        }
        if reply.status == 503 {
            stage.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    }
    assert_eq!(reply.status, 200, "{}", reply.text());
    let version = version_of(item, &reply.json())?;
    Some(Read { client, item, version, sent_ns, received_ns, stale_if_error })
}

/// Writes straight to the database, 200 versions a second, two transactions at a time: the one that began first commits last.
fn write_at_the_database(stage: &Stage, seed: u64) {
    let mut dice = Dice(seed);
    let mut clients = (stage.database(), stage.database());
    let mut next = Instant::now();
    while !stage.is_over() {
        let early = Item { place: Place::Name, id: NAMES.start() + dice.below(20) as i64 };
        let late = Item { place: Place::Quantity, id: QUANTITIES.start() + dice.below(10) as i64 };
        let begun_ns = now_ns();
        let (first, second) = (stage.next_version(), stage.next_version());
        let opened = clients.0.transaction().and_then(|transaction| {
            clients.0.batch_execute(&statement(early, first))?;
            Ok(transaction)
        });
        let overtaking = clients.1.batch_execute(&statement(late, second));
        let second_ns = overtaking.is_ok().then(now_ns);
        let committed = opened.and_then(|transaction| transaction.commit());
        let first_ns = committed.is_ok().then(now_ns);
        let write = |item, version, done_ns| Write { item, version, by: Writer::Database, begun_ns, done_ns };
        stage.note([write(early, first, first_ns), write(late, second, second_ns)]);
        if first_ns.is_none() || second_ns.is_none() {
            clients = (stage.database(), stage.database());
        }
        next += Duration::from_millis(10);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = next.max(Instant::now() - Duration::from_millis(100));
    }
}

/// Writes through the servers in turn, and reads its own writes over other connections, of all of them.
fn write_through_the_server(stage: &Stage, client: usize, seed: u64) {
    let mut dice = Dice(seed);
    let boxes = stage.addresses.len();
    let (mut writers, mut readers): (Vec<_>, Vec<_>) =
        ((0..boxes).map(|_| None).collect(), (0..3 * boxes).map(|_| None).collect());
    let (mut reads, mut token) = (Vec::new(), String::new());
    while !stage.is_over() {
        let item = Item { place: Place::Name, id: SERVED.start() + dice.below(10) as i64 };
        let version = stage.next_version();
        let at = dice.below(boxes as u64) as usize;
        let begun_ns = now_ns();
        let written = patch(&stage.addresses[at], &mut writers[at], item.id, version);
        let done_ns = written.is_some().then(now_ns);
        let by = if stage.is_shared { Writer::Client(client) } else { Writer::Server };
        stage.note([Write { item, version, by, begun_ns, done_ns }]);
        token = written.unwrap_or(token);
        for (n, reader) in readers.iter_mut().enumerate() {
            for item in [item, Item { place: Place::Listed, ..item }] {
                let fields = [("Catwalk-Seen", token.as_str())];
                // Whom a client asks follows from its number.
                let asked = ask_at(stage, n % boxes, reader, item, &fields);
                reads.extend(asked.map(|read| Read { client, ..read }));
            }
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    stage.reads.fetch_add(reads.len(), Ordering::Relaxed);
    stage.history.lock().reads.extend(reads);
}

/// What the client is to tell other boxes, once the server has said that the change is made.
fn patch(address: &str, connection: &mut Option<Connection>, id: i64, version: i64) -> Option<String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::try_open(address).ok()?,
    };
    let body = format!(r#"{{"name": "v{version}"}}"#);
    let head = format!(
        "PATCH /admin/products/{id} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let reply = open.try_send((head + &body).as_bytes()).and_then(|()| open.try_receive(false)).ok()?;
    *connection = Some(open);
    assert!(matches!(reply.status, 200 | 502..=504), "{}", reply.text());
    (reply.status == 200).then(|| reply.header("catwalk-seen").unwrap_or_default().to_string())
}
