//! Made-up reviews, questions and answers: as many a product as in the real archives, from the same dice as the products; and
//! images for the image service.
//! Runs in: offline.

use indicatif::ProgressBar;
use may_postgres::Error;

use crate::etl::copy::Rows;
use crate::etl::seed::{Dice, Part, Plan, PHRASES};

/// Tables in the order of their references.
pub(super) const PARTS: &[Part] = &[
    (
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
        write_reviews,
    ),
    ("reviews_photos", &["id", "review_id", "url"], write_review_photos),
    ("characteristics", &["id", "product_id", "name"], write_characteristics),
    ("characteristic_reviews", &["id", "characteristic_id", "review_id", "value"], write_ratings),
    (
        "questions",
        &["id", "product_id", "body", "date_written", "asker_name", "asker_email", "reported", "helpful"],
        write_questions,
    ),
    (
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
        write_answers,
    ),
    ("answers_photos", &["id", "answer_id", "url"], write_answer_photos),
    (
        SHOE_IMAGES,
        &["id", "shoe_id", "img1", "img2", "img3", "img4", "img5", "img6", "img7"],
        write_shoe_images,
    ),
];

/// The image service's table, which no archive has.
pub(super) const SHOE_IMAGES: &str = "shoe_images";
/// Images of a shoe.
const SHOE_IMAGES_EACH: u64 = 7;

/// Parts of the dice: none of those of the products' tables.
mod part {
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
        self.each(part::REVIEW_COUNT, 13)
    }

    /// About three and a half a product.
    fn questions(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        self.each(part::QUESTION_COUNT, 8)
    }

    /// Each question with the ids of its answers, about two.
    fn answers(self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
        let mut next = 1;
        self.questions().flat_map(|(_, questions)| questions).map(move |question| {
            let answers = next..next + Dice::new(self.seed, part::ANSWER_COUNT, question).below(5);
            next = answers.end;
            (question, answers)
        })
    }
}

impl Dice {
    fn time(&mut self) -> String {
        let ms = FIRST_DAY_MS + self.below(YEAR_MS);
        let time = jiff::Timestamp::from_millisecond(ms as i64).expect("a time of 2021");
        format!("{time:.3}")
    }

    fn name(&mut self) -> String {
        let name = self.pick(NAMES);
        format!("{name}{}", self.below(1000))
    }
}

/// Name and address of somebody.
fn write_person(rows: &mut Rows, dice: &mut Dice) {
    let name = dice.name();
    rows.value(Some(&name));
    rows.value(Some(&format!("{name}@example.com")));
}

fn write_reviews(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    for (product, reviews) in plan.reviews() {
        for review in reviews {
            let mut dice = Dice::new(plan.seed, part::REVIEW, review);
            rows.number(review as i64);
            rows.number(product as i64);
            // More are content than not.
            rows.number(1 + dice.below(5).max(dice.below(5)) as i64);
            rows.value(Some(&dice.time()));
            rows.value(Some(dice.pick(SUMMARIES)));
            rows.value(Some(&format!("{} {}", dice.pick(PHRASES), dice.pick(PHRASES))));
            rows.value(Some(if dice.one_in(4) { "f" } else { "t" }));
            rows.value(Some(if dice.one_in(100) { "t" } else { "f" }));
            write_person(rows, &mut dice);
            rows.value(if dice.one_in(10) { Some("Thank you for writing.") } else { None });
            rows.number(dice.below(30) as i64);
            rows.end()?;
        }
        bar.inc(1);
    }
    Ok(())
}

/// Photos of each of `owners`, fewer than `below`.
fn write_photos(
    plan: Plan,
    rows: &mut Rows,
    part: u64,
    owners: impl Iterator<Item = u64>,
    below: u64,
) -> Result<(), Error> {
    let mut next = 1;
    for owner in owners {
        for n in 0..Dice::new(plan.seed, part, owner).below(below) {
            rows.number(next);
            rows.number(owner as i64);
            rows.value(Some(&format!("/pictures/{owner}-{}.svg?w=300", n + 1)));
            rows.end()?;
            next += 1;
        }
    }
    Ok(())
}

fn write_review_photos(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    let reviews = plan.reviews().flat_map(|(_, reviews)| reviews);
    write_photos(plan, rows, part::REVIEW_PHOTO_COUNT, reviews, 2)?;
    bar.inc(plan.products);
    Ok(())
}

fn write_characteristics(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    for id in 1..=plan.products {
        let first = Dice::new(plan.seed, part::CHARACTERISTICS, id).below(CHARACTERISTICS.len() as u64);
        for n in 0..CHARACTERISTICS_EACH {
            rows.number(characteristic(id, n));
            rows.number(id as i64);
            rows.value(Some(CHARACTERISTICS[((first + n) % CHARACTERISTICS.len() as u64) as usize]));
            rows.end()?;
        }
        bar.inc(1);
    }
    Ok(())
}

/// Id of a product's n-th characteristic.
fn characteristic(product: u64, n: u64) -> i64 {
    ((product - 1) * CHARACTERISTICS_EACH + n + 1) as i64
}

fn write_ratings(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    let mut next = 1;
    for (product, reviews) in plan.reviews() {
        for review in reviews {
            let mut dice = Dice::new(plan.seed, part::RATING, review);
            for n in 0..CHARACTERISTICS_EACH {
                rows.number(next);
                rows.number(characteristic(product, n));
                rows.number(review as i64);
                rows.number(1 + dice.below(5) as i64);
                rows.end()?;
                next += 1;
            }
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_questions(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    for (product, questions) in plan.questions() {
        for question in questions {
            let mut dice = Dice::new(plan.seed, part::QUESTION, question);
            rows.number(question as i64);
            rows.number(product as i64);
            write_text(rows, &mut dice, QUESTIONS)?;
        }
        bar.inc(1);
    }
    Ok(())
}

fn write_answers(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    for (question, answers) in plan.answers() {
        for answer in answers {
            let mut dice = Dice::new(plan.seed, part::ANSWER, answer);
            rows.number(answer as i64);
            rows.number(question as i64);
            write_text(rows, &mut dice, PHRASES)?;
        }
    }
    bar.inc(plan.products);
    Ok(())
}

/// Body, time, person, reported, helpful: what a question and an answer have alike.
fn write_text(rows: &mut Rows, dice: &mut Dice, bodies: &[&str]) -> Result<(), Error> {
    rows.value(Some(dice.pick(bodies)));
    rows.value(Some(&dice.time()));
    write_person(rows, dice);
    rows.value(Some(if dice.one_in(100) { "t" } else { "f" }));
    rows.number(dice.below(30) as i64);
    rows.end()
}

fn write_answer_photos(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    let answers = plan.answers().flat_map(|(_, answers)| answers);
    write_photos(plan, rows, part::ANSWER_PHOTO_COUNT, answers, 2)?;
    bar.inc(plan.products);
    Ok(())
}

fn write_shoe_images(plan: Plan, rows: &mut Rows, bar: &ProgressBar) -> Result<(), Error> {
    for id in 1..=plan.products {
        rows.number(id as i64);
        rows.number(id as i64);
        for n in 1..=SHOE_IMAGES_EACH {
            rows.value(Some(&format!("/pictures/{id}-{n}.svg?w=600")));
        }
        rows.end()?;
        bar.inc(1);
    }
    Ok(())
}
