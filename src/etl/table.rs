//! The archive's files: their columns, where they go, and what each cell must be.
//! Runs in: offline.

use crate::limits::{CATEGORY_SIZE_MAX_BYTES, SEARCHED_SIZE_MAX_BYTES};

/// What a cell must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// The row's own id.
    Id,
    /// An id that the parent's file has loaded.
    Parent(Parent),
    Text,
    /// Text that a btree index holds: of so many bytes at most.
    Label,
    /// Text that is searched for its words: of so many bytes at most.
    Words,
    TextOrNull,
    Price,
    PriceOrNull,
    NumberOrNull,
    Number,
    Boolean,
    /// Epoch milliseconds, or a day.
    Time,
    /// 1 to 5.
    Rating,
}

/// Whose id a cell refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    Product,
    /// A product that a row relates to: 0 is a reason of its own.
    RelatedProduct,
    Style,
    Review,
    Characteristic,
    Question,
    Answer,
}

impl Parent {
    /// Whose ids are looked up: products relate to products.
    pub fn whose(self) -> Parent {
        match self {
            Parent::RelatedProduct => Parent::Product,
            other => other,
        }
    }

    pub fn missing(self) -> &'static str {
        match self {
            Parent::Product | Parent::RelatedProduct => "product does not exist",
            Parent::Style => "style does not exist",
            Parent::Review => "review does not exist",
            Parent::Characteristic => "characteristic does not exist",
            Parent::Question => "question does not exist",
            Parent::Answer => "answer does not exist",
        }
    }
}

/// A column: name in the database, names in headers (lower case, without `_` and blanks), content.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub cell: Cell,
}

/// A file of the archive.
#[derive(Debug)]
pub struct Table {
    /// File name without extensions.
    pub file: &'static str,
    pub name: &'static str,
    pub columns: &'static [Column],
    /// Whose ids its own are, for its children.
    pub is: Option<Parent>,
}

const fn column(name: &'static str, aliases: &'static [&'static str], cell: Cell) -> Column {
    Column { name, aliases, cell }
}

/// Columns of the widest table.
pub const COLUMNS_MAX: usize = 12;

/// The files, parents before children.
pub const TABLES: &[Table] = &[
    Table {
        file: "product",
        name: "products",
        is: Some(Parent::Product),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("name", &["name"], Cell::Words),
            column("slogan", &["slogan"], Cell::Words),
            column("description", &["description"], Cell::Words),
            column("category", &["category"], Cell::Label),
            column("default_price", &["defaultprice"], Cell::Price),
        ],
    },
    Table {
        file: "features",
        name: "features",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("product_id", &["productid"], Cell::Parent(Parent::Product)),
            column("feature", &["feature"], Cell::Text),
            column("value", &["value"], Cell::TextOrNull),
        ],
    },
    Table {
        file: "styles",
        name: "styles",
        is: Some(Parent::Style),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("product_id", &["productid"], Cell::Parent(Parent::Product)),
            column("name", &["name"], Cell::Text),
            column("sale_price", &["saleprice"], Cell::PriceOrNull),
            column("original_price", &["originalprice"], Cell::Price),
            column("default_style", &["defaultstyle"], Cell::Boolean),
        ],
    },
    Table {
        file: "photos",
        name: "photos",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("style_id", &["styleid"], Cell::Parent(Parent::Style)),
            column("url", &["url"], Cell::TextOrNull),
            column("thumbnail_url", &["thumbnailurl"], Cell::TextOrNull),
        ],
    },
    Table {
        file: "skus",
        name: "skus",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("style_id", &["styleid"], Cell::Parent(Parent::Style)),
            column("size", &["size"], Cell::TextOrNull),
            column("quantity", &["quantity"], Cell::NumberOrNull),
        ],
    },
    Table {
        file: "related",
        name: "related",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("current_product_id", &["currentproductid", "productid"], Cell::Parent(Parent::Product)),
            column(
                "related_product_id",
                &["relatedproductid", "relatedid"],
                Cell::Parent(Parent::RelatedProduct),
            ),
        ],
    },
    Table {
        file: "reviews",
        name: "reviews",
        is: Some(Parent::Review),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("product_id", &["productid"], Cell::Parent(Parent::Product)),
            column("rating", &["rating"], Cell::Rating),
            column("date", &["date"], Cell::Time),
            column("summary", &["summary"], Cell::Text),
            column("body", &["body"], Cell::Text),
            column("recommend", &["recommend"], Cell::Boolean),
            column("reported", &["reported"], Cell::Boolean),
            column("reviewer_name", &["reviewername"], Cell::Text),
            column("reviewer_email", &["revieweremail"], Cell::Text),
            column("response", &["response"], Cell::TextOrNull),
            column("helpfulness", &["helpfulness"], Cell::Number),
        ],
    },
    Table {
        file: "reviews_photos",
        name: "reviews_photos",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("review_id", &["reviewid"], Cell::Parent(Parent::Review)),
            column("url", &["url"], Cell::Text),
        ],
    },
    Table {
        file: "characteristics",
        name: "characteristics",
        is: Some(Parent::Characteristic),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("product_id", &["productid"], Cell::Parent(Parent::Product)),
            column("name", &["name"], Cell::Text),
        ],
    },
    Table {
        file: "characteristic_reviews",
        name: "characteristic_reviews",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("characteristic_id", &["characteristicid"], Cell::Parent(Parent::Characteristic)),
            column("review_id", &["reviewid"], Cell::Parent(Parent::Review)),
            column("value", &["value"], Cell::Rating),
        ],
    },
    Table {
        file: "questions",
        name: "questions",
        is: Some(Parent::Question),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("product_id", &["productid"], Cell::Parent(Parent::Product)),
            column("body", &["body"], Cell::Text),
            column("date_written", &["datewritten"], Cell::Time),
            column("asker_name", &["askername"], Cell::Text),
            column("asker_email", &["askeremail"], Cell::Text),
            column("reported", &["reported"], Cell::Boolean),
            column("helpful", &["helpful"], Cell::Number),
        ],
    },
    Table {
        file: "answers",
        name: "answers",
        is: Some(Parent::Answer),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("question_id", &["questionid"], Cell::Parent(Parent::Question)),
            column("body", &["body"], Cell::Text),
            column("date_written", &["datewritten"], Cell::Time),
            column("answerer_name", &["answerername"], Cell::Text),
            column("answerer_email", &["answereremail"], Cell::Text),
            column("reported", &["reported"], Cell::Boolean),
            column("helpful", &["helpful"], Cell::Number),
        ],
    },
    Table {
        file: "answers_photos",
        name: "answers_photos",
        is: None,
        columns: &[
            column("id", &["id"], Cell::Id),
            column("answer_id", &["answerid"], Cell::Parent(Parent::Answer)),
            column("url", &["url"], Cell::Text),
        ],
    },
];

/// A header's name as aliases are written.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Cell {
    /// Bytes of the longest text that the column's indexes hold; None: any.
    pub fn text_max(self) -> Option<usize> {
        match self {
            Cell::Label => Some(CATEGORY_SIZE_MAX_BYTES),
            Cell::Words => Some(SEARCHED_SIZE_MAX_BYTES),
            _ => None,
        }
    }

    pub fn is_text(self) -> bool {
        matches!(self, Cell::Text | Cell::Label | Cell::Words | Cell::TextOrNull)
    }
}

impl Table {
    pub fn column_names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }

    /// Whose ids its rows refer to.
    pub fn parents(&self) -> impl Iterator<Item = Parent> {
        self.columns.iter().filter_map(|column| match column.cell {
            Cell::Parent(parent) => Some(parent.whose()),
            _ => None,
        })
    }

    /// For each column of the header, the table's column.
    ///
    /// # Errors
    /// The column that is missing, or that nobody knows.
    pub fn match_header(&self, header: &[String]) -> Result<Vec<usize>, String> {
        let found: Result<Vec<usize>, String> = header
            .iter()
            .map(|name| {
                let wanted = plain(name);
                let known = self.columns.iter().position(|c| c.aliases.contains(&wanted.as_str()));
                known.ok_or_else(|| format!("column {name:?} of the header is not one of {}'s", self.file))
            })
            .collect();
        let found = found?;
        for (n, column) in self.columns.iter().enumerate() {
            if found.iter().filter(|f| **f == n).count() != 1 {
                return Err(format!("the header must have the column {:?} once", column.name));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_in_any_style_and_order() {
        let header = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let photos = TABLES.iter().find(|t| t.file == "photos").unwrap();
        assert_eq!(
            photos.match_header(&header(&["id", "styleId", "url", "thumbnail_url"])),
            Ok(vec![0, 1, 2, 3])
        );
        assert_eq!(
            photos.match_header(&header(&["thumbnailUrl", "ID", "style_id", "url"])),
            Ok(vec![3, 0, 1, 2])
        );
        assert!(photos
            .match_header(&header(&["id", "styleId", "url"]))
            .unwrap_err()
            .contains("thumbnail_url"));
        assert!(photos
            .match_header(&header(&["id", "styleId", "url", "colour"]))
            .unwrap_err()
            .contains("colour"));
    }
}
