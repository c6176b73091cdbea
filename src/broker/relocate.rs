//! Moves replicas that nobody moves by name: away from drained brokers, and to brokers that hold less than others. The controller's leader does.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::steward::Attendance;
use crate::machine::controller::Controller;
use crate::machine::controller::balance::Presence;

/// How often it looks: all partitions are counted each time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Inner {
    /// Begins the moves that are due, a few at a time.
    pub(super) async fn relocate(&self, attendance: &mut Attendance) {
        let is_soon = attendance.relocated.is_some_and(|last| last.elapsed() < LOOK_EVERY);
        if is_soon || self.among.is_none() || !self.controller.leads() {
            return;
        }
        attendance.relocated = Some(Instant::now());
        let presence = Presence { steady: attendance.steady(), lost: attendance.lost() };
        let evens_out = self.config.cluster.balance;
        if self.controller.read(|controller| controller.decide_moves(&presence, evens_out)).is_empty() {
            return;
        }
        let decide = |controller: &Controller| {
            let records = controller.decide_moves(&presence, evens_out);
            let count = records.len();
            Ok::<_, Infallible>((records, count))
        };
        match self.controller.change(decide).await {
            Ok(count) => tracing::info!(count, "moving replicas to even out what brokers hold"),
            Err(error) => tracing::debug!(%error, "replicas could not be moved; it is tried again"),
        }
    }
}
