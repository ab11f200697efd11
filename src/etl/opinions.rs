//! Made-up reviews, questions and answers: as many a product as in the real archives, from the same dice as the products; and
//! images for the image service.
//! Runs in: offline.

use anyhow::Result;

use crate::etl::rows::{Rows, Value};
use crate::etl::seed::{part, picture, Dice, Part, Plan, PHRASES};

use Value::{Bigint, Boolean, Null, Smallint, Text};

/// Tables in the order of their references.
pub(super) const PARTS: &[Part] = &[
    part(
        "reviews",
        &[
            "id",
            "product_id",
            "rating",
            "date",
            "summary",
            "body",
            "recommend",
            "reported",
            "reviewer_name",
            "reviewer_email",
            "response",
            "helpfulness",
        ],
        6.0,
        write_reviews,
    ),
    part("reviews_photos", &["id", "review_id", "url"], 3.0, write_review_photos),
    part("characteristics", &["id", "product_id", "name"], 4.0, write_characteristics),
    part("characteristic_reviews", &["id", "characteristic_id", "review_id", "value"], 24.0, write_ratings),
    part(
        "questions",
        &["id", "product_id", "body", "date_written", "asker_name", "asker_email", "reported", "helpful"],
        3.5,
        write_questions,
    ),
    part(
        "answers",
        &[
            "id",
            "question_id",
            "body",
            "date_written",
            "answerer_name",
            "answerer_email",
            "reported",
            "helpful",
        ],
        7.0,
        write_answers,
    ),
    part("answers_photos", &["id", "answer_id", "url"], 3.5, write_answer_photos),
    part(
        SHOE_IMAGES,
        &["id", "shoe_id", "img1", "img2", "img3", "img4", "img5", "img6", "img7"],
        1.0,
        write_shoe_images,
    )
    .catalog(),
];

/// The image service's table, which no archive has.
pub(super) const SHOE_IMAGES: &str = "shoe_images";
/// Images of a shoe.
const SHOE_IMAGES_EACH: usize = 7;

/// Parts of the dice: none of those of the products' tables.
mod die {
    pub const REVIEW_COUNT: u64 = 20;
    pub const REVIEW: u64 = 21;
    pub const REVIEW_PHOTO_COUNT: u64 = 22;
    pub const CHARACTERISTICS: u64 = 23;
    pub const RATING: u64 = 24;
    pub const QUESTION_COUNT: u64 = 25;
    pub const QUESTION: u64 = 26;
    pub const ANSWER_COUNT: u64 = 27;
    pub const ANSWER: u64 = 28;
    pub const ANSWER_PHOTO_COUNT: u64 = 29;
}

const CHARACTERISTICS: &[&str] = &["Fit", "Length", "Comfort", "Quality", "Size", "Width"];
/// Characteristics of a product: so many from a place in the list on.
const CHARACTERISTICS_EACH: u64 = 4;
const NAMES: &[&str] =
    &["ada", "bo", "cleo", "dan", "edda", "finn", "gil", "hana", "ivo", "jun", "kit", "lea"];
const SUMMARIES: &[&str] =
    &["Would buy again", "Just right", "Not for me", "Runs small", "Better than the picture", "It will do"];
const QUESTIONS: &[&str] = &[
    "Does it shrink in the wash?",
    "How does it fall at the shoulders?",
    "Is the colour as in the picture?",
    "Can it be worn in the rain?",
    "Which size for somebody between two?",
    "Where is it made?",
];
/// 2021-01-01 and a year, in ms.
const FIRST_DAY_MS: u64 = 1_609_459_200_000;
const YEAR_MS: u64 = 365 * 86_400_000;

impl Plan {
    /// Each product with the ids of what it has of one table, fewer than `below`.
    fn each(self, part: u64, below: u64) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        let mut next = 1;
        (1..=self.products).map(move |id| {
            let of_product = next..next + Dice::new(self.seed, part, id).below(below);
            next = of_product.end;
            (id, of_product)
        })
    }

    /// About six a product.
    fn reviews(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        self.each(die::REVIEW_COUNT, 13)
    }

    /// About three and a half a product.
    fn questions(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        self.each(die::QUESTION_COUNT, 8)
    }

    /// Each question with the ids of its answers, about two.
    fn answers(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        let mut next = 1;
        self.questions().flat_map(|(_, questions)| questions).map(move |question| {
            let answers = next..next + Dice::new(self.seed, die::ANSWER_COUNT, question).below(5);
            next = answers.end;
            (question, answers)
        })
    }
}

impl Dice {
    /// In epoch milliseconds.
    fn time(&mut self) -> Value<'static> {
        Value::Time((FIRST_DAY_MS + self.below(YEAR_MS)) as i64)
    }
}

/// Somebody's name and address, made anew in the same room.
#[derive(Default)]
struct Person {
    name: String,
    email: String,
}

impl Person {
    fn roll(&mut self, dice: &mut Dice) {
        self.name.clear();
        let name = dice.pick(NAMES);
        self.name.extend([name, itoa::Buffer::new().format(dice.below(1000))]);
        self.email.clear();
        self.email.extend([self.name.as_str(), "@example.com"]);
    }
}

fn write_reviews(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let (mut body, mut person) = (String::new(), Person::default());
    for (product, reviews) in plan.reviews() {
        for review in reviews {
            let mut dice = Dice::new(plan.seed, die::REVIEW, review);
            // More are content than not.
            let rating = 1 + dice.below(5).max(dice.below(5)) as i16;
            let (date, summary) = (dice.time(), dice.pick(SUMMARIES));
            body.clear();
            body.extend([dice.pick(PHRASES), " ", dice.pick(PHRASES)]);
            let (recommend, reported) = (!dice.one_in(4), dice.one_in(100));
            person.roll(&mut dice);
            let response = if dice.one_in(10) { Text("Thank you for writing.") } else { Null };
            rows.row(&[
                Bigint(review as i64),
                Bigint(product as i64),
                Smallint(rating),
                date,
                Text(summary),
                Text(&body),
                Boolean(recommend),
                Boolean(reported),
                Text(&person.name),
                Text(&person.email),
                response,
                Bigint(dice.below(30) as i64),
            ])?;
        }
    }
    Ok(())
}

/// Photos of each of `owners`, fewer than `below`.
fn write_photos(
    plan: Plan,
    rows: &mut dyn Rows,
    part: u64,
    owners: impl Iterator<Item = u64>,
    below: u64,
) -> Result<()> {
    let (mut next, mut url) = (1, String::new());
    for owner in owners {
        for n in 1..=Dice::new(plan.seed, part, owner).below(below) {
            picture(&mut url, owner, n, "300");
            rows.row(&[Bigint(next), Bigint(owner as i64), Text(&url)])?;
            next += 1;
        }
    }
    Ok(())
}

fn write_review_photos(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let reviews = plan.reviews().flat_map(|(_, reviews)| reviews);
    write_photos(plan, rows, die::REVIEW_PHOTO_COUNT, reviews, 2)
}

fn write_characteristics(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    for id in 1..=plan.products {
        let first = Dice::new(plan.seed, die::CHARACTERISTICS, id).below(CHARACTERISTICS.len() as u64);
        for n in 0..CHARACTERISTICS_EACH {
            let name = CHARACTERISTICS[((first + n) % CHARACTERISTICS.len() as u64) as usize];
            rows.row(&[characteristic(id, n), Bigint(id as i64), Text(name)])?;
        }
    }
    Ok(())
}

/// Id of a product's n-th characteristic.
fn characteristic(product: u64, n: u64) -> Value<'static> {
    Bigint(((product - 1) * CHARACTERISTICS_EACH + n + 1) as i64)
}

fn write_ratings(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let mut next = 1;
    for (product, reviews) in plan.reviews() {
        for review in reviews {
            let mut dice = Dice::new(plan.seed, die::RATING, review);
            for n in 0..CHARACTERISTICS_EACH {
                let value = Smallint(1 + dice.below(5) as i16);
                rows.row(&[Bigint(next), characteristic(product, n), Bigint(review as i64), value])?;
                next += 1;
            }
        }
    }
    Ok(())
}

fn write_questions(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let asked = plan.questions().flat_map(|(product, questions)| questions.map(move |id| (id, product)));
    write_texts(plan, rows, die::QUESTION, asked, QUESTIONS)
}

fn write_answers(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let given = plan.answers().flat_map(|(question, answers)| answers.map(move |id| (id, question)));
    write_texts(plan, rows, die::ANSWER, given, PHRASES)
}

/// What questions and answers have alike: id, whose it is, body, time, person, reported, helpful.
fn write_texts(
    plan: Plan,
    rows: &mut dyn Rows,
    part: u64,
    owned: impl Iterator<Item = (u64, u64)>,
    bodies: &[&str],
) -> Result<()> {
    let mut person = Person::default();
    for (id, owner) in owned {
        let mut dice = Dice::new(plan.seed, part, id);
        let (body, time) = (dice.pick(bodies), dice.time());
        person.roll(&mut dice);
        rows.row(&[
            Bigint(id as i64),
            Bigint(owner as i64),
            Text(body),
            time,
            Text(&person.name),
            Text(&person.email),
            Boolean(dice.one_in(100)),
            Bigint(dice.below(30) as i64),
        ])?;
    }
    Ok(())
}

fn write_answer_photos(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let answers = plan.answers().flat_map(|(_, answers)| answers);
    write_photos(plan, rows, die::ANSWER_PHOTO_COUNT, answers, 2)
}

fn write_shoe_images(plan: Plan, rows: &mut dyn Rows) -> Result<()> {
    let mut urls: [String; SHOE_IMAGES_EACH] = Default::default();
    for id in 1..=plan.products {
        for (n, url) in urls.iter_mut().enumerate() {
            picture(url, id, n as u64 + 1, "600");
        }
        let [a, b, c, d, e, f, g] = &urls;
        let [a, b, c, d, e, f, g] = [a, b, c, d, e, f, g].map(|url| Text(url));
        rows.row(&[Bigint(id as i64), Bigint(id as i64), a, b, c, d, e, f, g])?;
    }
    Ok(())
}
