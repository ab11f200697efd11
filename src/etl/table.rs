//! The archive's files: their columns, where they go, and what each cell must be.
//! Runs in: offline.

/// What a cell must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// The row's own id.
    Id,
    /// An id that the parent's file has loaded.
    Parent(Parent),
    Text,
    TextOrNull,
    Price,
    PriceOrNull,
    NumberOrNull,
    Boolean,
}

/// Whose id a cell refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    Product,
    /// A product that a row relates to: 0 is a reason of its own.
    RelatedProduct,
    Style,
}

impl Parent {
    pub fn missing(self) -> &'static str {
        match self {
            Parent::Product | Parent::RelatedProduct => "product does not exist",
            Parent::Style => "style does not exist",
        }
    }
}

/// A column: name in the database, names in headers (lower case, without `_` and blanks), content.
pub struct Column {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub cell: Cell,
}

/// A file of the archive.
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

/// The product files, parents before children.
pub const TABLES: &[Table] = &[
    Table {
        file: "product",
        name: "products",
        is: Some(Parent::Product),
        columns: &[
            column("id", &["id"], Cell::Id),
            column("name", &["name"], Cell::Text),
            column("slogan", &["slogan"], Cell::Text),
            column("description", &["description"], Cell::Text),
            column("category", &["category"], Cell::Text),
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
];

/// A header's name as aliases are written.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Table {
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
