//! Images of the image service, by its shoe ids.
//! Runs in: worker.

use may_postgres::{Client, Error, ToSql};

use crate::statements::{IMAGES_ADD, IMAGES_CHANGE, IMAGES_RECOMMEND, IMAGES_REMOVE, IMAGES_SHOW};

/// Seven images and two videos; None leaves a column as it is.
pub const COLUMNS: usize = 9;
/// Images that an answer shows.
pub const SHOWN: usize = 5;

/// A shoe and its images.
#[derive(Debug, Clone, PartialEq)]
pub struct ShoeImages {
    pub shoe_id: i64,
    pub addresses: [Option<String>; COLUMNS],
}

impl ShoeImages {
    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let addresses = self.addresses.iter().map(|address| address as &(dyn ToSql + Sync));
        std::iter::once(&self.shoe_id as &(dyn ToSql + Sync)).chain(addresses).collect()
    }
}

/// The first images of a shoe; None when there is no such shoe.
pub fn show(client: &Client, shoe_id: i64) -> Result<Option<Vec<Option<String>>>, Error> {
    let row = client.query_opt(&client.prepare_cached(IMAGES_SHOW)?, &[&shoe_id])?;
    row.map(|row| (0..SHOWN).map(|n| row.try_get(n)).collect()).transpose()
}

/// The first image of each of `shoes` that exists, in their order.
pub fn recommend(client: &Client, shoes: &[i64]) -> Result<Vec<Option<String>>, Error> {
    let rows = client.query(&client.prepare_cached(IMAGES_RECOMMEND)?, &[&shoes])?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

pub fn add(client: &Client, images: &ShoeImages) -> Result<(), Error> {
    client.execute(&client.prepare_cached(IMAGES_ADD)?, &images.params()).map(|_| ())
}

/// Changes a shoe's images; how many rows it has.
pub fn change(client: &Client, images: &ShoeImages) -> Result<u64, Error> {
    client.execute(&client.prepare_cached(IMAGES_CHANGE)?, &images.params())
}

/// Removes a shoe's images; how many rows it had.
pub fn remove(client: &Client, shoe_id: i64) -> Result<u64, Error> {
    client.execute(&client.prepare_cached(IMAGES_REMOVE)?, &[&shoe_id])
}
