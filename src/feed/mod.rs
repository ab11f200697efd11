//! The change feed, one process a box: what the database's triggers noted becomes raised fences, and the time up to which that is
//! so becomes the watermark.
//! Runs in: feed.
//!
//! Its death, a stop, or a lost connection leave the watermark as it is, and lookups stop trusting the cache: nobody has to notice.

pub mod follow;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use may_postgres::Reconnect;

use crate::db;
use crate::heritage::Heritage;
use crate::limits::{
    BEAT_PERIOD, FEED_CHANGES_LINGER, FEED_PAUSE_CHANGES, FEED_PAUSE_IDLE, FEED_PAUSE_LOST,
    FEED_PAUSE_REQUESTS, FEED_TIMEOUT,
};
use crate::metrics::{Counter, MetricsPage};
use crate::os::fd::{wait_readable, Command, Commands};
use crate::os::signal::Termination;
use crate::os::{fork, sched};
use crate::runtime;
use crate::slots::{Phase, Slots};
use follow::{Follower, Outcome};

/// How often it is looked at whether requests come in.
const TRAFFIC_PERIOD: Duration = Duration::from_millis(100);

/// Runs the feed until it is told to end, or its master is gone. Returns the exit status.
pub fn run(heritage: &Heritage, slot: usize, mut commands: Commands) -> i32 {
    let slots = heritage.slots.clone();
    runtime::leave_last_words(slots.clone(), slot);
    // SIGTERM may be meant for the whole group: the master says when the last worker has drained.
    let _termination = Termination::open().expect("a fresh process can open a signalfd");
    slots.set_pid(slot, fork::own_pid().as_raw());
    fork::set_name("catwalk-feed");
    // It competes with workers that never sleep under load; what it waits for, answers wait for.
    sched::run_soon();
    runtime::configure();
    let mut address = match db::address(&heritage.config.database_url, "catwalk feed") {
        Ok(address) => address,
        Err(e) => {
            log::error!("feed: {e}");
            return 1;
        }
    };
    address.request_timeout = Some(FEED_TIMEOUT);
    address.connect_timeout = address.connect_timeout.min(FEED_TIMEOUT);
    let connection = Arc::new(Reconnect::new(address));
    let follower = Follower::new(heritage.arena.clone(), heritage.metrics.slot(slot));
    let follow = Follow {
        follower,
        connection: connection.clone(),
        slots,
        slot,
        pace: Pace::new(heritage.metrics.clone()),
    };
    thread::Builder::new()
        .name("feed".into())
        .spawn(move || follow.run())
        .expect("a fresh process can make a thread");
    loop {
        // A statement without an answer fails at its deadline; looked for here, because the other thread waits for it.
        if let Ok(client) = connection.client() {
            client.tick();
        }
        let [commanded] = wait_readable([commands.fd()], BEAT_PERIOD);
        while let Some(command) = commanded.then(|| commands.take()).flatten() {
            if matches!(command, Command::Drain | Command::Orphaned) {
                return 0;
            }
        }
    }
}

/// The thread that follows.
struct Follow {
    follower: Follower,
    connection: Arc<Reconnect>,
    slots: Slots,
    slot: usize,
    pace: Pace,
}

impl Follow {
    fn run(mut self) {
        loop {
            self.slots.beat(self.slot);
            let outcome = match self.connection.maintain().then(|| self.connection.client()) {
                Some(Ok(client)) => self.follower.look(&client),
                _ => self.follower.lose("the database can't be reached"),
            };
            if outcome != Outcome::Lost {
                self.slots.set_phase(self.slot, Phase::Following);
            }
            thread::sleep(self.pace.pause(outcome));
        }
    }
}

/// How long to wait for the next look: less while there is something to see, or somebody to see it.
struct Pace {
    metrics: MetricsPage,
    changed: Option<Instant>,
    counted: Instant,
    requests: u64,
    busy: bool,
}

impl Pace {
    fn new(metrics: MetricsPage) -> Pace {
        Pace { metrics, changed: None, counted: Instant::now(), requests: 0, busy: false }
    }

    fn pause(&mut self, outcome: Outcome) -> Duration {
        let now = Instant::now();
        match outcome {
            Outcome::Lost => return FEED_PAUSE_LOST,
            Outcome::Changes => self.changed = Some(now),
            Outcome::Quiet => {}
        }
        if now - self.counted >= TRAFFIC_PERIOD {
            let requests = self.metrics.total(Counter::Requests);
            self.busy = requests != self.requests;
            (self.requests, self.counted) = (requests, now);
        }
        match self.changed {
            Some(changed) if now - changed < FEED_CHANGES_LINGER => FEED_PAUSE_CHANGES,
            _ if self.busy => FEED_PAUSE_REQUESTS,
            _ => FEED_PAUSE_IDLE,
        }
    }
}
