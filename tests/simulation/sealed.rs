//! A thread on which the system's clock stands where the simulation says, and the system's randomness comes from the seed.
//!
//! What a run does must follow from its seed alone. The brokers ask nobody but their seams; libraries below them ask the system: how long ago a stream was
//! reset (h2), whom to wake first (tokio's watch channels), how to hash. So each run has a thread of its own, which has drawn nothing yet, and the two
//! questions that all of them come down to are answered here: the process's own `clock_gettime` and `getrandom` take the place of the system's library's.
//! Every other thread gets the system's own answer.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::Duration;

use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, clock_gettime as clock};

/// When every run begins, by every clock.
const BEGINS: Duration = Duration::from_secs(1_700_000_000);

#[derive(Clone, Copy)]
struct Seal {
    elapsed: Duration,
    draws: u64,
}

thread_local! {
    static SEAL: Cell<Option<Seal>> = const { Cell::new(None) };
}

/// Runs `work` on a thread that is sealed with `seed`.
pub fn run<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> T {
    let sealed = || {
        SEAL.set(Some(Seal { elapsed: Duration::ZERO, draws: seed }));
        work()
    };
    std::thread::scope(|scope| scope.spawn(sealed).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// The simulation of this thread has come so far.
pub fn advance(elapsed: Duration) {
    SEAL.set(SEAL.get().map(|seal| Seal { elapsed, ..seal }));
}

/// The form in which the system's library tells the time.
#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

fn time(id: i32) -> Option<Time> {
    if let Some(seal) = SEAL.get() {
        let now = BEGINS + seal.elapsed;
        let seconds = i64::try_from(now.as_secs()).expect("a short simulation");
        return Some(Time { seconds, nanoseconds: now.subsec_nanos().into() });
    }
    let id = match id {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        7 => ClockId::Boottime,
        _ => return None,
    };
    let now = clock(id);
    Some(Time { seconds: now.tv_sec, nanoseconds: now.tv_nsec })
}

/// The system's library's function of that name.
///
/// # Safety
/// `out` is a `timespec` of the caller's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(id: i32, out: *mut Time) -> i32 {
    let Some(time) = time(id) else { return -1 };
    // SAFETY: as above; `Time` is laid out as a `timespec` of a 64-bit Linux.
    unsafe { out.write(time) };
    0
}

/// The system's library's function of that name.
///
/// # Safety
/// `out` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(out: *mut u8, length: usize, flags: u32) -> isize {
    let mut bytes = vec![0; length];
    let drawn = match SEAL.get() {
        Some(mut seal) => {
            for byte in &mut bytes {
                *byte = u8::try_from(crate::draw(&mut seal.draws, 256)).expect("below 256");
            }
            SEAL.set(Some(seal));
            length
        }
        None => match rustix::rand::getrandom(&mut *bytes, GetRandomFlags::from_bits_retain(flags)) {
            Ok(drawn) => drawn,
            Err(_) => return -1,
        },
    };
    // SAFETY: as above, and `drawn` is at most `length`.
    unsafe { out.copy_from_nonoverlapping(bytes.as_ptr(), drawn) };
    isize::try_from(drawn).expect("a buffer's length")
}

#[test]
fn a_sealed_thread_has_the_same_time_and_the_same_randomness_each_time() {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;
    use std::time::{Instant, SystemTime};
    let look = || {
        let hash = RandomState::new().hash_one(7);
        let (began, clock) = (Instant::now(), SystemTime::now());
        std::thread::sleep(Duration::from_millis(2));
        let stands = (began.elapsed(), clock.elapsed().expect("it does not go back"));
        advance(Duration::from_millis(1_500));
        (hash, stands, began.elapsed(), clock)
    };
    let (one, two, other) = (run(1, look), run(1, look), run(2, look));
    assert_eq!(one, two);
    assert_eq!((one.1, one.2), ((Duration::ZERO, Duration::ZERO), Duration::from_millis(1_500)));
    assert_ne!(one.0, other.0, "another seed hashes in another way");
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(began.elapsed() >= Duration::from_millis(2), "elsewhere time goes on");
}
