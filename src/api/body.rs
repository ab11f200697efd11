//! Bodies of shoppers' writes: what they must hold, read as leniently as the old service read them.
//! Runs in: worker, on a lane's stack.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::api::writer::Sent;
use crate::db::images::ShoeImages;
use crate::db::writes::{CartItem, Interaction, NewReview, NewText};
use crate::limits::{CART_COUNT_MAX, CHARACTERISTICS_MAX, PHOTOS_MAX, TEXT_SIZE_MAX_BYTES};

/// A body that is not what it must be, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl<T: Into<String>> From<T> for Invalid {
    fn from(why: T) -> Invalid {
        Invalid(why.into())
    }
}

/// A whole number, or one as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number(i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(from) {
            Ok(Either::Number(number)) => Ok(Number(number)),
            Ok(Either::Text(text)) => text.trim().parse().map(Number).map_err(serde::de::Error::custom),
            Err(_) => Err(serde::de::Error::custom("expected a whole number, or one as text")),
        }
    }
}

/// Addresses, of which some may be null; or an empty text for none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Photos(Vec<String>);

impl<'de> Deserialize<'de> for Photos {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Photos, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            List(Vec<Option<String>>),
            Text(String),
        }
        match Option::<Either>::deserialize(from) {
            Ok(Some(Either::List(urls))) => {
                Ok(Photos(urls.into_iter().flatten().filter(|url| !url.is_empty()).collect()))
            }
            Ok(Some(Either::Text(text))) if text.is_empty() => Ok(Photos::default()),
            Ok(None) => Ok(Photos::default()),
            _ => Err(serde::de::Error::custom("photos must be a list of addresses")),
        }
    }
}

#[derive(Deserialize)]
struct ReviewBody {
    product_id: Option<Number>,
    rating: i64,
    #[serde(default)]
    summary: Option<String>,
    body: String,
    recommend: bool,
    name: String,
    email: String,
    #[serde(default)]
    photos: Photos,
    characteristics: BTreeMap<String, Number>,
}

#[derive(Deserialize)]
struct QuestionBody {
    product_id: Number,
    body: String,
    name: String,
    email: String,
}

#[derive(Deserialize)]
struct AnswerBody {
    body: String,
    name: String,
    email: String,
    #[serde(default)]
    photos: Photos,
}

#[derive(Deserialize)]
struct CartBody {
    sku_id: Number,
    /// Only where it is a number.
    #[serde(default)]
    count: serde_json::Value,
}

#[derive(Deserialize)]
struct InteractionBody {
    element: String,
    widget: String,
    time: String,
}

fn read<'de, T: Deserialize<'de>>(sent: &'de Sent) -> Result<T, Invalid> {
    serde_json::from_slice(&sent.body).map_err(|e| Invalid(e.to_string()))
}

/// A text that the database can hold.
fn check_text(name: &str, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(format!("{name} holds the character U+0000").into());
    }
    if text.len() > TEXT_SIZE_MAX_BYTES {
        return Err(format!("{name} is longer than {TEXT_SIZE_MAX_BYTES} bytes").into());
    }
    Ok(())
}

/// Texts that must not be empty.
fn check_filled(texts: &[(&str, &str)]) -> Result<(), Invalid> {
    texts.iter().try_for_each(|(name, text)| match text.trim().is_empty() {
        true => Err(format!("{name} is empty").into()),
        false => check_text(name, text),
    })
}

fn check_photos(Photos(urls): Photos) -> Result<Vec<String>, Invalid> {
    if urls.len() > PHOTOS_MAX {
        return Err(format!("more than {PHOTOS_MAX} photos").into());
    }
    urls.iter().try_for_each(|url| check_text("a photo", url))?;
    Ok(urls)
}

/// `POST /reviews`
pub fn review(sent: &Sent) -> Result<NewReview, Invalid> {
    let ReviewBody { product_id, rating, summary, body, recommend, name, email, photos, characteristics } =
        read(sent)?;
    let summary = summary.unwrap_or_default();
    check_text("summary", &summary)?;
    check_filled(&[("body", &body), ("name", &name), ("email", &email)])?;
    if !(1..=5).contains(&rating) {
        return Err("rating must be from 1 to 5".into());
    }
    if characteristics.len() > CHARACTERISTICS_MAX {
        return Err(format!("more than {CHARACTERISTICS_MAX} characteristics").into());
    }
    let rated = characteristics.iter().map(|(id, value)| match (id.trim().parse(), value.0) {
        (Ok(id), value @ 1..=5) => Ok((id, value)),
        _ => Err(Invalid("characteristics must be ratings from 1 to 5 by characteristic id".into())),
    });
    let product_id = sent.id.or(product_id.map(|id| id.0)).ok_or("product_id is missing")?;
    let rated: BTreeMap<i64, i64> = rated.collect::<Result<_, Invalid>>()?;
    if rated.len() < characteristics.len() {
        return Err("a characteristic is rated twice".into());
    }
    let (characteristics, photos) = (rated.into_iter().collect(), check_photos(photos)?);
    Ok(NewReview { product_id, rating, summary, body, recommend, name, email, photos, characteristics })
}

/// `POST /qa/questions`
pub fn question(sent: &Sent) -> Result<NewText, Invalid> {
    let QuestionBody { body, name, email, product_id } = read(sent)?;
    check_filled(&[("body", &body), ("name", &name), ("email", &email)])?;
    let owner = product_id.0;
    Ok(NewText { owner, body, name, email, photos: Vec::new() })
}

/// `POST /qa/questions/:id/answers`
pub fn answer(sent: &Sent) -> Result<NewText, Invalid> {
    let AnswerBody { body, name, email, photos } = read(sent)?;
    check_filled(&[("body", &body), ("name", &name), ("email", &email)])?;
    let owner = sent.id.ok_or("the question is missing")?;
    Ok(NewText { owner, body, name, email, photos: check_photos(photos)? })
}

/// `POST /cart`
pub fn cart_item(sent: &Sent) -> Result<CartItem, Invalid> {
    let CartBody { sku_id, count } = read(sent)?;
    let count = Number::deserialize(count).map_or(1, |count| count.0);
    if !(1..=CART_COUNT_MAX).contains(&count) {
        return Err(format!("count must be from 1 to {CART_COUNT_MAX}").into());
    }
    Ok(CartItem { session: sent.session.clone(), sku_id: sku_id.0, count, is_shared: sent.is_shared })
}

/// `POST /interactions`
pub fn interaction(sent: &Sent) -> Result<Interaction, Invalid> {
    let InteractionBody { element, widget, time } = read(sent)?;
    check_filled(&[("element", &element), ("widget", &widget), ("time", &time)])?;
    Ok(Interaction { element, widget, time })
}

/// A shoe's images as they are sent, as JSON or as a form.
#[derive(Deserialize)]
pub struct ShoeBody {
    shoe_id: Number,
    img1: Option<String>,
    img2: Option<String>,
    img3: Option<String>,
    img4: Option<String>,
    img5: Option<String>,
    img6: Option<String>,
    img7: Option<String>,
    vid1: Option<String>,
    vid2: Option<String>,
}

impl From<ShoeBody> for ShoeImages {
    fn from(shoe: ShoeBody) -> ShoeImages {
        let ShoeBody { shoe_id, img1, img2, img3, img4, img5, img6, img7, vid1, vid2 } = shoe;
        ShoeImages { shoe_id: shoe_id.0, addresses: [img1, img2, img3, img4, img5, img6, img7, vid1, vid2] }
    }
}

/// `POST /api/images`, `PUT /api/images`, `DELETE /api/images`
pub fn read_shoe(body: &[u8], is_form: bool) -> Result<ShoeBody, Invalid> {
    let shoe: ShoeBody = if is_form {
        let fields = form_urlencoded::parse(body).map(|(name, value)| (name, value.into()));
        let fields: serde_json::Map<String, serde_json::Value> =
            fields.map(|(name, value)| (name.into_owned(), value)).collect();
        serde_json::from_value(fields.into()).map_err(|e| Invalid(e.to_string()))?
    } else {
        serde_json::from_slice(body).map_err(|e| Invalid(e.to_string()))?
    };
    let addresses = [
        &shoe.img1, &shoe.img2, &shoe.img3, &shoe.img4, &shoe.img5, &shoe.img6, &shoe.img7, &shoe.vid1,
        &shoe.vid2,
    ];
    addresses.into_iter().flatten().try_for_each(|address| check_text("an address", address))?;
    Ok(shoe)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVIEW: &str = r#"{"product_id": 1, "rating": 4, "summary": "s", "body": "b", "recommend": true, "name": "n",
        "email": "e", "photos": ["u"], "characteristics": {"3": 5}}"#;

    fn sent(body: impl Into<String>) -> Sent {
        Sent { body: body.into().into_bytes(), ..Sent::default() }
    }

    /// The review with a field of it replaced, or taken out.
    fn with(field: &str, value: Option<serde_json::Value>) -> Result<NewReview, Invalid> {
        let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(REVIEW).unwrap();
        json.remove(field);
        json.extend(value.map(|value| (field.to_string(), value)));
        review(&sent(serde_json::to_string(&json).unwrap()))
    }

    #[test]
    fn reviews_are_read_as_leniently_as_they_were() {
        let read = review(&sent(REVIEW)).unwrap();
        assert_eq!((read.product_id, read.rating, &read.characteristics[..]), (1, 4, &[(3, 5)][..]));
        assert_eq!(with("product_id", Some("17".into())).unwrap().product_id, 17);
        for (field, value) in [
            ("summary", None),
            ("summary", Some("".into())),
            ("summary", Some(serde_json::Value::Null)),
            ("photos", None),
            ("photos", Some(serde_json::json!([]))),
            ("photos", Some(serde_json::json!([null, "u"]))),
            ("photos", Some(serde_json::Value::Null)),
            ("characteristics", Some(serde_json::json!({"3": "5", "99": 1}))),
            ("characteristics", Some(serde_json::json!({}))),
            ("extra", Some(serde_json::json!({"deep": [1, {"er": null}]}))),
        ] {
            assert!(with(field, value.clone()).is_ok(), "{field}: {value:?}");
        }
    }

    #[test]
    fn what_no_review_can_be_is_refused() {
        let long = "x".repeat(TEXT_SIZE_MAX_BYTES + 1);
        for (field, value) in [
            ("product_id", None),
            ("product_id", Some("one".into())),
            ("product_id", Some(1.5.into())),
            ("product_id", Some(9_223_372_036_854_775_808u64.into())),
            ("rating", None),
            ("rating", Some(0.into())),
            ("rating", Some(6.into())),
            ("rating", Some(4.5.into())),
            ("rating", Some("many".into())),
            ("body", None),
            ("body", Some(" ".into())),
            ("body", Some("a\0b".into())),
            ("body", Some(long.into())),
            ("recommend", Some("true".into())),
            ("recommend", Some(serde_json::Value::Null)),
            ("name", Some(1.into())),
            ("email", None),
            ("photos", Some("u".into())),
            ("photos", Some(serde_json::json!([1]))),
            ("photos", Some(serde_json::json!(vec!["u"; PHOTOS_MAX + 1]))),
            ("characteristics", None),
            ("characteristics", Some(serde_json::json!([]))),
            ("characteristics", Some(serde_json::json!({"3": 6}))),
            ("characteristics", Some(serde_json::json!({"three": 3}))),
            ("characteristics", Some(serde_json::json!({"3": 3, "03": 3}))),
        ] {
            assert!(with(field, value.clone()).is_err(), "{field}: {value:?}");
        }
        for text in ["", "null", "[]", "{", "NaN", "\"\\ud800\"", &"[".repeat(100_000)] {
            assert!(review(&sent(text)).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn questions_answers_carts_and_interactions() {
        let text = r#"{"body": "b", "name": "n", "email": "e", "product_id": "3", "photos": ""}"#;
        assert_eq!(question(&sent(text)).unwrap().owner, 3);
        assert_eq!(answer(&Sent { id: Some(5), ..sent(text) }).unwrap().owner, 5);
        assert!(answer(&sent(text)).is_err());
        assert!(question(&sent(r#"{"body": "b", "name": "n", "email": "e"}"#)).is_err());
        let item = |body: &str| cart_item(&sent(body)).map(|item| (item.sku_id, item.count));
        assert_eq!(item(r#"{"sku_id": 7, "product": {}}"#), Ok((7, 1)));
        assert_eq!(item(r#"{"sku_id": "7", "count": "4"}"#), Ok((7, 4)));
        assert_eq!(item(r#"{"sku_id": 7, "count": "many"}"#), Ok((7, 1)));
        for body in
            [r#"{"sku_id": 7, "count": 0}"#, r#"{"sku_id": null}"#, "{}", r#"{"sku_id": 7, "count": -4}"#]
        {
            assert!(item(body).is_err(), "{body}");
        }
        assert!(interaction(&sent(r#"{"element": "a", "widget": "b", "time": "c"}"#)).is_ok());
        assert!(interaction(&sent(r#"{"element": "a", "widget": "b", "time": 3}"#)).is_err());
    }
}
