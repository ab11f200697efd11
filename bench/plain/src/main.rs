//! Votes and new reviews as most would write them: axum, a pool of tokio-postgres connections, a transaction a request.
//! Usage: plain DATABASE_URL CONNECTIONS; prints its address.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Json, Router};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use serde::Deserialize;
use tokio_postgres::NoTls;

#[derive(Deserialize)]
struct Review {
    product_id: i64,
    rating: i16,
    summary: String,
    body: String,
    recommend: bool,
    name: String,
    email: String,
    photos: Vec<String>,
    characteristics: BTreeMap<String, i16>,
}

type Outcome = Result<StatusCode, StatusCode>;

fn failed<E>(_: E) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn mark_helpful(State(pool): State<Pool>, Path(id): Path<i64>) -> Outcome {
    let mut client = pool.get().await.map_err(failed)?;
    let statement = client.prepare_cached("update reviews set helpfulness = helpfulness + 1 where id = $1");
    let statement = statement.await.map_err(failed)?;
    let transaction = client.transaction().await.map_err(failed)?;
    let rows = transaction.execute(&statement, &[&id]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    if rows == 1 { Ok(StatusCode::NO_CONTENT) } else { Err(StatusCode::NOT_FOUND) }
}

async fn add(State(pool): State<Pool>, Json(review): Json<Review>) -> Outcome {
    let mut client = pool.get().await.map_err(failed)?;
    let insert = "insert into reviews (product_id, rating, summary, body, recommend, reviewer_name, reviewer_email)
                  values ($1, $2, $3, $4, $5, $6, $7) returning id";
    let insert = client.prepare_cached(insert).await.map_err(failed)?;
    let photo = client.prepare_cached("insert into reviews_photos (review_id, url) values ($1, $2)");
    let photo = photo.await.map_err(failed)?;
    let rating = "insert into characteristic_reviews (characteristic_id, review_id, value) values ($1, $2, $3)";
    let rating = client.prepare_cached(rating).await.map_err(failed)?;
    let transaction = client.transaction().await.map_err(failed)?;
    let Review { product_id, rating: stars, summary, body, recommend, name, email, photos, characteristics } = review;
    let row = transaction
        .query_one(&insert, &[&product_id, &stars, &summary, &body, &recommend, &name, &email])
        .await
        .map_err(failed)?;
    let id: i64 = row.get(0);
    for url in &photos {
        transaction.execute(&photo, &[&id, url]).await.map_err(failed)?;
    }
    for (characteristic, value) in &characteristics {
        let characteristic: i64 = characteristic.parse().map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
        transaction.execute(&rating, &[&characteristic, &id, value]).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (url, connections) = (args.next().expect("DATABASE_URL"), args.next().expect("CONNECTIONS"));
    let config = url.parse().expect("an address of PostgreSQL");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, NoTls, recycling);
    let size = connections.parse().expect("a number");
    let pool = Pool::builder(manager).max_size(size).build().expect("a pool");
    let app = Router::new().route("/reviews/{id}/helpful", put(mark_helpful)).route("/reviews", post(add)).with_state(pool);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    axum::serve(listener, app).await.expect("it serves");
}
