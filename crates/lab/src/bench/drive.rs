//! The driver: a clock that says when requests are due, and connections that send them. A request that finds all connections busy waits, and
//! that it waits is measured.
//! Runs in: offline.
//!
//! ```text
//! clock (the caller's thread) ──due──► shards (a thread each): queue ──► connections (tasks) ──► what came of it
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
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
use super::outcome::{slice_s, Outcome};

/// The clock sleeps for no less: requests due within it are handed over together.
const TURN: Duration = Duration::from_micros(200);
/// After the last request is due, answers are waited for so long.
const GRACE: Duration = Duration::from_secs(5);
/// A server that does not answer at all.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// So many requests wait for a connection of one thread; what is due then is given up at once.
const QUEUE_MAX: usize = 1_000_000;

pub type Sender = SendRequest<Full<Bytes>>;

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
    /// That the connections are divided among.
    pub threads: usize,
    pub seed: u64,
}

struct Due {
    at: Instant,
    /// The part of the time that it is due in; None: it does not count.
    slice: Option<usize>,
    ask: Ask,
}

/// What a thread with its connections has to do.
struct Shard {
    queue: Mutex<VecDeque<Due>>,
    ready: Semaphore,
    /// Requests that it got and that count.
    due: AtomicU64,
    /// There will be no more.
    is_all: AtomicBool,
}

impl Shard {
    fn new() -> Shard {
        let (due, is_all) = (AtomicU64::new(0), AtomicBool::new(false));
        Shard { queue: Mutex::default(), ready: Semaphore::new(0), due, is_all }
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Due>) -> T) -> T {
        work(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Drives the server for the plan's time.
///
/// # Errors
/// A server that can't be connected to.
pub fn drive(plan: &Plan, mix: &Mix) -> Result<Outcome> {
    // Who can't be connected to at all is told at once.
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, connect(&plan.address))?;
    let shards: Vec<Arc<Shard>> = (0..plan.threads).map(|_| Arc::new(Shard::new())).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let drivers: Vec<_> = shards
            .iter()
            .enumerate()
            .map(|(n, shard)| {
                let connections =
                    plan.connections / plan.threads + usize::from(n < plan.connections % plan.threads);
                scope.spawn(move || drive_shard(plan, shard.clone(), connections, start))
            })
            .collect();
        let mut outcome = tick(plan, mix, start, &shards);
        for driver in drivers {
            outcome.add(driver.join().map_err(|_| anyhow!("a thread of the driver has failed"))??);
        }
        // A clock that is that late has handed them to nobody.
        shards.iter().for_each(|shard| give_up_waiting(shard, &mut outcome));
        Ok(outcome)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the driver")
}

/// Hands over what is due, when it is. Returns what could not be.
fn tick(plan: &Plan, mix: &Mix, start: Instant, shards: &[Arc<Shard>]) -> Outcome {
    let (mut lost, began) = (Outcome::new(plan), (Instant::now(), cpu_ns()));
    let mut dice = SmallRng::seed_from_u64(plan.seed);
    let (interval, all_s) = (1.0 / plan.rate, (plan.warm_up + plan.time).as_secs_f64());
    let end = start + plan.warm_up + plan.time + GRACE;
    let due_s = |n: u64| n as f64 * interval;
    let mut n = 0u64;
    while due_s(n) < all_s {
        let now_s = start.elapsed().as_secs_f64();
        let mut batches: Vec<Vec<Due>> = shards.iter().map(|_| Vec::new()).collect();
        while due_s(n) <= now_s && due_s(n) < all_s {
            let measured_s = due_s(n) - plan.warm_up.as_secs_f64();
            let slice = (measured_s >= 0.0).then_some((measured_s / slice_s(plan)) as usize);
            let at = start + Duration::from_secs_f64(due_s(n));
            batches[n as usize % shards.len()].push(Due { at, slice, ask: mix.ask(&mut dice) });
            n += 1;
        }
        for (shard, mut batch) in shards.iter().zip(batches) {
            let room = QUEUE_MAX - shard.with(|queue| queue.len()).min(QUEUE_MAX);
            for due in batch.drain(room.min(batch.len())..) {
                let age_us = (end - due.at).as_micros() as u64;
                due.slice.into_iter().for_each(|slice| lost.give_up(due.ask.kind, slice, age_us));
            }
            let counted = batch.iter().filter(|due| due.slice.is_some()).count() as u64;
            shard.due.fetch_add(counted, Ordering::Relaxed);
            let len = batch.len();
            shard.with(|queue| queue.extend(batch));
            shard.ready.add_permits(len);
        }
        let next = Duration::from_secs_f64(due_s(n)).saturating_sub(start.elapsed());
        std::thread::sleep(next.max(TURN));
    }
    lost.driver_busy = busy_since(began);
    // After the counts that it makes final.
    shards.iter().for_each(|shard| shard.is_all.store(true, Ordering::Release));
    lost
}

/// One thread's part.
fn drive_shard(plan: &Plan, shard: Arc<Shard>, connections: usize, start: Instant) -> Result<Outcome> {
    let over = start + plan.warm_up + plan.time;
    let outcome = Rc::new(RefCell::new(Outcome::new(plan)));
    let under_way: Rc<UnderWay> = Rc::new(RefCell::new(vec![None; connections]));
    let (runtime, tasks) = (runtime()?, LocalSet::new());
    tasks.block_on(&runtime, async {
        for number in 0..connections {
            let connection = Connection {
                number,
                over,
                address: plan.address.clone(),
                sender: None,
                shard: shard.clone(),
                under_way: under_way.clone(),
                outcome: outcome.clone(),
            };
            spawn_local(connection.run());
        }
        let began = (Instant::now(), cpu_ns());
        let is_done = || {
            shard.is_all.load(Ordering::Acquire)
                && outcome.borrow().known() >= shard.due.load(Ordering::Relaxed)
        };
        while !is_done() && Instant::now() < over + GRACE {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if Instant::now() <= over {
                outcome.borrow_mut().driver_busy = busy_since(began);
            }
        }
        let mut outcome = outcome.borrow_mut();
        give_up_waiting(&shard, &mut outcome);
        for (at, kind, slice) in under_way.borrow().iter().flatten() {
            outcome.give_up(*kind, *slice, at.elapsed().as_micros() as u64);
        }
    });
    drop(tasks);
    let outcome = Rc::try_unwrap(outcome).ok().context("tasks have ended")?;
    Ok(outcome.into_inner())
}

fn give_up_waiting(shard: &Shard, outcome: &mut Outcome) {
    for Due { at, slice, ask } in shard.with(std::mem::take) {
        let age_us = at.elapsed().as_micros() as u64;
        slice.into_iter().for_each(|slice| outcome.give_up(ask.kind, slice, age_us));
    }
}

/// How long this thread was on a CPU or waited for one, in ns (the kernel's scheduler statistics).
fn cpu_ns() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut words = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    Some(words.next()? + words.next()?)
}

fn busy_since((at, ns): (Instant, Option<u64>)) -> Option<f64> {
    let wall_ns = at.elapsed().as_nanos().max(1) as f64;
    Some(cpu_ns()?.saturating_sub(ns?) as f64 / wall_ns)
}

/// Of each connection: when its request was due, its kind, and the part of the time.
type UnderWay = RefCell<Vec<Option<(Instant, usize, usize)>>>;

/// One connection to the server, opened anew when it is lost.
struct Connection {
    number: usize,
    /// When the plan's time is.
    over: Instant,
    address: String,
    sender: Option<Sender>,
    shard: Arc<Shard>,
    under_way: Rc<UnderWay>,
    outcome: Rc<RefCell<Outcome>>,
}

impl Connection {
    async fn run(mut self) {
        let shard = self.shard.clone();
        loop {
            let Ok(permit) = shard.ready.acquire().await else { return };
            permit.forget();
            let Some(due) = shard.with(VecDeque::pop_front) else { continue };
            let waited_us = due.at.elapsed().as_micros() as u64;
            self.under_way.borrow_mut()[self.number] = due.slice.map(|slice| (due.at, due.ask.kind, slice));
            let answer = self.send(&due.ask).await;
            self.under_way.borrow_mut()[self.number] = None;
            let Some(slice) = due.slice else { continue };
            let mut outcome = self.outcome.borrow_mut();
            outcome.waited.saturating_record(waited_us.max(1));
            let latency_us = due.at.elapsed().as_micros() as u64;
            let Ask { kind, method, path, .. } = due.ask;
            match answer {
                Ok(()) => outcome.add_success(kind, slice, latency_us, Instant::now() <= self.over),
                Err(e) => outcome.add_error(kind, slice, || format!("{method} {path}: {e:#}")),
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
        let request = request.body(Full::new(Bytes::from(ask.body.clone())))?;
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

/// A connection, served by this thread's tasks.
///
/// # Errors
/// That there is nobody, or nobody who answers.
pub async fn connect(address: &str) -> Result<Sender> {
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
