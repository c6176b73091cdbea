//! What befalls the brokers of a run: scenes of faults, drawn from the seed.

use std::time::Duration;

use crate::draw;

/// How many brokers there are.
pub const BROKERS: usize = 3;

/// In place of a broker's number: the one that leads the first partition when the brokers are cast.
pub const LEADER: usize = 10;
/// The one behind it, in the order of their numbers.
pub const FIRST: usize = 11;
/// The one before it.
pub const SECOND: usize = 12;
/// The one that led when the brokers were cast the time before.
pub const FORMER: usize = 13;
/// The one that neither leads nor led then.
pub const OTHER: usize = 14;

/// Who plays what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    leader: usize,
    former: usize,
}

impl Cast {
    /// With this leader, after that cast.
    pub fn new(leader: usize, before: Option<Self>) -> Self {
        Self { leader, former: before.map_or(leader, |before| before.leader) }
    }

    /// The broker that is meant.
    pub fn broker(self, meant: usize) -> usize {
        match meant {
            LEADER => self.leader,
            FIRST => (self.leader + 1) % BROKERS,
            SECOND => (self.leader + 2) % BROKERS,
            FORMER => self.former,
            OTHER => BROKERS - self.leader - self.former,
            broker => broker,
        }
    }
}

/// How the way between two hosts is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Packets are lost: connections that had some under way never recover.
    Lost,
    /// Packets are sent again until they get through: all arrives in order when the way is open again.
    Stalled,
}

/// One fault. Brokers are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Processes are killed; the page cache stays.
    Kill(Vec<usize>),
    /// The power is cut, in the middle of the first one's next operations on its disk.
    Power(Vec<usize>),
    /// The process is told to stop, and does so cleanly.
    Stop(usize),
    /// The way from one host to another is closed.
    Close(usize, usize, Closed),
    /// A broker's disk takes nothing more.
    Full(usize),
    /// Messages of a broker take this many milliseconds.
    Slow(usize, u64),
    /// Messages on all ways, those to clients too, take exactly this many milliseconds from now on.
    Far(u64),
    /// A way that was closed is open again.
    Open(usize, usize),
    /// A broker is cut off from the others, and is not, and so on, for so many milliseconds each.
    Flap(usize, u64),
    /// The process is killed and starts again at once.
    Restart(usize),
    /// The power is cut in a write to a log, which is torn.
    Tear(usize),
    /// The power is cut, nothing unsynced is left, and the process starts again at once.
    Blink(usize),
    /// Each job of a broker's disk takes this many milliseconds.
    SlowDisk(usize, u64),
    /// One of a broker's next syncs fails: its process ends.
    FailSync(usize),
    /// A bit of a log flips, on the device and in memory. The broker's disk is replaced at the end of the scene.
    Flip(usize),
    /// One broker asks another to lead what it leads.
    Transfer(usize, usize),
    /// The Raft cores of what a broker leads stop, while its process goes on.
    Cores(usize),
    /// The disk says of everything from now on that it is durable, and forgets it when the power is cut. No broker can bear this in a majority: a planted bug.
    Lie(usize),
    /// The power is cut and the disk replaced by an empty one.
    Wipe(usize),
}

impl Act {
    /// The brokers that are meant.
    pub fn cast(&self, cast: Cast) -> Self {
        let who = |broker: &usize| cast.broker(*broker);
        let all = |brokers: &Vec<usize>| brokers.iter().map(who).collect();
        match self {
            Self::Kill(brokers) => Self::Kill(all(brokers)),
            Self::Power(brokers) => Self::Power(all(brokers)),
            Self::Stop(broker) => Self::Stop(who(broker)),
            Self::Close(from, to, closed) => Self::Close(who(from), who(to), *closed),
            Self::Full(broker) => Self::Full(who(broker)),
            Self::Slow(broker, ms) => Self::Slow(who(broker), *ms),
            Self::Far(ms) => Self::Far(*ms),
            Self::Lie(broker) => Self::Lie(who(broker)),
            Self::Wipe(broker) => Self::Wipe(who(broker)),
            Self::Open(from, to) => Self::Open(who(from), who(to)),
            Self::Flap(broker, ms) => Self::Flap(who(broker), *ms),
            Self::Restart(broker) => Self::Restart(who(broker)),
            Self::Tear(broker) => Self::Tear(who(broker)),
            Self::Blink(broker) => Self::Blink(who(broker)),
            Self::SlowDisk(broker, ms) => Self::SlowDisk(who(broker), *ms),
            Self::FailSync(broker) => Self::FailSync(who(broker)),
            Self::Flip(broker) => Self::Flip(who(broker)),
            Self::Transfer(from, to) => Self::Transfer(who(from), who(to)),
            Self::Cores(broker) => Self::Cores(who(broker)),
        }
    }

    /// Whether it strikes only where there is something to do on the disk: in a while, or all the time that the scene lasts.
    pub fn needs_work(&self, now: bool) -> bool {
        matches!(self, Self::SlowDisk(..)) || (!now && matches!(self, Self::Tear(_) | Self::FailSync(_)))
    }

    /// Whether a disk is lost by it.
    pub fn loses_a_disk(&self) -> bool {
        matches!(self, Self::Wipe(_) | Self::Flip(_))
    }
}

/// Faults that begin within a moment of each other, last, and are over together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The faults, each with how long after the scene's beginning it begins.
    pub acts: Vec<(Duration, Act)>,
    /// How long the scene is.
    pub lasts: Duration,
    /// How long all is well afterwards.
    pub rest: Duration,
    /// Whether the brokers are cast anew when it begins.
    pub casts: bool,
    /// Whether what it has begun goes on into the next scene.
    pub goes_on: bool,
    /// Whether a majority is up and connected: something must have been acknowledged in each partition shortly before the scene's end.
    pub serves: bool,
    /// Whether nobody has a reason to elect anybody.
    pub keeps_leaders: bool,
    /// Whether it begins only when it is told to.
    pub waits: bool,
}

impl Scene {
    /// A scene that is over with all that it has begun.
    pub fn new(acts: Vec<(Duration, Act)>, lasts: Duration, rest: Duration) -> Self {
        Self { acts, lasts, rest, casts: false, goes_on: false, serves: false, keeps_leaders: false, waits: false }
    }

    /// The same, with the brokers cast anew.
    pub fn casts(self) -> Self {
        Self { casts: true, ..self }
    }

    /// The same, and what it has begun goes on.
    pub fn goes_on(self) -> Self {
        Self { goes_on: true, ..self }
    }

    /// The same, when it is told to begin.
    pub fn waits(self) -> Self {
        Self { waits: true, ..self }
    }

    /// The same, and leaders stay.
    pub fn keeps_leaders(self) -> Self {
        Self { keeps_leaders: true, ..self }
    }

    /// The same, with a majority that serves all the time.
    pub fn serves(self) -> Self {
        Self { serves: true, ..self }
    }
}

/// All is well for a while, so that the cluster has come to rest, and then this happens: to those who play the parts then.
pub fn after_rest(scenes: Vec<Scene>) -> Vec<Scene> {
    let mut story = vec![Scene::new(Vec::new(), Duration::from_millis(1_500), Duration::ZERO)];
    story.extend(scenes);
    story
}

/// Both ways between two hosts.
pub fn between(one: usize, other: usize, closed: Closed) -> [(Duration, Act); 2] {
    [(Duration::ZERO, Act::Close(one, other, closed)), (Duration::ZERO, Act::Close(other, one, closed))]
}

/// A fault that lasts finds something to strike within this time: clients write every few tens of milliseconds.
const STRIKES_WITHIN: Duration = Duration::from_millis(300);

/// The kinds of faults that a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes are killed and stopped.
    Kills,
    /// Ways are closed and slowed.
    Cuts,
    /// Brokers lose power.
    Power,
    /// One loses its disk.
    Wipe,
    /// Disks are full for a while.
    Full,
    /// A disk is slow for a while.
    SlowDisk,
    /// A broker is cut off again and again.
    Flaps,
    /// Syncs fail, writes are torn, bits flip.
    Disk,
    /// Everything loses its power at the same time.
    AllDark,
    /// One loses its power while another is killed.
    DarkAndKill,
    /// Leaders are asked to hand over, come back at once, or lose their Raft cores while their processes live.
    Leaders,
    /// What may happen while a cluster is founded, at once and soon again.
    Founding,
    /// Kills, cuts, power cuts and lost disks together.
    All,
    /// What may happen while replicas move: as a group may have two of them then, no disk is lost for good.
    Moves,
    /// Everything that there is, together.
    Any,
}

/// Draws of a story.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(draw(&mut self.0, end as u64)).expect("a small number")
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + draw(&mut self.0, to - from))
    }

    fn two(&mut self) -> (usize, usize) {
        let one = self.below(BROKERS);
        (one, (one + 1 + self.below(BROKERS - 1)) % BROKERS)
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    /// One broker mostly, else two, else all.
    fn some(&mut self) -> Vec<usize> {
        let first = self.below(BROKERS);
        let count = match self.below(6) {
            0..=2 => 1,
            3 | 4 => 2,
            _ => 3,
        };
        (0..count).map(|nth| (first + nth) % BROKERS).collect()
    }
}

/// A story of so many scenes of one kind.
pub fn story(seed: u64, kind: Kind, scenes: usize) -> Vec<Scene> {
    let mut dice = Dice(seed.wrapping_mul(0x51_7c_c1_b7) ^ 0x5eed);
    (0..scenes).map(|_| scene(&mut dice, kind)).collect()
}

fn scene(dice: &mut Dice, kind: Kind) -> Scene {
    let kinds: Vec<Kind> = match kind {
        Kind::All => {
            let all = [Kind::Kills, Kind::Cuts, Kind::Power, Kind::Cuts, Kind::Power, Kind::Wipe];
            let one = all[dice.below(all.len())];
            let both = one != Kind::Cuts && dice.one_in(2);
            if both { vec![Kind::Cuts, one] } else { vec![one] }
        }
        Kind::Any => {
            let all = [
                Kind::Kills,
                Kind::Power,
                Kind::Wipe,
                Kind::Full,
                Kind::SlowDisk,
                Kind::Disk,
                Kind::Disk,
                Kind::Leaders,
                Kind::Leaders,
                Kind::AllDark,
                Kind::DarkAndKill,
            ];
            let one = all[dice.below(all.len())];
            // What has to come with a write must not be cut off from those who write.
            let is_alone = matches!(one, Kind::Disk | Kind::Full | Kind::SlowDisk);
            match dice.below(4) {
                _ if is_alone => vec![one],
                0 => vec![one],
                1 => vec![Kind::Flaps, one],
                _ => vec![Kind::Cuts, one],
            }
        }
        Kind::Moves => {
            let all = [Kind::Kills, Kind::Cuts, Kind::Power, Kind::Flaps, Kind::AllDark];
            vec![all[dice.below(all.len())]]
        }
        Kind::Founding => vec![Kind::Cuts, [Kind::Power, Kind::Kills][dice.below(2)]],
        kind => vec![kind],
    };
    let mut acts = Vec::new();
    for kind in kinds {
        // Ways are closed while there is somebody at both ends.
        let begins = if matches!(kind, Kind::Cuts | Kind::Flaps) { dice.ms(0, 200) } else { dice.ms(200, 1_000) };
        acts.extend(faults(dice, kind).into_iter().map(|act| (begins, act)));
    }
    if kind == Kind::Founding {
        // The brokers find each other within less than a second.
        acts.iter_mut().for_each(|(at, _)| *at = at.mul_f64(0.4));
        return Scene::new(acts, dice.ms(300, 1_200), dice.ms(1, 400));
    }
    // From shorter than it takes to suspect anybody to longer than it takes to elect others.
    let lasts = if dice.one_in(3) { dice.ms(900, 1_400) } else { dice.ms(1_500, 5_000) };
    // What ends as soon as it begins strikes nothing.
    let last = acts.iter().map(|(begins, _)| *begins).max().unwrap_or_default();
    let lasts = lasts.max(last + STRIKES_WITHIN);
    let rest = if dice.one_in(3) { dice.ms(1, 300) } else { dice.ms(1_000, 4_000) };
    Scene { casts: true, ..Scene::new(acts, lasts, rest) }
}

fn faults(dice: &mut Dice, kind: Kind) -> Vec<Act> {
    match kind {
        Kind::Kills if dice.one_in(4) => vec![Act::Stop(dice.below(BROKERS))],
        Kind::Kills => vec![Act::Kill(dice.some())],
        Kind::Power => vec![Act::Power(dice.some())],
        Kind::Wipe => vec![Act::Wipe(dice.below(BROKERS))],
        Kind::SlowDisk => vec![Act::SlowDisk(dice.below(BROKERS), 30 + draw(&mut dice.0, 400))],
        Kind::Flaps => vec![Act::Flap(dice.below(BROKERS), 50 + draw(&mut dice.0, 900))],
        Kind::Full => dice.some().into_iter().map(Act::Full).collect(),
        Kind::Disk => {
            let broker = dice.below(BROKERS);
            vec![
                [Act::FailSync(broker), Act::Tear(broker), Act::Flip(broker), Act::Tear(broker)][dice.below(4)].clone(),
            ]
        }
        Kind::AllDark => vec![Act::Power((0..BROKERS).collect())],
        Kind::DarkAndKill => {
            let (one, other) = dice.two();
            vec![Act::Power(vec![one]), Act::Kill(vec![other])]
        }
        Kind::Leaders => {
            let to = [FIRST, SECOND][dice.below(2)];
            let all = [Act::Transfer(LEADER, to), Act::Restart(LEADER), Act::Blink(LEADER), Act::Cores(LEADER)];
            vec![all[dice.below(all.len())].clone()]
        }
        Kind::Cuts | Kind::Founding | Kind::All | Kind::Moves | Kind::Any => cut(dice),
    }
}

fn cut(dice: &mut Dice) -> Vec<Act> {
    let closed = if dice.one_in(2) { Closed::Lost } else { Closed::Stalled };
    let one = dice.below(BROKERS);
    let others = [(one + 1) % BROKERS, (one + 2) % BROKERS];
    let both = |other: usize| [Act::Close(one, other, closed), Act::Close(other, one, closed)];
    match dice.below(6) {
        // Nobody hears it, it hears nobody.
        0 | 1 => others.into_iter().flat_map(both).collect(),
        // Two cannot talk, the third hears both.
        2 => both(others[0]).into(),
        // It hears all, nobody hears it.
        3 => others.map(|other| Act::Close(one, other, closed)).into(),
        // All hear it, it hears nobody.
        4 => others.map(|other| Act::Close(other, one, closed)).into(),
        _ => vec![Act::Slow(one, 20 + draw(&mut dice.0, 400))],
    }
}
