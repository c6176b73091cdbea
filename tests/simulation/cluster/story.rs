//! What befalls the brokers of a run: scenes of faults, drawn from the seed.

use std::time::Duration;

use crate::draw;

/// How many brokers there are.
pub const BROKERS: usize = 3;

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
    /// The disk says of everything from now on that it is durable, and forgets it when the power is cut. No broker can bear this in a majority: a planted bug.
    Lie(usize),
    /// The power is cut and the disk replaced by an empty one.
    Wipe(usize),
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
}

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
    /// What may happen while a cluster is founded, at once and soon again.
    Founding,
    /// All of them together.
    All,
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
        Kind::Founding => vec![Kind::Cuts, [Kind::Power, Kind::Kills][dice.below(2)]],
        kind => vec![kind],
    };
    let mut acts = Vec::new();
    for kind in kinds {
        // Ways are closed while there is somebody at both ends.
        let begins = if kind == Kind::Cuts { dice.ms(0, 200) } else { dice.ms(200, 1_000) };
        acts.extend(faults(dice, kind).into_iter().map(|act| (begins, act)));
    }
    if kind == Kind::Founding {
        // The brokers find each other within less than a second.
        acts.iter_mut().for_each(|(at, _)| *at = at.mul_f64(0.4));
        return Scene { acts, lasts: dice.ms(300, 1_200), rest: dice.ms(1, 400) };
    }
    // From shorter than it takes to suspect anybody to longer than it takes to elect others.
    let lasts = if dice.one_in(3) { dice.ms(900, 1_400) } else { dice.ms(1_500, 5_000) };
    let rest = if dice.one_in(3) { dice.ms(1, 300) } else { dice.ms(1_000, 4_000) };
    Scene { acts, lasts, rest }
}

fn faults(dice: &mut Dice, kind: Kind) -> Vec<Act> {
    match kind {
        Kind::Kills if dice.one_in(4) => vec![Act::Stop(dice.below(BROKERS))],
        Kind::Kills => vec![Act::Kill(dice.some())],
        Kind::Power => vec![Act::Power(dice.some())],
        Kind::Wipe => vec![Act::Wipe(dice.below(BROKERS))],
        Kind::Full => dice.some().into_iter().map(Act::Full).collect(),
        Kind::Cuts | Kind::Founding | Kind::All => cut(dice),
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
