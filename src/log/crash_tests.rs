//! One log through several lives: random work, a crash at a random operation (also of the recovery), and after each restart a comparison with
//! a model of what was asked and answered.
//!
//! `OTTLA_CRASH_SEEDS` sets how many seeds are tried, `OTTLA_CRASH_SEED` names one.

mod files;
mod model;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;
use super::journal::Journal;
use super::mem_disk::MemDisk;
use super::name::LOG;
use super::test_kit::PARTITION;
use super::{Log, LogConfig, OpenAfter, directory};
use model::Model;
use work::Life;

const SEEDS: u64 = 500;
const LIVES: u64 = 5;

/// A bug that the test must catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    SyncIsNoop,
    DirSyncIsNoop,
    OnlyNewestFileSynced,
    RecoveredTailNotSynced,
}

/// A small generator.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power is cut during this operation, counted from where the life's work begins.
    Cut(u64),
    /// The process is killed before it.
    Kill(u64),
    /// It stops cleanly after its work.
    Stop,
}

impl End {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..=4 => Self::Cut(rng.below(150)),
            5..=8 => Self::Kill(rng.below(150)),
            _ => Self::Stop,
        }
    }

    fn arm(self, disk: &MemDisk) {
        match self {
            Self::Cut(op) => disk.cut_power_at(disk.ops() + op),
            Self::Kill(op) => disk.kill_at(disk.ops() + op),
            Self::Stop => {}
        }
    }

    /// The disk of the next life.
    fn restart(self, disk: &MemDisk) -> MemDisk {
        match self {
            Self::Cut(_) => disk.after_power_cut(),
            Self::Kill(_) | Self::Stop => disk.crash_process(),
        }
    }
}

struct Run {
    rng: Rng,
    model: Model,
    config: LogConfig,
    clean: bool,
    /// Set while a log is being opened.
    recovering: Arc<AtomicBool>,
    trace: bool,
}

fn run(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let mut rng = Rng(seed);
    let segment_bytes = [700, 2000, 6000, 100_000][usize::try_from(rng.below(4)).expect("small")];
    let disk = MemDisk::queued().seeded(seed);
    Journal::create(Arc::new(disk.clone())).map_err(|error| error.to_string())?;
    let recovering = Arc::new(AtomicBool::new(false));
    if let Some(bug) = bug {
        plant(&disk, bug, &recovering);
    }
    let trace = std::env::var_os("OTTLA_CRASH_SEED").is_some();
    let config = LogConfig { segment_bytes };
    let mut run = Run { rng, model: Model::default(), config, clean: false, recovering, trace };
    run.lives(disk)
}

impl Run {
    fn lives(&mut self, mut disk: MemDisk) -> Result<(), String> {
        for life in 0..LIVES {
            let Some((journal, log)) = self.open(&mut disk)? else { continue };
            let end = End::draw(&mut self.rng);
            self.say(|| format!("life {life} at {:?} ends with {end:?}", log.state()));
            end.arm(&disk);
            let mut life =
                Life { disk: &disk, journal, log, model: &mut self.model, rng: &mut self.rng, trace: self.trace };
            self.clean = life.work(end == End::Stop)?;
            drop(life);
            disk = end.restart(&disk);
        }
        self.open(&mut disk).map(drop)
    }

    /// Opens the log, through crashes of the recovery itself, and compares it with the model.
    fn open(&mut self, disk: &mut MemDisk) -> Result<Option<(Arc<Journal>, Log)>, String> {
        for attempt in 0..4 {
            let end = match self.rng.below(10) {
                0..=1 if attempt < 3 && !self.clean => End::Cut(self.rng.below(25)),
                2..=3 if attempt < 3 && !self.clean => End::Kill(self.rng.below(25)),
                _ => End::Stop,
            };
            end.arm(disk);
            match self.recover(disk) {
                Ok(opened) => {
                    // What was planned did not strike.
                    End::Cut(u64::MAX / 2).arm(disk);
                    End::Kill(u64::MAX / 2).arm(disk);
                    return Ok(Some(opened));
                }
                Err(_) if disk.is_cut() => {
                    self.say(|| format!("recovery ends with {end:?}"));
                    *disk = end.restart(disk);
                }
                Err(error) => return Err(error),
            }
        }
        Err("the last attempt had no fault".to_owned())
    }

    fn recover(&mut self, disk: &MemDisk) -> Result<(Arc<Journal>, Log), String> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let before = files::list(disk).map_err(|error| error.to_string())?;
        self.recovering.store(true, Ordering::Relaxed);
        let journal = Journal::open(Arc::clone(&shared)).map_err(|error| error.to_string())?;
        let how = OpenAfter { clean: self.clean };
        self.say(|| format!("the journal has {:?}", journal.group(PARTITION)));
        let opened = Log::open(shared, Arc::clone(&journal), PARTITION, self.config, how);
        self.recovering.store(false, Ordering::Relaxed);
        let (log, recovered) = opened.map_err(|error| error.to_string())?;
        self.say(|| format!("found {before:?}, recovered {:?} with {recovered:?}", log.state()));
        self.model.check(&log, &recovered)?;
        files::check(&before, disk, &log, &recovered, self.model.now.origin)?;
        self.clean = false;
        Ok((journal, log))
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{}", what());
        }
    }
}

fn plant(disk: &MemDisk, bug: Bug, recovering: &Arc<AtomicBool>) {
    let dir = directory(PARTITION);
    match bug {
        Bug::SyncIsNoop => disk.set_sync_is_noop(true),
        Bug::DirSyncIsNoop => disk.set_dir_sync_is_noop(true),
        Bug::OnlyNewestFileSynced => disk.skip_syncs(move |disk, path| {
            let Some(name) = path.strip_prefix(&format!("{dir}/")).filter(|name| name.ends_with(LOG)) else {
                return false;
            };
            let names = disk.list(&dir).unwrap_or_default();
            names.iter().rfind(|entry| entry.name.ends_with(LOG)).is_some_and(|newest| newest.name != name)
        }),
        Bug::RecoveredTailNotSynced => {
            let recovering = Arc::clone(recovering);
            disk.skip_syncs(move |_, path| recovering.load(Ordering::Relaxed) && path.starts_with(&dir));
        }
    }
}

fn caught(seed: u64, bug: Option<Bug>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, bug))) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_crashes_when_a_log_is_found_to_be_what_it_said() {
    let seeds = match number("OTTLA_CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTTLA_CRASH_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Some(why) = caught(seed, None) {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [Bug::SyncIsNoop, Bug::DirSyncIsNoop, Bug::OnlyNewestFileSynced, Bug::RecoveredTailNotSynced] {
        let seed = (0..SEEDS).find(|seed| caught(*seed, Some(bug)).is_some());
        let seed = seed.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?}: caught at seed {seed}");
    }
}
