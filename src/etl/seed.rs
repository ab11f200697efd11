//! `catwalk seed`: a made-up catalogue, the same rows for the same number and seed on any machine, never held in memory.
//! Runs in: offline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use may_postgres::Client;

use crate::etl::dirt::DirtyRows;
use crate::etl::load::{build, has_rows};
use crate::etl::opinions;
use crate::etl::progress::{Audience, Meter, Tally, Unit};
use crate::etl::rows::{CsvRows, Rows, Value};
use crate::etl::staging::{Guard, Origin, Staging};
use crate::etl::swap::swap;
use crate::etl::table::TABLES;
use crate::etl::tasks::{self, Task};
use crate::etl::Effort;

use Value::{Bigint, Boolean, Cents, Null, Text};

const ADJECTIVES: &[&str] = &[
    "Amber", "Brisk", "Candid", "Dapper", "Easy", "Fleet", "Gentle", "Hazel", "Indigo", "Jolly", "Keen",
    "Lively", "Mellow", "Nimble", "Olive", "Plain", "Quiet", "Rustic", "Sunny", "Tidal", "Urban", "Vivid",
    "Windy", "Young",
];
const NOUNS: &[&str] = &[
    "Anorak",
    "Blazer",
    "Cardigan",
    "Derby",
    "Espadrille",
    "Fedora",
    "Gilet",
    "Hoodie",
    "Jogger",
    "Kimono",
    "Loafer",
    "Mitten",
    "Overall",
    "Parka",
    "Raincoat",
    "Sandal",
    "Trainer",
    "Ulster",
    "Vest",
    "Windbreaker",
];
const CATEGORIES: &[&str] = &["Jackets", "Accessories", "Pants", "Kicks", "Dresses", "Hats", "Knitwear"];
pub(super) const PHRASES: &[&str] = &[
    "Cut close and finished by hand.",
    "It holds its shape through every season.",
    "Made for mornings that start early and evenings that end late.",
    "The seams are doubled where it counts.",
    "Light enough to forget, warm enough to remember.",
    "Wear it in; it only gets better.",
    "Pockets, for once, that fit what you carry.",
    "Washes cold, dries flat, needs no iron.",
];
const FEATURES: &[(&str, &[&str])] = &[
    ("Fabric", &["Canvas", "Merino", "Denim", "Linen", "Recycled nylon"]),
    ("Buttons", &["Brass", "Horn", "Corozo"]),
    ("Fit", &["Slim", "Regular", "Loose"]),
    ("Sole", &["Rubber", "Cork", "Crepe"]),
    ("Lining", &["Silk", "Cotton", "Fleece"]),
];
const COLOURS: &[&str] = &[
    "Forest Green",
    "Desert Brown",
    "Ocean Blue",
    "Slate Grey",
    "Brick Red",
    "Chalk White",
    "Coal Black",
    "Mustard",
];
const SIZES: &[&str] = &["XS", "S", "M", "L", "XL", "XXL"];

/// The numbers of one product's part: SplitMix64 (Steele, Lea, Flood 2014), seeded by seed, part and product.
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, part: u64, id: u64) -> Dice {
        let mut dice =
            Dice(seed ^ part.wrapping_mul(0xD605_BBB5_8C8A_BC5B) ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What is generated: `products` of them, ids from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) products: u64,
    pub(super) seed: u64,
}

/// Which tables are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// All of them.
    Full,
    /// Products, features, styles, and the images of the image service.
    Catalog,
}

impl Profile {
    fn parts(self) -> Vec<&'static Part> {
        let all = PARTS.iter().chain(opinions::PARTS);
        all.filter(|part| self == Profile::Full || part.is_catalog).collect()
    }
}

/// What to make, and how.
#[derive(Debug)]
pub struct Options {
    pub products: u64,
    pub seed: u64,
    pub profile: Profile,
    pub effort: Effort,
    pub audience: Audience,
}

/// A table, its columns, and who writes its rows.
pub(super) struct Part {
    pub(super) table: &'static str,
    pub(super) columns: &'static [&'static str],
    /// About so many rows a product.
    pub(super) rows_each: f64,
    pub(super) is_catalog: bool,
    pub(super) write: fn(Plan, &mut dyn Rows) -> Result<()>,
}

/// Counts rows on their way.
struct Counted<'r> {
    rows: &'r mut dyn Rows,
    tally: Tally<'r>,
}

/// How long the locks of the swap are tried for: nobody reads a catalogue that is empty.
const PATIENCE: Duration = Duration::from_secs(60);

impl Rows for Counted<'_> {
    fn row(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.rows.row(values)?;
        self.tally.row();
        Ok(())
    }
}

impl Options {
    fn plan(&self) -> Plan {
        Plan { products: self.products, seed: self.seed }
    }

    fn meter(&self) -> Meter {
        let rows: f64 = self.profile.parts().iter().map(|part| part.rows_each * self.products as f64).sum();
        Meter::new(self.audience, Unit::Rows, rows as u64)
    }
}

/// Fills an empty catalogue.
///
/// # Errors
/// A catalogue that holds something already; what the database refuses. Nothing is stored then.
pub fn run(url: &str, options: &Options) -> Result<()> {
    let meter = options.meter();
    meter.watch(|| fill(url, options, &meter))
}

fn fill(url: &str, options: &Options, meter: &Meter) -> Result<()> {
    let connect = || crate::db::connect(url);
    let guarded = connect()?;
    let _guard = Guard::take(&guarded)?;
    let client = connect()?;
    for table in ["products", opinions::SHOE_IMAGES] {
        if has_rows(&client, table)? {
            bail!("the catalogue holds {table} already; seed fills an empty one");
        }
    }
    let (plan, parts) = (options.plan(), options.profile.parts());
    let tables: Vec<&'static str> =
        TABLES.iter().map(|table| table.name).chain([opinions::SHOE_IMAGES]).collect();
    let origin = Origin { fingerprint: format!("{plan:?} {:?}", options.profile), start_over: false };
    let staging = Staging::open(&client, tables, &origin, options.effort.index_memory_bytes)?;
    meter.enter_rows("generating", staging.filled_from_outside().len());
    let mut tasks = Vec::new();
    for &table in &staging.filled_from_outside() {
        if staging.report_of(&client, table)?.is_some() {
            continue;
        }
        let part = parts.iter().find(|part| part.table == table);
        let staging = &staging;
        tasks.push(Task::new(table, move |client: &Client| {
            let columns = part.map_or(&["id"][..], |part| part.columns);
            staging.fill(client, table, columns, |rows| {
                part.map_or(Ok(()), |part| (part.write)(plan, &mut Counted { rows, tally: meter.tally() }))?;
                Ok(String::new())
            })?;
            meter.step();
            Ok(())
        }));
    }
    tasks::run(tasks, options.effort.jobs, connect)?;
    build(&staging, options.effort.jobs, meter, connect)?;
    meter.enter("swapping", 0);
    swap(&client, &staging, PATIENCE)?;
    Ok(())
}

/// Writes an archive's files; `dirt`: so many lines of a thousand are damaged in the ways of old archives.
///
/// # Errors
/// A file that can't be written.
pub fn write_csv(options: &Options, dir: &Path, dirt: u64) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let (plan, meter) = (options.plan(), options.meter());
    let parts: Vec<_> = options.profile.parts();
    meter.enter_rows("writing", parts.len());
    let tasks = parts.into_iter().filter_map(|part| {
        let table = TABLES.iter().find(|table| table.name == part.table)?;
        let (path, meter): (PathBuf, _) = (dir.join(format!("{}.csv", table.file)), &meter);
        let seed = options.seed;
        Some(Task::new(table.file, move |()| {
            let header = table.column_names();
            let mut file = CsvRows::create(&path, &header)?;
            let mut dirty = DirtyRows::new(&mut file, table, seed, dirt);
            (part.write)(plan, &mut Counted { rows: &mut dirty, tally: meter.tally() })?;
            file.finish().with_context(|| format!("writing {}", path.display()))?;
            meter.step();
            Ok(())
        }))
    });
    let tasks: Vec<Task<'_, ()>> = tasks.collect();
    meter.watch(|| tasks::run(tasks, options.effort.jobs, || Ok(())))
}

pub(super) const fn part(
    table: &'static str,
    columns: &'static [&'static str],
    rows_each: f64,
    write: fn(Plan, &mut dyn Rows) -> Result<()>,
) -> Part {
    Part { table, columns, rows_each, is_catalog: false, write }
}

impl Part {
    pub(super) const fn catalog(self) -> Part {
        Part { is_catalog: true, ..self }
    }
}

const PARTS: &[Part] = &[
    part(
        "products",
        &["id", "name", "slogan", "description", "category", "default_price"],
        1.0,
        write_products,
    )
    .catalog(),
    part("features", &["id", "product_id", "feature", "value"], 2.0, write_features).catalog(),
    part(
        "styles",
        &["id", "product_id", "name", "sale_price", "original_price", "default_style"],
        2.0,
        write_styles,
    )
    .catalog(),
    part("photos", &["id", "style_id", "url", "thumbnail_url"], 5.9, write_photos),
    part("skus", &["id", "style_id", "size", "quantity"], 10.8, write_skus),
    part("related", &["id", "current_product_id", "related_product_id"], 4.5, write_related),
];

impl Plan {
    /// In whole units.
    fn price(self, id: u64) -> u64 {
        Dice::new(self.seed, 1, id).below(380) + 20
    }

    /// About two a product.
    fn styles_of(self, id: u64) -> u64 {
        1 + Dice::new(self.seed, 2, id).below(3)
    }

    /// Each product with the ids of its styles.
    fn styled(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        let mut next = 1;
        (1..=self.products).map(move |id| {
            let styles = next..next + self.styles_of(id);
            next = styles.end;
            (id, styles)
        })
    }
}

fn write_products(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let (mut name, mut description) = (String::new(), String::new());
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 0, id);
        name.clear();
        name.extend([dice.pick(ADJECTIVES), " ", dice.pick(NOUNS)]);
        description.clear();
        for n in 0..3 + dice.below(4) {
            description.extend([if n > 0 { " " } else { "" }, dice.pick(PHRASES)]);
        }
        let (slogan, category) = (dice.pick(PHRASES), dice.pick(CATEGORIES));
        let price = Cents(plan.price(id) * 100);
        rows.row(&[Bigint(id as i64), Text(&name), Text(slogan), Text(&description), Text(category), price])?;
    }
    Ok(())
}

fn write_features(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let mut next = 1;
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 3, id);
        for n in 0..dice.below(5) {
            let (feature, values) = FEATURES[((id + n) % FEATURES.len() as u64) as usize];
            let value = dice.pick(values);
            let value = if dice.one_in(10) { Null } else { Text(value) };
            rows.row(&[Bigint(next), Bigint(id as i64), Text(feature), value])?;
            next += 1;
        }
    }
    Ok(())
}

fn write_styles(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    for (id, styles) in plan.styled() {
        let mut dice = Dice::new(plan.seed, 4, id);
        let default = styles.start + dice.below(styles.end - styles.start);
        for style in styles {
            let name = format!("{} & {}", dice.pick(COLOURS), dice.pick(COLOURS));
            let price = plan.price(id);
            let sale = if dice.one_in(4) { Cents(price * 70) } else { Null };
            let ids = (Bigint(style as i64), Bigint(id as i64));
            rows.row(&[ids.0, ids.1, Text(&name), sale, Cents(price * 100), Boolean(style == default)])?;
        }
    }
    Ok(())
}

/// Each style with the ids of what it has of one table; one in 50 has none, as in the archives.
fn of_styles(
    plan: Plan,
    part: u64,
    least: u64,
    below: u64,
) -> impl Iterator<Item = (u64, std::ops::Range<i64>, Dice)> {
    let mut next = 1;
    plan.styled().flat_map(|(_, styles)| styles).map(move |style| {
        let mut dice = Dice::new(plan.seed, part, style);
        let count = if dice.one_in(50) { 0 } else { least + dice.below(below) };
        let ids = next..next + count as i64;
        next = ids.end;
        (style, ids, dice)
    })
}

fn write_photos(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let (mut url, mut thumbnail) = (String::new(), String::new());
    for (style, ids, _) in of_styles(plan, 5, 1, 5) {
        for (n, id) in ids.enumerate() {
            picture(&mut url, style, n as u64 + 1, "1200");
            picture(&mut thumbnail, style, n as u64 + 1, "300");
            rows.row(&[Bigint(id), Bigint(style as i64), Text(&url), Text(&thumbnail)])?;
        }
    }
    Ok(())
}

/// Where the `n`-th picture of something is drawn.
pub(super) fn picture(url: &mut String, owner: u64, n: u64, width: &str) {
    let mut digits = itoa::Buffer::new();
    url.clear();
    url.extend(["/pictures/", digits.format(owner)]);
    url.extend(["-", digits.format(n), ".svg?w=", width]);
}

fn write_skus(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    for (style, ids, mut dice) in of_styles(plan, 6, 5, 2) {
        for (id, size) in ids.zip(SIZES) {
            rows.row(&[Bigint(id), Bigint(style as i64), Text(size), Bigint(dice.below(60) as i64)])?;
        }
    }
    Ok(())
}

fn write_related(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let mut next = 1;
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 7, id);
        for _ in 0..dice.below(10) {
            rows.row(&[Bigint(next), Bigint(id as i64), Bigint(1 + dice.below(plan.products) as i64)])?;
            next += 1;
        }
    }
    Ok(())
}
