//! What a server has that can be asked for.
//! Runs in: offline.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::drive::{connect, Sender};

/// For all that is asked here.
const PATIENCE: Duration = Duration::from_secs(60);
/// As many products as a list has at most.
const PAGE: usize = 10_000;
/// No catalogue has as many.
const PRODUCTS_MAX: u64 = 1 << 40;
/// Of a catalogue with gaps so many ids are asked for.
const IDS_MAX: usize = 1_000_000;
/// The first of so many products that has a sku lends it to the cart.
const SKU_OF: u64 = 20;

/// Ids of products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// 1 to this one.
    UpTo(u64),
    These(Vec<u64>),
}

impl Ids {
    pub fn count(&self) -> u64 {
        match self {
            Ids::UpTo(last) => *last,
            Ids::These(ids) => ids.len() as u64,
        }
    }

    /// The nth, from 0 in the order of the ids.
    pub fn nth(&self, n: u64) -> u64 {
        match self {
            Ids::UpTo(_) => n + 1,
            Ids::These(ids) => ids[n as usize],
        }
    }
}

#[derive(Debug, Clone)]
pub struct Catalogue {
    pub ids: Ids,
    /// What is put into carts; None: no product that was looked at has one.
    pub sku: Option<u64>,
}

/// Looks at the server's catalogue; `known`: it has products 1 to this one.
///
/// # Errors
/// A server that can't be reached, or is none of this kind.
pub fn survey(address: &str, known: Option<u64>) -> Result<Catalogue> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let surveying = async {
        let mut client = Client { sender: connect(address).await?, address };
        let ids = match known {
            Some(last) => Ids::UpTo(last),
            None => client.ids().await?,
        };
        let sku = client.sku(&ids).await?;
        Ok(Catalogue { ids, sku })
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, surveying).await.context("it does not answer")?
    })
}

struct Client<'a> {
    sender: Sender,
    address: &'a str,
}

impl Client<'_> {
    /// None: there is no such thing.
    async fn get(&mut self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).header("Host", self.address);
        self.sender.ready().await?;
        let reply = self.sender.send_request(request.body(Full::default())?).await?;
        let status = reply.status();
        let body = reply.into_body().collect().await?.to_bytes();
        if status.as_u16() == 404 {
            return Ok(None);
        }
        ensure!(status.is_success(), "GET {path} was answered {status}");
        Ok(Some(serde_json::from_slice(&body).context("this is no Atelier API")?))
    }

    async fn page(&mut self, page: u64, count: usize) -> Result<Vec<u64>> {
        let found = self.get(&format!("/products?page={page}&count={count}")).await?.unwrap_or_default();
        let products = found.as_array().context("this is no Atelier API: /products is no list")?;
        Ok(products.iter().filter_map(|product| product["id"].as_u64()).collect())
    }

    /// How many there are tells whether the last one's id says it all.
    async fn ids(&mut self) -> Result<Ids> {
        let (mut least, mut most, mut last) = (0u64, 1u64, 0u64);
        while let Some(id) = self.page(most, 1).await?.first() {
            ensure!(most < PRODUCTS_MAX, "its list of products does not end: it takes no `page`");
            (least, most, last) = (most, most * 4, *id);
        }
        while least + 1 < most {
            let middle = least + (most - least) / 2;
            match self.page(middle, 1).await?.first() {
                Some(id) => (least, last) = (middle, *id),
                None => most = middle,
            }
        }
        if last == least {
            return Ok(Ids::UpTo(last));
        }
        let mut ids = Vec::new();
        for page in 1.. {
            let found = self.page(page, PAGE).await?;
            ids.extend(&found);
            if found.len() < PAGE || ids.len() >= IDS_MAX {
                break;
            }
        }
        Ok(Ids::These(ids))
    }

    async fn sku(&mut self, ids: &Ids) -> Result<Option<u64>> {
        for n in 0..SKU_OF.min(ids.count()) {
            let styles = self.get(&format!("/products/{}/styles", ids.nth(n))).await?.unwrap_or_default();
            let styles = styles["results"].as_array().cloned().unwrap_or_default();
            let skus =
                styles.iter().filter_map(|style| style["skus"].as_object()).flat_map(|skus| skus.keys());
            if let Some(sku) = skus.filter_map(|sku| sku.parse().ok()).next() {
                return Ok(Some(sku));
            }
        }
        Ok(None)
    }
}
