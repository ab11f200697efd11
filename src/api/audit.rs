//! The auditor: one hit in many is read again from the database and compared, behind the requests.
//! Runs in: worker.
//!
//! A difference alone says nothing: the product may have changed since. It is kept until the watermark has passed the time of the
//! second reading; if the fence still is what it was at the hit, a change went by that the feed knew nothing of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::fetch::{nothing, FetchError, Fetcher};
use crate::api::shape::Shaper;
use crate::cache::{floor, watermark, Cache, Key, Order, RecordHeader, Token};
use crate::limits::{AUDIT_PATIENCE, AUDIT_WAITING_MAX};
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;

/// What was served.
#[derive(Debug, Clone, Copy)]
struct Sample {
    key: Key,
    token: Token,
    etag: u64,
}

/// A sample that the database answers otherwise, read at a time (CLOCK_BOOTTIME, ns).
#[derive(Debug, Clone, Copy)]
struct Suspect {
    sample: Sample,
    read_ns: u64,
    /// With replicas, how far the reading may have seen: the feed has to have come there.
    upto: u64,
}

/// A worker's auditor.
pub struct Audit {
    cache: Arc<Cache>,
    metrics: SlotMetrics,
    one_in: u64,
    samples: Mutex<Vec<Sample>>,
    suspects: Mutex<Vec<Suspect>>,
    /// A lane is at it.
    is_comparing: AtomicBool,
}

impl Audit {
    /// Compares one in `one_in` hits.
    pub fn new(cache: Arc<Cache>, metrics: SlotMetrics, one_in: u64) -> Arc<Audit> {
        let samples = Mutex::new(Vec::with_capacity(AUDIT_WAITING_MAX));
        Arc::new(Audit {
            cache,
            metrics,
            one_in,
            samples,
            suspects: Mutex::default(),
            is_comparing: AtomicBool::new(false),
        })
    }

    /// Notes the hit if it is the one in many; `hits` counts those before.
    #[inline]
    pub fn sample(&self, hits: u64, header: &RecordHeader) {
        if (hits + 1).is_multiple_of(self.one_in) {
            self.note(Sample { key: header.key, token: header.token, etag: header.etag });
        }
    }

    /// Nobody waits for the lock, and nothing is allocated: a sample more or less is all the same.
    #[cold]
    fn note(&self, sample: Sample) {
        if let Some(mut samples) = self.samples.try_lock() {
            if samples.len() < AUDIT_WAITING_MAX {
                samples.push(sample);
            }
        }
    }

    /// Sends what was noted to a lane, and judges what it found. A few times a second.
    pub fn tick(self: &Arc<Audit>, fetcher: &Fetcher) {
        self.judge(clock::boottime_ns());
        if self.samples.lock().is_empty() || self.is_comparing.swap(true, Ordering::AcqRel) {
            return;
        }
        let audit = self.clone();
        fetcher.run_behind(move |lane| {
            if let Some((fetcher, shaper)) = lane {
                let samples: Vec<Sample> = audit.samples.lock().drain(..).collect();
                // A database that can't be asked is told of elsewhere.
                samples
                    .into_iter()
                    .take_while(|sample| audit.compare(fetcher, shaper, *sample).is_ok())
                    .count();
            }
            audit.is_comparing.store(false, Ordering::Release);
        });
    }

    fn compare(&self, fetcher: &Fetcher, shaper: &mut Shaper, sample: Sample) -> Result<(), FetchError> {
        let mut read = fetcher.reader().views(&[sample.key]).map_err(|e| FetchError::from(&e))?;
        // It may lack what was shown before, and rightly.
        if !read.is_settled {
            return Ok(());
        }
        self.metrics.count(Counter::CacheAudited);
        let view = read.found.remove(&sample.key).unwrap_or_else(|| nothing(sample.key.kind));
        if shaper.dialect().etag(sample.key, &view) != sample.etag {
            let upto = if read.order == Order::Snapshots { 0 } else { read.position };
            self.suspects.lock().push(Suspect { sample, read_ns: clock::boottime_ns(), upto });
        }
        Ok(())
    }

    fn judge(&self, now_ns: u64) {
        let watermark_ns = watermark::watermark_ns(self.cache.arena());
        let patience_ns = AUDIT_PATIENCE.as_nanos() as u64;
        let applied = floor::applied(self.cache.arena());
        self.suspects.lock().retain(|Suspect { sample, read_ns, upto }| {
            if watermark_ns < *read_ns || applied < *upto {
                return now_ns.saturating_sub(*read_ns) < patience_ns;
            }
            if self.cache.token(sample.key) == sample.token {
                self.metrics.count(Counter::CacheInconsistent);
                log::error!(
                    "{:?} was served from the cache and is another one in the database: voided",
                    sample.key
                );
                self.cache.forget(sample.key);
            }
            false
        });
    }
}
