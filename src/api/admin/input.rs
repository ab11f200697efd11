//! Bodies of administrators' requests: what they may hold, and what they become.
//! Runs in: worker, on a lane's stack.

use serde::{Deserialize, Deserializer};

use crate::api::outcome::Refusal;
use crate::db::edits::{NewProduct, NewStyle, ProductChange, StyleChange};
use crate::limits::{CATEGORY_SIZE_MAX_BYTES, PARTS_MAX, TEXT_SIZE_MAX_BYTES};

/// Reads a body.
pub fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::Body(e.to_string()))
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A text that the database can hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        let text = String::deserialize(from)?;
        if text.contains('\0') {
            return Err(serde::de::Error::custom("a text can't hold the character U+0000"));
        }
        if text.len() > TEXT_SIZE_MAX_BYTES {
            return Err(serde::de::Error::custom(format!(
                "a text is longer than {TEXT_SIZE_MAX_BYTES} bytes"
            )));
        }
        Ok(Text(text))
    }
}

/// A category: as much as its index holds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Category(Text);

impl TryFrom<Text> for Category {
    type Error = String;

    fn try_from(text: Text) -> Result<Category, String> {
        match text.0.len() > CATEGORY_SIZE_MAX_BYTES {
            true => Err(format!("a category is longer than {CATEGORY_SIZE_MAX_BYTES} bytes")),
            false => Ok(Category(text)),
        }
    }
}

/// A price as text, as answers carry it, or as a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Price {
    Text(String),
    Number(serde_json::Number),
}

impl Price {
    /// Digits with at most two decimals, below ten thousand million: what the column holds.
    fn read(self) -> Result<String, Refusal> {
        let text = match self {
            Price::Text(text) => text,
            Price::Number(number) => number.to_string(),
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((&text, "00"));
        let digits = |part: &str, max: usize| {
            (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        match digits(whole, 10) && digits(decimals, 2) {
            true => Ok(text),
            false => Err(Refusal::Invalid(format!(
                "a price is {text:?}; expected at most 10 digits and 2 decimals, as in 140.00"
            ))),
        }
    }
}

fn texts(list: [Option<Text>; 4]) -> [Option<String>; 4] {
    list.map(|text| text.map(|text| text.0))
}

/// `PATCH /admin/products/:id`: every field may be left out, none may be null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductPatch {
    #[serde(default, deserialize_with = "present")]
    name: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    slogan: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    description: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    category: Option<Category>,
    #[serde(default, deserialize_with = "present")]
    default_price: Option<Price>,
}

impl TryFrom<ProductPatch> for ProductChange {
    type Error = Refusal;

    fn try_from(patch: ProductPatch) -> Result<ProductChange, Refusal> {
        let default_price = patch.default_price.map(Price::read).transpose()?;
        let [name, slogan, description, category] =
            texts([patch.name, patch.slogan, patch.description, patch.category.map(|category| category.0)]);
        let change = ProductChange { name, slogan, description, category, default_price };
        match change == ProductChange::default() {
            true => Err(Refusal::Invalid(
                "nothing is to change: give name, slogan, description, category or default_price".into(),
            )),
            false => Ok(change),
        }
    }
}

/// `PATCH /admin/styles/:id`: every field may be left out; a sale price of null ends the sale.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StylePatch {
    #[serde(default, deserialize_with = "present")]
    name: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    original_price: Option<Price>,
    #[serde(default, deserialize_with = "present")]
    sale_price: Option<Option<Price>>,
    #[serde(default, deserialize_with = "present")]
    default_style: Option<bool>,
}

impl TryFrom<StylePatch> for StyleChange {
    type Error = Refusal;

    fn try_from(patch: StylePatch) -> Result<StyleChange, Refusal> {
        let change = StyleChange {
            name: patch.name.map(|text| text.0),
            original_price: patch.original_price.map(Price::read).transpose()?,
            sale_price: patch.sale_price.map(|sale| sale.map(Price::read).transpose()).transpose()?,
            default_style: patch.default_style,
        };
        match change == StyleChange::default() {
            true => Err(Refusal::Invalid(
                "nothing is to change: give name, original_price, sale_price or default_style".into(),
            )),
            false => Ok(change),
        }
    }
}

/// `POST /admin/products`: a product with all that belongs to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductBody {
    name: Text,
    #[serde(default = "empty")]
    slogan: Text,
    #[serde(default = "empty")]
    description: Text,
    #[serde(default = "no_category")]
    category: Category,
    default_price: Price,
    #[serde(default)]
    pub features: Vec<FeatureBody>,
    #[serde(default)]
    pub styles: Vec<StyleBody>,
    #[serde(default)]
    pub related: Vec<i64>,
}

fn empty() -> Text {
    Text(String::new())
}

fn no_category() -> Category {
    Category(empty())
}

/// `POST /admin/products/:id/features`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBody {
    pub feature: Text,
    #[serde(default)]
    pub value: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StyleBody {
    name: Text,
    original_price: Price,
    #[serde(default)]
    sale_price: Option<Price>,
    #[serde(default)]
    default_style: bool,
    #[serde(default)]
    pub photos: Vec<PhotoBody>,
    #[serde(default)]
    pub skus: Vec<SkuBody>,
}

/// `POST /admin/styles/:id/photos`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhotoBody {
    pub url: Text,
    #[serde(default)]
    pub thumbnail_url: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkuBody {
    #[serde(default)]
    pub size: Option<Text>,
    #[serde(default)]
    pub quantity: Option<i64>,
}

/// `PUT /admin/skus/:id`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityBody {
    pub quantity: i64,
}

/// `POST /admin/purge`: a product's answers, or every one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeBody {
    #[serde(default)]
    pub product_id: Option<i64>,
    #[serde(default)]
    pub everything: bool,
}

impl ProductBody {
    /// The product's own columns.
    ///
    /// # Errors
    /// A price that is none, or more parts than one request may bring.
    pub fn product(&self) -> Result<NewProduct, Refusal> {
        let in_styles = self.styles.iter().map(|style| 1 + style.photos.len() + style.skus.len());
        let parts = self.features.len() + self.related.len() + in_styles.sum::<usize>();
        if parts > PARTS_MAX {
            return Err(Refusal::Invalid(format!(
                "a product of {parts} parts; expected at most {PARTS_MAX}"
            )));
        }
        Ok(NewProduct {
            name: self.name.0.clone(),
            slogan: self.slogan.0.clone(),
            description: self.description.0.clone(),
            category: self.category.0 .0.clone(),
            default_price: self.default_price.clone().read()?,
        })
    }
}

impl StyleBody {
    /// The style's own columns.
    pub fn style(&self) -> Result<NewStyle, Refusal> {
        Ok(NewStyle {
            name: self.name.0.clone(),
            original_price: self.original_price.clone().read()?,
            sale_price: self.sale_price.clone().map(Price::read).transpose()?,
            default_style: self.default_style,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> Result<ProductChange, Refusal> {
        ProductChange::try_from(read::<ProductPatch>(json.as_bytes())?)
    }

    #[test]
    fn changes_are_checked_before_they_are_sent() {
        for price in [r#""140.00""#, "140", "0.5", r#""9999999999.99""#] {
            assert!(change(&format!(r#"{{"default_price": {price}}}"#)).is_ok(), "{price}");
        }
        for body in [
            "{}",
            "[]",
            "null",
            r#"{"name": null}"#,
            r#"{"name": 3}"#,
            r#"{"colour": "red"}"#,
            r#"{"name": "a\u0000b"}"#,
            r#"{"default_price": "1e3"}"#,
            r#"{"default_price": -1}"#,
            r#"{"default_price": "1.234"}"#,
            r#"{"default_price": "12345678901"}"#,
            r#"{"default_price": ""}"#,
            r#"{"default_price": "1."}"#,
        ] {
            assert!(change(body).is_err(), "{body}");
        }
        let category = |len: usize| change(&format!(r#"{{"category": "{}"}}"#, "c".repeat(len)));
        assert!(category(CATEGORY_SIZE_MAX_BYTES).is_ok() && category(CATEGORY_SIZE_MAX_BYTES + 1).is_err());
    }

    #[test]
    fn a_sale_can_be_ended() {
        let change = |json: &str| StyleChange::try_from(read::<StylePatch>(json.as_bytes())?);
        assert_eq!(change(r#"{"sale_price": null}"#).unwrap().sale_price, Some(None));
        assert_eq!(change(r#"{"sale_price": 3}"#).unwrap().sale_price, Some(Some("3".into())));
        assert_eq!(change(r#"{"name": "n"}"#).unwrap().sale_price, None);
        assert!(change("{}").is_err());
    }
}
