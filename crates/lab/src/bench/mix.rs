//! What shoppers ask for, and how often.
//! Runs in: offline.

use anyhow::{bail, ensure, Context, Result};
use rand::distr::weighted::WeightedIndex;
use rand::prelude::*;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use super::catalogue::{Catalogue, Ids};

/// A prime: multiples of it, up to any number of products but its own, are all different.
const SCATTER: u64 = 1_000_000_007;

/// With more than this all ask for one product.
const EXPONENT_MAX: f64 = 10.0;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Product,
    Styles,
    Related,
    /// Of the newest tenth of the catalogue, each as often as the other.
    NewestTenth,
    List,
    Reviews,
    Meta,
    Questions,
    Vote,
    Cart,
    Interaction,
}

/// Each with its name, and how many of a thousand requests are of that kind.
pub const KINDS: [(Kind, &str, u32); 11] = [
    (Kind::Product, "product", 300),
    (Kind::Styles, "styles", 180),
    (Kind::Related, "related", 90),
    (Kind::NewestTenth, "newest", 100),
    (Kind::List, "list", 60),
    (Kind::Reviews, "reviews", 110),
    (Kind::Meta, "meta", 70),
    (Kind::Questions, "questions", 75),
    (Kind::Vote, "vote", 5),
    (Kind::Cart, "cart", 5),
    (Kind::Interaction, "interaction", 5),
];

impl Kind {
    /// A vote is for a review that a catalogue may happen not to have.
    pub fn may_be_missing(self) -> bool {
        self == Kind::Vote
    }

    fn is_write(self) -> bool {
        matches!(self, Kind::Vote | Kind::Cart | Kind::Interaction)
    }
}

/// One request; with a body it is JSON.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Place in [`KINDS`].
    pub kind: usize,
    pub method: &'static str,
    pub path: String,
    pub body: String,
}

/// Which kinds are asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// By name; none: all.
    pub kinds: Vec<String>,
    pub no_writes: bool,
}

impl Wanted {
    fn has(&self, kind: Kind, name: &str) -> bool {
        let is_named = self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == name);
        is_named && !(self.no_writes && kind.is_write())
    }
}

/// The mixture of a shop.
pub struct Mix {
    ids: Ids,
    /// The body of what puts something into a cart.
    order: String,
    kinds: WeightedIndex<u32>,
    popular: Zipf<f64>,
}

impl Mix {
    /// # Errors
    /// An exponent or a kind that is none; that nothing is left to be asked for.
    pub fn new(catalogue: &Catalogue, exponent: f64, wanted: &Wanted) -> Result<Mix> {
        let Catalogue { ids, sku } = catalogue;
        ensure!(ids.count() > 0, "there are no products: `catwalk seed` makes some");
        let unknown = wanted.kinds.iter().find(|name| KINDS.iter().all(|(_, known, _)| known != name));
        if let Some(name) = unknown {
            bail!("--kinds: there is no {name}; there are {}", KINDS.map(|(_, name, _)| name).join(", "));
        }
        ensure!((0.0..=EXPONENT_MAX).contains(&exponent), "--zipf: from 0 to {EXPONENT_MAX}");
        let is_asked = |kind, name| wanted.has(kind, name) && (kind != Kind::Cart || sku.is_some());
        let weights = KINDS.map(|(kind, name, weight)| if is_asked(kind, name) { weight } else { 0 });
        let kinds =
            WeightedIndex::new(weights).context("--kinds, --no-writes: nothing is left to be asked for")?;
        let popular = Zipf::new(ids.count() as f64, exponent).context("--zipf")?;
        let order = format!("{{\"sku_id\":{}}}", sku.unwrap_or_default());
        Ok(Mix { ids: ids.clone(), order, kinds, popular })
    }

    /// The next request.
    pub fn ask(&self, dice: &mut SmallRng) -> Ask {
        let kind = self.kinds.sample(dice);
        let id = self.product(dice);
        let get = |path: String| Ask { kind, method: "GET", path, body: String::new() };
        match KINDS[kind].0 {
            Kind::Product => get(format!("/products/{id}")),
            Kind::Styles => get(format!("/products/{id}/styles")),
            Kind::Related => get(format!("/products/{id}/related")),
            Kind::NewestTenth => get(format!("/products/{}", self.newest(dice))),
            Kind::List => get(format!(
                "/products?page={}&count=5",
                dice.random_range(1..=(self.ids.count() / 5).clamp(1, 100))
            )),
            Kind::Reviews => get(format!(
                "/reviews?product_id={id}&sort={}",
                ["relevant", "newest", "helpful"][dice.random_range(0..3)]
            )),
            Kind::Meta => get(format!("/reviews/meta?product_id={id}")),
            Kind::Questions => get(format!("/qa/questions?product_id={id}")),
            Kind::Vote => {
                Ask { kind, method: "PUT", path: format!("/reviews/{id}/helpful"), body: String::new() }
            }
            Kind::Cart => Ask { kind, method: "POST", path: "/cart".into(), body: self.order.clone() },
            Kind::Interaction => {
                let body = "{\"element\":\"button\",\"widget\":\"bench\",\"time\":\"now\"}";
                Ask { kind, method: "POST", path: "/interactions".into(), body: body.into() }
            }
        }
    }

    /// A popular one more often. Popularity has nothing to do with age: ranks are scattered over the ids.
    fn product(&self, dice: &mut SmallRng) -> u64 {
        let rank = self.popular.sample(dice) as u64 - 1;
        self.ids.nth((u128::from(rank) * u128::from(SCATTER) % u128::from(self.ids.count())) as u64)
    }

    fn newest(&self, dice: &mut SmallRng) -> u64 {
        let tenth = (self.ids.count() / 10).max(1);
        self.ids.nth(self.ids.count() - 1 - dice.random_range(0..tenth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(last: u64) -> Catalogue {
        Catalogue { ids: Ids::UpTo(last), sku: Some(1) }
    }

    #[test]
    fn the_same_seed_asks_for_the_same_and_the_weights_hold() {
        let mix = Mix::new(&up_to(1_000), 0.99, &Wanted::default()).unwrap();
        let asks = |seed| {
            let mut dice = SmallRng::seed_from_u64(seed);
            (0..20_000).map(|_| mix.ask(&mut dice)).collect::<Vec<_>>()
        };
        let (one, again) = (asks(1), asks(1));
        assert!(one.iter().zip(&again).all(|(one, again)| one.path == again.path));
        for (n, (_, name, weight)) in KINDS.iter().enumerate() {
            let share = one.iter().filter(|ask| ask.kind == n).count() as f64 / 20.0;
            assert!((share - f64::from(*weight)).abs() < 15.0, "{name}: {share} of a thousand");
        }
        assert_eq!(KINDS.iter().map(|(_, _, weight)| weight).sum::<u32>(), 1_000);
    }

    #[test]
    fn ids_exist_and_some_are_popular() {
        let mix = Mix::new(&up_to(1_000), 0.99, &Wanted { no_writes: true, ..Wanted::default() }).unwrap();
        let mut dice = SmallRng::seed_from_u64(7);
        let mut seen = vec![0u32; 1_001];
        for _ in 0..50_000 {
            let id = mix.product(&mut dice) as usize;
            assert!((1..=1_000).contains(&id));
            seen[id] += 1;
            let newest = mix.newest(&mut dice);
            assert!((901..=1_000).contains(&newest), "{newest}");
            assert!(mix.ask(&mut dice).method == "GET");
        }
        let mut ids: Vec<u64> = (0..1_000u64).map(|rank| rank * SCATTER % 1_000).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..1_000), "each is somebody's");
        seen.sort_unstable_by(|a, b| b.cmp(a));
        assert!(seen[0] > 20 * seen[500].max(1), "{} and {}", seen[0], seen[500]);
    }

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        let wanted = |kinds: &[&str]| Wanted {
            kinds: kinds.iter().map(|k| k.to_string()).collect(),
            no_writes: false,
        };
        let mix = Mix::new(&up_to(100), 0.99, &wanted(&["styles", "cart"])).unwrap();
        let mut dice = SmallRng::seed_from_u64(3);
        let mut names: Vec<&str> = (0..5_000).map(|_| KINDS[mix.ask(&mut dice).kind].1).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["cart", "styles"]);
        let why = Mix::new(&up_to(100), 0.99, &wanted(&["product", "shoes"])).err().unwrap().to_string();
        assert!(why.contains("no shoes") && why.contains("questions"), "{why}");
        let nothing = Wanted { kinds: vec!["vote".into()], no_writes: true };
        let why = format!("{:#}", Mix::new(&up_to(100), 0.99, &nothing).err().unwrap());
        assert!(why.contains("nothing is left"), "{why}");
        for exponent in [f64::INFINITY, f64::NAN, -1.0] {
            assert!(Mix::new(&up_to(100), exponent, &Wanted::default()).is_err(), "{exponent}");
        }
    }

    #[test]
    fn of_a_catalogue_with_gaps_only_what_is_there_is_asked_for() {
        let catalogue = Catalogue { ids: Ids::These(vec![7, 40, 1_000_000]), sku: None };
        let mix = Mix::new(&catalogue, 0.99, &Wanted::default()).unwrap();
        let mut dice = SmallRng::seed_from_u64(5);
        for _ in 0..5_000 {
            assert!([7, 40, 1_000_000].contains(&mix.product(&mut dice)));
            assert_eq!(mix.newest(&mut dice), 1_000_000);
            assert_ne!(mix.ask(&mut dice).path, "/cart", "nothing can be put into it");
        }
    }
}
