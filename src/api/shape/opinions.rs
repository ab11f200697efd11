//! Reviews, what they come to, questions and answers as JSON.
//! Runs in: worker, on a lane's stack.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{iso_time, Dialect};
use crate::api::query::Query;
use crate::catalogue::{Answer, Meta, NumberedPhoto, Question, Review};

#[derive(Serialize)]
struct ReviewsJson<'a> {
    product: &'a str,
    /// The rows before it, as the old service had it.
    page: i64,
    count: i64,
    results: Vec<ReviewJson<'a>>,
}

#[derive(Serialize)]
struct ReviewJson<'a> {
    review_id: i64,
    rating: i64,
    summary: &'a str,
    recommend: bool,
    response: Option<&'a str>,
    body: &'a str,
    date: String,
    reviewer_name: &'a str,
    helpfulness: i64,
    photos: Vec<PhotoJson<'a>>,
}

#[derive(Serialize)]
struct PhotoJson<'a> {
    id: i64,
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct MetaJson<'a> {
    product_id: &'a str,
    ratings: BTreeMap<i64, String>,
    recommended: BTreeMap<bool, String>,
    characteristics: Characteristics<'a>,
}

/// An object in the order of the ids, not of the names. Of two with one name the first is shown.
struct Characteristics<'a>(&'a Meta);

#[derive(Serialize)]
struct CharacteristicJson<'a> {
    id: i64,
    value: Option<&'a str>,
}

impl Serialize for Characteristics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = &self.0.characteristics;
        let mut map = serializer.serialize_map(None)?;
        for (n, shown) in all.iter().enumerate() {
            if all[..n].iter().all(|before| before.name != shown.name) {
                let json = CharacteristicJson { id: shown.id, value: shown.value.as_deref() };
                map.serialize_entry(&shown.name, &json)?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct QuestionsJson<'a> {
    product_id: &'a str,
    results: Vec<QuestionJson<'a>>,
}

#[derive(Serialize)]
struct QuestionJson<'a> {
    question_id: i64,
    question_body: &'a str,
    question_date: String,
    asker_name: &'a str,
    question_helpfulness: i64,
    reported: bool,
    answers: AnswersOfQuestion<'a>,
}

/// An object keyed by id.
struct AnswersOfQuestion<'a> {
    dialect: &'a Dialect,
    answers: &'a [Answer],
}

#[derive(Serialize)]
struct AnswerOfQuestion<'a> {
    id: i64,
    body: &'a str,
    date: String,
    answerer_name: &'a str,
    helpfulness: i64,
    photos: Urls<'a>,
}

/// Photos by their addresses alone.
struct Urls<'a> {
    dialect: &'a Dialect,
    photos: &'a [NumberedPhoto],
}

impl Serialize for Urls<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.photos.len()))?;
        for photo in self.photos {
            list.serialize_element(&self.dialect.absolute(&photo.url))?;
        }
        list.end()
    }
}

impl Serialize for AnswersOfQuestion<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.answers.len()))?;
        for answer in self.answers {
            let json = AnswerOfQuestion {
                id: answer.id,
                body: &answer.body,
                date: iso_time(answer.date_us),
                answerer_name: &answer.answerer_name,
                helpfulness: answer.helpful,
                photos: Urls { dialect: self.dialect, photos: &answer.photos },
            };
            map.serialize_entry(&answer.id, &json)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct AnswersJson<'a> {
    question: &'a str,
    page: i64,
    count: i64,
    results: Vec<AnswerJson<'a>>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    answer_id: i64,
    body: &'a str,
    date: String,
    answerer_name: &'a str,
    helpfulness: i64,
    photos: Vec<PhotoJson<'a>>,
}

impl Dialect {
    fn numbered<'a>(&self, photos: &'a [NumberedPhoto]) -> Vec<PhotoJson<'a>> {
        photos.iter().map(|photo| PhotoJson { id: photo.id, url: self.absolute(&photo.url) }).collect()
    }

    pub(super) fn reviews<'a>(
        &'a self,
        query: &'a Query<'_>,
        reviews: &'a [Review],
    ) -> serde_json::Result<Vec<u8>> {
        let review = |review: &'a Review| ReviewJson {
            review_id: review.id,
            rating: review.rating,
            summary: &review.summary,
            recommend: review.recommend,
            response: review.response.as_deref(),
            body: &review.body,
            date: iso_time(review.date_us),
            reviewer_name: &review.reviewer_name,
            helpfulness: review.helpfulness,
            photos: self.numbered(&review.photos),
        };
        let results = reviews.iter().map(review).collect();
        let json = ReviewsJson { product: &query.echo, page: query.skip(), count: query.count, results };
        serde_json::to_vec(&json)
    }

    pub(super) fn meta(&self, query: &Query<'_>, meta: &Meta) -> serde_json::Result<Vec<u8>> {
        let (mut ratings, mut recommended) = (BTreeMap::new(), BTreeMap::new());
        for count in &meta.counts {
            *ratings.entry(count.rating).or_insert(0) += count.reviews;
            *recommended.entry(count.recommend).or_insert(0) += count.reviews;
        }
        serde_json::to_vec(&MetaJson {
            product_id: &query.echo,
            ratings: as_text(ratings),
            recommended: as_text(recommended),
            characteristics: Characteristics(meta),
        })
    }

    pub(super) fn questions(&self, query: &Query<'_>, questions: &[Question]) -> serde_json::Result<Vec<u8>> {
        let results = questions.iter().map(|question| self.question(question)).collect();
        serde_json::to_vec(&QuestionsJson { product_id: &query.echo, results })
    }

    fn question<'a>(&'a self, question: &'a Question) -> QuestionJson<'a> {
        QuestionJson {
            question_id: question.id,
            question_body: &question.body,
            question_date: iso_time(question.date_us),
            asker_name: &question.asker_name,
            question_helpfulness: question.helpful,
            // Those that are, are not shown.
            reported: false,
            answers: AnswersOfQuestion { dialect: self, answers: &question.answers },
        }
    }

    pub(super) fn answers<'a>(
        &'a self,
        query: &'a Query<'_>,
        answers: &'a [Answer],
    ) -> serde_json::Result<Vec<u8>> {
        let answer = |answer: &'a Answer| AnswerJson {
            answer_id: answer.id,
            body: &answer.body,
            date: iso_time(answer.date_us),
            answerer_name: &answer.answerer_name,
            helpfulness: answer.helpful,
            photos: self.numbered(&answer.photos),
        };
        let results = answers.iter().map(answer).collect();
        serde_json::to_vec(&AnswersJson {
            question: &query.echo,
            page: query.page,
            count: query.count,
            results,
        })
    }
}

fn as_text<K: Ord>(counts: BTreeMap<K, i64>) -> BTreeMap<K, String> {
    counts.into_iter().map(|(key, count)| (key, count.to_string())).collect()
}
