//! `catwalk seed`: a made-up catalogue, the same bytes for the same number and seed, in one transaction.
//! Runs in: offline.

use anyhow::{bail, Result};
use indicatif::{ProgressBar, ProgressStyle};
use may_postgres::Client;

use crate::etl::copy::{advance_sequence, Rows};
use crate::etl::load::{finish, has_products};
use crate::etl::opinions;
use crate::etl::table::TABLES;

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
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) products: u64,
    pub(super) seed: u64,
}

/// Fills an empty catalogue.
///
/// # Errors
/// A catalogue that holds something already; what the database refuses. Nothing is stored then.
pub fn run(client: &Client, products: u64, seed: u64) -> Result<()> {
    if has_products(client)? {
        bail!("the catalogue holds products already; seed fills an empty one");
    }
    let plan = Plan { products, seed };
    let style = ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} {eta}")?;
    let bar = ProgressBar::new(products * parts().count() as u64).with_style(style);
    let transaction = client.transaction()?;
    for (table, columns, write) in parts() {
        bar.set_message(*table);
        let mut rows = Rows::start(client, table, columns)?;
        write(plan, &mut rows, &bar)?;
        rows.finish()?;
    }
    for table in TABLES.iter().map(|table| table.name).chain([opinions::SHOE_IMAGES]) {
        advance_sequence(client, table)?;
    }
    transaction.commit()?;
    bar.set_message("statistics");
    finish(client)?;
    bar.finish_and_clear();
    Ok(())
}

pub(super) type Write = fn(Plan, &mut Rows, &ProgressBar) -> Result<(), may_postgres::Error>;

/// Tables in the order of their references.
fn parts() -> impl Iterator<Item = &'static Part> {
    PARTS.iter().chain(opinions::PARTS)
}

/// A table, its columns, and who writes its rows.
pub(super) type Part = (&'static str, &'static [&'static str], Write);

const PARTS: &[Part] = &[
    ("products", &["id", "name", "slogan", "description", "category", "default_price"], write_products),
    ("features", &["id", "product_id", "feature", "value"], write_features),
    ("styles", &["id", "product_id", "name", "sale_price", "original_price", "default_style"], write_styles),
    ("photos", &["id", "style_id", "url", "thumbnail_url"], write_photos),
    ("skus", &["id", "style_id", "size", "quantity"], write_skus),
    ("related", &["id", "current_product_id", "related_product_id"], write_related),
];

impl Plan {
    fn price(self, id: u64) -> u64 {
        Dice::new(self.seed, 1, id).below(380) + 20
    }

    fn styles_of(self, id: u64) -> u64 {
        1 + Dice::new(self.seed, 2, id).below(5)
    }

    /// Each product with the id of its first style.
    fn styled(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        let mut next = 1;
        (1..=self.products).map(move |id| {
            let styles = next..next + self.styles_of(id);
            next = styles.end;
            (id, styles)
        })
    }
}

fn write_products(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 0, id);
        let name = format!("{} {}", dice.pick(ADJECTIVES), dice.pick(NOUNS));
        let description: Vec<&str> = (0..3 + dice.below(4)).map(|_| dice.pick(PHRASES)).collect();
        rows.number(id as i64);
        rows.value(Some(&name));
        rows.value(Some(dice.pick(PHRASES)));
        rows.value(Some(&description.join(" ")));
        rows.value(Some(dice.pick(CATEGORIES)));
        rows.value(Some(&format!("{}.00", plan.price(id))));
        rows.end()?;
        bar.inc(1);
    }
    Ok(())
}

fn write_features(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    let mut next = 1;
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 3, id);
        for n in 0..dice.below(4) {
            let (feature, values) = FEATURES[((id + n) % FEATURES.len() as u64) as usize];
            let value = dice.pick(values);
            rows.number(next);
            rows.number(id as i64);
            rows.value(Some(feature));
            rows.value(if dice.one_in(10) { None } else { Some(value) });
            rows.end()?;
            next += 1;
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_styles(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    for (id, styles) in plan.styled() {
        let mut dice = Dice::new(plan.seed, 4, id);
        let default = styles.start + dice.below(styles.end - styles.start);
        for style in styles {
            let name = format!("{} & {}", dice.pick(COLOURS), dice.pick(COLOURS));
            let price = plan.price(id);
            let sale = format!("{}.00", price * 7 / 10);
            rows.number(style as i64);
            rows.number(id as i64);
            rows.value(Some(&name));
            rows.value(if dice.one_in(4) { Some(&sale) } else { None });
            rows.value(Some(&format!("{price}.00")));
            rows.value(Some(if style == default { "t" } else { "f" }));
            rows.end()?;
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_photos(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    let mut next = 1;
    for (_, styles) in plan.styled() {
        for style in styles {
            let mut dice = Dice::new(plan.seed, 5, style);
            // One in 50 has none, as in the archives.
            let photos = if dice.one_in(50) { 0 } else { 3 + dice.below(4) };
            for n in 1..=photos {
                rows.number(next);
                rows.number(style as i64);
                rows.value(Some(&format!("/pictures/{style}-{n}.svg?w=1200")));
                rows.value(Some(&format!("/pictures/{style}-{n}.svg?w=300")));
                rows.end()?;
                next += 1;
            }
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_skus(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    let mut next = 1;
    for (_, styles) in plan.styled() {
        for style in styles {
            let mut dice = Dice::new(plan.seed, 6, style);
            let sizes = if dice.one_in(50) { 0 } else { 3 + dice.below(4) as usize };
            for size in &SIZES[..sizes] {
                rows.number(next);
                rows.number(style as i64);
                rows.value(Some(size));
                rows.number(dice.below(60) as i64);
                rows.end()?;
                next += 1;
            }
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_related(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), may_postgres::Error> {
    let mut next = 1;
    for id in 1..=plan.products {
        let mut dice = Dice::new(plan.seed, 7, id);
        for _ in 0..dice.below(7) {
            rows.number(next);
            rows.number(id as i64);
            rows.number(1 + dice.below(plan.products) as i64);
            rows.end()?;
            next += 1;
        }
        bar.inc(1);
    }
    Ok(())
}
