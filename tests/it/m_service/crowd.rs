//! Clients that never stop: on connections that they keep, on new ones, with writes, and after pauses. Each failure is noted with its
//! reason.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{Connection, Dice};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    KeepAlive,
    NewConnections,
    Writes,
    /// Keeps its connection, and asks every other second or so.
    Idles,
}

const HABITS: [Habit; 8] = [
    Habit::KeepAlive,
    Habit::KeepAlive,
    Habit::NewConnections,
    Habit::NewConnections,
    Habit::Writes,
    Habit::Writes,
    Habit::Idles,
    Habit::Idles,
];

/// All of them.
pub struct Crowd {
    address: String,
    stop: AtomicBool,
    /// Beginnings and ends of kills so far: odd while one is under way.
    kills: AtomicU64,
    pub served: AtomicU64,
    /// Failures that a kill excuses.
    pub excused: AtomicU64,
    pub failures: Mutex<Vec<String>>,
}

impl Crowd {
    /// Has the crowd ask `address` while `work` is under way.
    pub fn during(address: String, seed: u64, work: impl FnOnce(&Crowd)) -> Crowd {
        let crowd = Crowd {
            address,
            stop: AtomicBool::new(false),
            kills: AtomicU64::new(0),
            served: AtomicU64::new(0),
            excused: AtomicU64::new(0),
            failures: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for (number, habit) in HABITS.into_iter().enumerate() {
                let crowd = &crowd;
                scope.spawn(move || crowd.ask(habit, &mut Dice(seed + number as u64)));
            }
            // Clients that are left would never end.
            let end = EndOf(&crowd.stop);
            work(&crowd);
            drop(end);
        });
        crowd
    }

    /// Has something killed, and waits until it is dead.
    pub fn kill(&self, work: impl FnOnce()) {
        self.kills.fetch_add(1, Ordering::SeqCst);
        work();
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody failed but for a kill.
    pub fn assert_unharmed(&self) {
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
    }

    fn ask(&self, habit: Habit, dice: &mut Dice) {
        let mut kept: Option<(Connection, u64)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            if habit == Habit::Idles {
                self.pause(Duration::from_millis(500 + dice.below(2_500)));
            }
            // One that was closed meanwhile is no good, as every client with a pool knows.
            kept = kept.filter(|(connection, _)| habit != Habit::NewConnections && !connection.is_closed());
            let kills = self.kills.load(Ordering::SeqCst);
            let (mut connection, since) = match kept.take() {
                Some(kept) => kept,
                None => match Connection::try_open(&self.address) {
                    Ok(connection) => (connection, kills),
                    Err(e) => {
                        self.failures.lock().unwrap().push(format!("{habit:?}: connecting: {e}"));
                        continue;
                    }
                },
            };
            let id = dice.below(300) + 1;
            let reply = match habit {
                Habit::Writes => connection.try_request("PUT", &format!("/reviews/{id}/helpful"), &[]),
                _ => connection.try_request("GET", &format!("/products/{id}"), &[]),
            };
            match reply {
                Ok(reply) if reply.status < 300 || reply.status == 404 => {
                    self.served.fetch_add(1, Ordering::Relaxed);
                    let is_last = reply.header("connection").is_some_and(|value| value == "close");
                    kept = (!is_last).then_some((connection, since));
                }
                Ok(reply) => self.fail(habit, since, format!("{} {}", reply.status, reply.text())),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.fail(habit, u64::MAX, "no answer".into()),
                Err(e) => self.fail(habit, since, e.to_string()),
            }
        }
    }

    /// A kill in the connection's life excuses a failure.
    fn fail(&self, habit: Habit, since: u64, why: String) {
        let kills = self.kills.load(Ordering::SeqCst);
        if kills > since || kills % 2 == 1 {
            self.excused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failures.lock().unwrap().push(format!("{habit:?}: {why}"));
        }
    }

    fn pause(&self, time: Duration) {
        let start = std::time::Instant::now();
        while start.elapsed() < time && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct EndOf<'c>(&'c AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
