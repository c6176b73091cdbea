//! How fast this broker fills new replicas: so many bytes a second over all of them, so that clients do not wait for it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What may go at once after a rest.
const BURST: Duration = Duration::from_millis(100);

/// Hands out bytes at a rate, to whoever comes first.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; none: as fast as it goes.
    rate: Option<u64>,
    /// When all that was handed out has had its time.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many bytes a second; 0: as fast as it goes.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { rate: Some(bytes_per_second).filter(|rate| *rate > 0), free: Mutex::default() }
    }

    /// Waits for the turn of so many bytes.
    pub fn take(&self, bytes: usize) -> impl Future<Output = ()> + Send + use<> {
        let turn = self.turn(bytes, Instant::now());
        async move {
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
        }
    }

    fn turn(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        let mut free = self.free.lock().expect("no panic under the lock of a moment");
        let from = free.map_or(now, |free| free.max(now));
        let bytes = u64::try_from(bytes).expect("a length fits");
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        *free = Some(from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        from.checked_sub(BURST).filter(|turn| *turn > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_at_their_rate_and_a_rest_is_not_made_up_for() {
        let (pace, now) = (Pace::new(1_000_000), Instant::now());
        let wait = |bytes, at: Instant| pace.turn(bytes, at).map_or(Duration::ZERO, |turn| turn - at);
        assert_eq!(wait(100_000, now), Duration::ZERO);
        assert_eq!(wait(900_000, now), Duration::ZERO, "a little may go at once");
        assert_eq!(wait(1, now), Duration::from_millis(900));
        let later = now + Duration::from_secs(60);
        assert_eq!(wait(2_000_000, later), Duration::ZERO);
        assert_eq!(wait(1, later), Duration::from_millis(1_900));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let (pace, now) = (Pace::new(0), Instant::now());
        assert!((0..10).all(|_| pace.turn(1 << 30, now).is_none()));
    }
}
