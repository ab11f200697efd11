//! Questions and answers, of many products and questions at a time: one statement, plain rows, put in order here.
//! Runs in: worker.

use std::cmp::Reverse;
use std::collections::HashMap;

use may_postgres::{Client, Error, Row};

use crate::catalogue::{Answer, NumberedPhoto, Page, Question};
use crate::db::products::{read_time, Read};
use crate::db::slice::{Columns, Place, Slice};
use crate::statements::{ANSWERS_LIST, QUESTIONS_LIST};

/// Rows of either statement, by what they are.
#[derive(Default)]
struct Parts {
    position: u64,
    questions: Vec<(usize, Question)>,
    /// With slice and question.
    answers: Vec<(usize, i64, Answer)>,
    /// By slice and answer.
    photos: HashMap<(usize, i64), Vec<NumberedPhoto>>,
}

/// A page of questions, with all their answers, for each of `slices`, whose owners are products; in their order.
pub fn list(client: &Client, slices: &[Slice]) -> Result<Read<Vec<Page<Question>>>, Error> {
    let Parts { position, mut questions, mut answers, mut photos } = read(client, QUESTIONS_LIST, slices)?;
    questions.sort_unstable_by_key(|(slice, q)| (*slice, Reverse(q.helpful), q.id));
    answers.sort_unstable_by_key(|(slice, question, a)| (*slice, *question, a.id));
    let mut answered: HashMap<(usize, i64), Vec<Answer>> = HashMap::new();
    for (slice, question, mut answer) in answers {
        answer.photos = take_photos(&mut photos, slice, answer.id);
        answered.entry((slice, question)).or_default().push(answer);
    }
    let mut pages: Vec<Vec<Question>> = slices.iter().map(|_| Vec::new()).collect();
    for (slice, mut question) in questions {
        question.answers = answered.remove(&(slice, question.id)).unwrap_or_default();
        pages[slice].push(question);
    }
    let found = pages.into_iter().zip(slices).map(|(rows, slice)| slice.cut(rows)).collect();
    Ok(Read { found, position })
}

/// A page of answers for each of `slices`, whose owners are questions; in their order.
pub fn list_answers(client: &Client, slices: &[Slice]) -> Result<Read<Vec<Page<Answer>>>, Error> {
    let Parts { position, mut answers, mut photos, .. } = read(client, ANSWERS_LIST, slices)?;
    answers.sort_unstable_by_key(|(slice, _, a)| (*slice, Reverse(a.helpful), a.id));
    let mut pages: Vec<Vec<Answer>> = slices.iter().map(|_| Vec::new()).collect();
    for (slice, _, mut answer) in answers {
        answer.photos = take_photos(&mut photos, slice, answer.id);
        pages[slice].push(answer);
    }
    let found = pages.into_iter().zip(slices).map(|(rows, slice)| slice.cut(rows)).collect();
    Ok(Read { found, position })
}

fn take_photos(
    photos: &mut HashMap<(usize, i64), Vec<NumberedPhoto>>,
    slice: usize,
    answer: i64,
) -> Vec<NumberedPhoto> {
    let mut taken = photos.remove(&(slice, answer)).unwrap_or_default();
    taken.sort_unstable_by_key(|photo| photo.id);
    taken
}

fn read(client: &Client, statement: &str, slices: &[Slice]) -> Result<Parts, Error> {
    let Columns { owners, counts, skips, backwards } = Columns::of(slices);
    // The statements count helpful downwards by its negative.
    let (ranks, ids): (Vec<i64>, Vec<i64>) = slices
        .iter()
        .map(|slice| match slice.place() {
            Some(Place::Helpful { helpful, id }) => (helpful.saturating_neg(), id),
            _ => (i64::MIN, i64::MIN),
        })
        .unzip();
    let statement = client.prepare_cached(statement)?;
    let rows = client.query(&statement, &[&owners, &counts, &skips, &backwards, &ranks, &ids])?;
    let mut parts = Parts::default();
    rows.iter().try_for_each(|row| parts.take(row))?;
    Ok(parts)
}

impl Parts {
    fn take(&mut self, row: &Row) -> Result<(), Error> {
        let (part, n, id): (i16, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        // Ordinality counts from 1.
        let slice = (n - 1) as usize;
        match part {
            0 => self.position = n as u64,
            1 => self.questions.push((
                slice,
                Question {
                    id,
                    body: row.try_get(5)?,
                    asker_name: row.try_get(6)?,
                    date_us: read_time(row, 7)?,
                    helpful: row.try_get(8)?,
                    answers: Vec::new(),
                },
            )),
            2 => {
                let answer = Answer {
                    id,
                    body: row.try_get(5)?,
                    answerer_name: row.try_get(6)?,
                    date_us: read_time(row, 7)?,
                    helpful: row.try_get(8)?,
                    photos: Vec::new(),
                };
                self.answers.push((slice, row.try_get(2)?, answer));
            }
            _ => {
                let photo = NumberedPhoto { id: row.try_get(4)?, url: row.try_get(5)? };
                self.photos.entry((slice, id)).or_default().push(photo);
            }
        }
        Ok(())
    }
}
