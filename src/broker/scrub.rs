//! Reads all logs of this broker once in a while, slowly, so that damage is found while there is somebody to mend it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::blocking::on_disk;
use super::{Inner, stopped};
use crate::ids::PartitionId;
use crate::log::Log;
use crate::log::disk::Lane;

/// A broker that has just started has better things to do.
const BEGIN_AFTER: Duration = Duration::from_secs(5);
/// Little is not read again and again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// What is read in one go.
const STEP_BYTES: u64 = 256 << 10;

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        () = scrub(&inner) => {}
    }
}

async fn scrub(inner: &Inner) {
    let rate = u64::from(inner.config.limits.scrub_bytes_per_second);
    if rate == 0 {
        return;
    }
    sleep(BEGIN_AFTER).await;
    loop {
        let began = Instant::now();
        let logs: Vec<PartitionId> = inner.replicas.open().iter().map(|replica| replica.id()).collect();
        for id in logs.into_iter().chain([PartitionId::CONTROLLER]) {
            inner.scrub_log(id, rate).await;
        }
        sleep_until(began + AGAIN_AFTER).await;
    }
}

impl Inner {
    async fn scrub_log(&self, id: PartitionId, rate: u64) {
        let log = || -> Option<Arc<Log>> {
            match id {
                PartitionId::CONTROLLER => Some(Arc::clone(self.controller.log())),
                _ => self.replicas.get(id).map(|replica| Arc::clone(replica.log())),
            }
        };
        let mut place = None;
        // Looked up for each step: a partition may go meanwhile.
        while let Some(log) = log() {
            let work = move || log.scrub(place, STEP_BYTES.min(rate));
            let done = match on_disk(&self.env.disk, Lane::Background, work).await {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => {
                    return tracing::warn!(partition = %id, %error, "the scrub could not read a log; it goes on with the next");
                }
                Err(_) => return,
            };
            self.metrics.scrubbed_bytes.inc_by(done.bytes);
            if done.rewritten > 0 {
                self.metrics.rewritten_entries.inc_by(done.rewritten);
                tracing::warn!(partition = %id, entries = done.rewritten, "entries were damaged on the device and whole in memory: they are written again");
            }
            if done.bytes > 0 {
                sleep(Duration::from_secs(1).mul_f64(as_f64(done.bytes) / as_f64(rate))).await;
            }
            place = done.next;
            if place.is_none() {
                return;
            }
        }
    }
}

fn as_f64(bytes: u64) -> f64 {
    // A step is small, and a rate that is not exact is one all the same.
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}
