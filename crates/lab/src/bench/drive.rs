//! The driver: a clock that says when requests are due, and connections that send them. A request that finds all connections busy waits, and
//! that it waits is measured.
//! Runs in: offline.
//!
//! ```text
//! clock (a thread of its own) ──due──► queue ──► connection 1 … n (tasks of one thread) ──► histograms, by kind and by second
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{handshake, SendRequest};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::SeedableRng;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{spawn_local, LocalSet};

use super::mix::{Ask, Mix, KINDS};

/// The clock sleeps for no less: requests due within it are handed over together.
const TURN: Duration = Duration::from_micros(200);
/// What takes longer is as bad as this.
const LATENCY_MAX_US: u64 = 60_000_000;
/// After the last request is due, answers are waited for so long.
const GRACE: Duration = Duration::from_secs(5);
/// A server that does not answer at all.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The same for counting its products, some forty requests.
const COUNT_MAX: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Host and port.
    pub address: String,
    /// Requests a second.
    pub rate: f64,
    pub warm_up: Duration,
    /// That is measured.
    pub time: Duration,
    pub connections: usize,
    pub seed: u64,
}

/// Of one kind of request.
pub struct KindOutcome {
    /// Latency from when each was due, in µs.
    pub latency: Histogram<u64>,
    /// Answers that were no success, and requests that got none.
    pub errors: u64,
    /// Requests without an answer at the end; their latency is their age then.
    pub unanswered: u64,
}

/// What came of it.
pub struct Outcome {
    /// In the order of [`KINDS`].
    pub kinds: Vec<KindOutcome>,
    /// Latencies of those due in each second.
    pub seconds: Vec<Histogram<u64>>,
    /// Answers that came before the plan's time was over.
    pub in_time: u64,
    /// The first error, as it was.
    pub first_error: Option<String>,
}

impl Outcome {
    pub fn all(&self) -> Histogram<u64> {
        let mut all = histogram(3);
        for kind in &self.kinds {
            // Of the same bounds.
            let _ = all.add(&kind.latency);
        }
        all
    }

    pub fn errors(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.errors + kind.unanswered).sum()
    }

    pub fn unanswered(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.unanswered).sum()
    }

    /// Requests a second that were answered while it lasted.
    pub fn answered_per_s(&self, plan: &Plan) -> f64 {
        self.in_time as f64 / plan.time.as_secs_f64()
    }

    /// Notes a request that is still waiting.
    fn give_up(&mut self, at: Instant, kind: usize) {
        self.kinds[kind].unanswered += 1;
        self.kinds[kind].latency.saturating_record(latency_us(at));
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, digits).expect("bounds that fit")
}

fn latency_us(at: Instant) -> u64 {
    (at.elapsed().as_micros() as u64).clamp(1, LATENCY_MAX_US)
}

struct Due {
    at: Instant,
    /// Whether it counts, and the second that it is due in.
    second: Option<usize>,
    ask: Ask,
}

#[derive(Default)]
struct Queue(Mutex<VecDeque<Due>>);

impl Queue {
    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Due>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Drives the server for the plan's time.
///
/// # Errors
/// A server that can't be connected to.
pub fn drive(plan: &Plan, mix: &Mix) -> Result<Outcome> {
    let (queue, ready) = (Arc::new(Queue::default()), Arc::new(Semaphore::new(0)));
    let seconds = plan.time.as_secs_f64().ceil() as usize;
    let outcome = Rc::new(RefCell::new(Outcome {
        kinds: KINDS
            .iter()
            .map(|_| KindOutcome { latency: histogram(3), errors: 0, unanswered: 0 })
            .collect(),
        seconds: (0..seconds.max(1)).map(|_| histogram(2)).collect(),
        in_time: 0,
        first_error: None,
    }));
    let runtime = Builder::new_current_thread().enable_all().build().context("starting the driver")?;
    let tasks = LocalSet::new();
    let under_way: Rc<UnderWay> = Rc::new(RefCell::new(vec![None; plan.connections]));
    std::thread::scope(|scope| {
        tasks.block_on(&runtime, async {
            // Who can't be connected to at all is told at once.
            let first = connect(&plan.address).await?;
            let mut first = Some(first);
            let start = Instant::now();
            for number in 0..plan.connections {
                let worker = Connection {
                    number,
                    over: start + plan.warm_up + plan.time,
                    under_way: under_way.clone(),
                    address: plan.address.clone(),
                    sender: first.take(),
                    queue: queue.clone(),
                    ready: ready.clone(),
                    outcome: outcome.clone(),
                };
                spawn_local(worker.run());
            }
            let (clock_queue, clock_ready) = (queue.clone(), ready.clone());
            let clock = scope.spawn(move || tick(plan, mix, start, &clock_queue, &clock_ready));
            while !clock.is_finished() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let due = clock.join().unwrap_or(0);
            let deadline = Instant::now() + GRACE;
            let answered = |outcome: &Outcome| {
                let kinds = outcome.kinds.iter();
                kinds.map(|kind| kind.latency.len() + kind.errors).sum::<u64>()
            };
            while answered(&outcome.borrow()) < due && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut outcome = outcome.borrow_mut();
            queue.with(|queue| {
                let waiting = queue.drain(..).filter(|due| due.second.is_some());
                waiting.for_each(|due| outcome.give_up(due.at, due.ask.kind));
            });
            under_way.borrow().iter().flatten().for_each(|(at, kind)| outcome.give_up(*at, *kind));
            Ok::<(), anyhow::Error>(())
        })
    })?;
    drop(tasks);
    let outcome = Rc::try_unwrap(outcome).ok().context("tasks have ended")?;
    Ok(outcome.into_inner())
}

/// Hands over what is due, when it is. Returns how many requests count.
fn tick(plan: &Plan, mix: &Mix, start: Instant, queue: &Queue, ready: &Semaphore) -> u64 {
    let mut dice = SmallRng::seed_from_u64(plan.seed);
    let (interval, all) = (1.0 / plan.rate, (plan.warm_up + plan.time).as_secs_f64());
    let (mut n, mut counted) = (0u64, 0);
    loop {
        let now = start.elapsed().as_secs_f64();
        let mut batch = Vec::new();
        while n as f64 * interval <= now && (n as f64 * interval) < all {
            let at_s = n as f64 * interval;
            let measured_s = at_s - plan.warm_up.as_secs_f64();
            let second = (measured_s >= 0.0).then_some(measured_s as usize);
            counted += u64::from(second.is_some());
            batch.push(Due { at: start + Duration::from_secs_f64(at_s), second, ask: mix.ask(&mut dice) });
            n += 1;
        }
        let len = batch.len();
        queue.with(|queue| queue.extend(batch));
        ready.add_permits(len);
        if n as f64 * interval >= all {
            return counted;
        }
        let next = Duration::from_secs_f64(n as f64 * interval).saturating_sub(start.elapsed());
        std::thread::sleep(next.max(TURN));
    }
}

/// When the request of each connection was due, and its kind.
type UnderWay = RefCell<Vec<Option<(Instant, usize)>>>;

/// One connection to the server, opened anew when it is lost.
struct Connection {
    number: usize,
    /// When the plan's time is.
    over: Instant,
    under_way: Rc<UnderWay>,
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
    queue: Arc<Queue>,
    ready: Arc<Semaphore>,
    outcome: Rc<RefCell<Outcome>>,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let Ok(permit) = self.ready.acquire().await else { return };
            permit.forget();
            let Some(due) = self.queue.with(VecDeque::pop_front) else { continue };
            self.under_way.borrow_mut()[self.number] = due.second.map(|_| (due.at, due.ask.kind));
            let answer = self.send(&due.ask).await;
            self.under_way.borrow_mut()[self.number] = None;
            let Some(second) = due.second else { continue };
            let latency_us = latency_us(due.at);
            let mut outcome = self.outcome.borrow_mut();
            match answer {
                Ok(()) => {
                    outcome.in_time += u64::from(Instant::now() <= self.over);
                    outcome.kinds[due.ask.kind].latency.saturating_record(latency_us);
                    let last = outcome.seconds.len() - 1;
                    outcome.seconds[second.min(last)].saturating_record(latency_us);
                }
                Err(e) => {
                    outcome.kinds[due.ask.kind].errors += 1;
                    outcome
                        .first_error
                        .get_or_insert_with(|| format!("{} {}: {e:#}", due.ask.method, due.ask.path));
                }
            }
        }
    }

    async fn send(&mut self, ask: &Ask) -> Result<()> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => connect(&self.address).await?,
        };
        let request = Request::builder().method(ask.method).uri(&ask.path).header("Host", &self.address);
        let request =
            request.header("Accept-Encoding", "gzip, deflate, br").header("Content-Type", "application/json");
        let request = request.body(Full::new(Bytes::from_static(ask.body.as_bytes())))?;
        sender.ready().await?;
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        let mut body = reply.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        self.sender = Some(sender);
        let is_missing = status.as_u16() == 404 && KINDS[ask.kind].0.may_be_missing();
        ensure!(status.is_success() || is_missing, "{status}");
        Ok(())
    }
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>> {
    let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address));
    let stream = connecting
        .await
        .context("connecting takes too long")?
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(sender)
}

/// How many products a server has: the last page of one that has any.
///
/// # Errors
/// A server that can't be reached, or is none of this kind.
pub fn count_products(address: &str) -> Result<u64> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let counting = async {
        let mut sender = connect(address).await?;
        let (mut least, mut most) = (0u64, 1u64);
        while has_page(&mut sender, address, most).await? {
            (least, most) = (most, most * 4);
        }
        while least + 1 < most {
            let middle = least + (most - least) / 2;
            match has_page(&mut sender, address, middle).await? {
                true => least = middle,
                false => most = middle,
            }
        }
        Ok(least)
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(COUNT_MAX, counting).await.context("it does not answer")?
    })
}

async fn has_page(sender: &mut SendRequest<Full<Bytes>>, address: &str, page: u64) -> Result<bool> {
    let request = Request::get(format!("/products?page={page}&count=1")).header("Host", address);
    sender.ready().await?;
    let reply = sender.send_request(request.body(Full::default())?).await?;
    let status = reply.status();
    let body = reply.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("GET /products was answered {status}");
    }
    let products: Vec<serde_json::Value> = serde_json::from_slice(&body).context("this is no Atelier API")?;
    Ok(!products.is_empty())
}
