//! What of the clients' events must not be. Violations carry the names of `docs/invariants.md`.

use std::collections::{BTreeMap, BTreeSet};

use ottla::protocol::error_code::ErrorCode;

use super::anew::Anew;
use super::cast::Cast;
use super::events::{At, Commit, Events, Joined, NEVER, Over, Seen, who};

/// Every violation.
pub fn violations(events: &Events) -> Vec<String> {
    let mut found = events.found.clone();
    let (visible, anew) = (visible(events), Anew::of(events));
    offsets(events, &visible, &mut found);
    zombies(events, &visible, &anew, &mut found);
    shares(events, &mut found);
    generations(events, &anew, &mut found);
    epochs(events, &anew, &mut found);
    events.holds.violations(&mut found);
    found
}

/// Whether an answer leaves open if the commit was done: whoever lost its turn, or its coordinator, is told to ask again.
pub fn is_maybe(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR)
}

/// By when each commit must have been visible: somebody was told that it is done, or has seen it.
fn visible(events: &Events) -> Vec<At> {
    let acked = |commit: &Commit| commit.told.filter(|(_, code)| !code.is_error()).map_or(NEVER, |(at, _)| at);
    let mut visible: Vec<At> = events.commits.iter().map(acked).collect();
    for seen in &events.seen {
        if let Some(number) = number(events, seen) {
            visible[number] = visible[number].min(seen.told);
        }
    }
    visible
}

/// The commit that a client was shown.
fn number(events: &Events, seen: &Seen) -> Option<usize> {
    let (offset, stored) = seen.found.as_ref()?;
    let number = stored.parse::<usize>().ok().filter(|number| *number < events.commits.len())?;
    let commit = &events.commits[number];
    let is_it = commit.group == seen.group && commit.partition == seen.partition && commit.offset == *offset;
    is_it.then_some(number)
}

/// For one partition of one group: by when commits were visible, in that order, and the latest sending among those so far, with its number.
type Latest = Vec<(At, At, usize)>;

fn latest(events: &Events, visible: &[At]) -> BTreeMap<(&'static str, i32), Latest> {
    let mut latest: BTreeMap<(&'static str, i32), Latest> = BTreeMap::new();
    let known = events.commits.iter().zip(visible).enumerate().filter(|(_, (_, by))| **by != NEVER);
    for (number, (commit, by)) in known {
        latest.entry((commit.group, commit.partition)).or_default().push((*by, commit.sent, number));
    }
    for commits in latest.values_mut() {
        commits.sort_unstable();
        for n in 1..commits.len() {
            if commits[n - 1].1 > commits[n].1 {
                (commits[n].1, commits[n].2) = (commits[n - 1].1, commits[n - 1].2);
            }
        }
    }
    latest
}

/// Each read shows a commit that was not surely overwritten when the read began: the offsets of a partition are one register.
fn offsets(events: &Events, visible: &[At], found: &mut Vec<String>) {
    let latest = latest(events, visible);
    for seen in &events.seen {
        let place = format!("group {} partition {} at {}..{}", seen.group, seen.partition, seen.sent, seen.told);
        // By when the commit that is shown was over: one that nobody was told of may be done at any time.
        let over = match (number(events, seen), &seen.found) {
            (None, Some(shown)) => {
                found.push(format!("group-offset-regress: {place} shows {shown:?}, which nobody committed"));
                continue;
            }
            (None, None) => 0,
            (Some(number), _) => match events.commits[number].told {
                Some((_, code)) if code.is_error() && !is_maybe(code) => {
                    found.push(format!("group-offset-regress: {place} shows commit {number}, refused with {code:?}"));
                    continue;
                }
                Some((at, code)) if !code.is_error() => at,
                _ => NEVER,
            },
        };
        let before = latest.get(&(seen.group, seen.partition)).map(Vec::as_slice).unwrap_or_default();
        let known = before.partition_point(|(by, _, _)| *by < seen.sent);
        if let Some((_, sent, number)) = known.checked_sub(1).map(|last| before[last])
            && over < sent
        {
            let later = &events.commits[number];
            found.push(format!("group-offset-regress: {place} shows {:?}, but {later:?} was done before", seen.found));
        }
    }
}

/// No commit is taken of a generation that was over when it was sent, or of a member that was out.
fn zombies(events: &Events, visible: &[At], anew: &Anew, found: &mut Vec<String>) {
    let mut out: BTreeMap<(&str, &str, u32), At> = BTreeMap::new();
    for removed in &events.removed {
        let at = out.entry((removed.group, removed.member.as_str(), removed.life)).or_insert(NEVER);
        *at = removed.told.min(*at);
    }
    for (number, commit) in events.commits.iter().enumerate() {
        if visible[number] == NEVER || commit.generation < 0 {
            continue;
        }
        let is_later = |joined: &&Joined| {
            let concerns = joined.group == commit.group && (joined.leader.is_some() || joined.member == commit.member);
            concerns && joined.generation > commit.generation && joined.told < commit.sent
        };
        // What a member has had at an epoch, and has had ever since, it may commit at that epoch (KIP-1251).
        let Commit { group, member, partition, generation, sent, .. } = commit;
        let is_later = |joined: &&Joined| {
            let may = || events.holds.has_had(group, member, *partition, *generation, *sent);
            let is_over = joined.leader.is_some() && !anew.is_between(group, joined.told, *sent);
            is_later(joined) && (is_over || (joined.leader.is_none() && !may()))
        };
        if let Some(joined) = events.joined.iter().find(is_later) {
            found.push(format!("zombie-commit: {number} {commit:?} was taken after {joined:?}"));
        }
        if anew.is_of_before(events, commit) {
            found.push(format!("zombie-commit: {number} {commit:?} was taken after the group began anew"));
        }
        let is_over = |over: &&Over| {
            over.group == commit.group && over.generation == commit.generation && over.told < commit.sent
        };
        if let Some(over) = events.over.iter().find(is_over) {
            found.push(format!("zombie-commit: {number} {commit:?} was taken after {over:?}"));
        }
        // One that came back at the same epoch, in the place of its own successor, cannot be told from what it was.
        let is_back = |joined: &&Joined| {
            let concerns = joined.group == commit.group && joined.member == commit.member;
            concerns && joined.life > commit.life && joined.generation == commit.generation
        };
        let out = out.get(&(commit.group, commit.member.as_str(), commit.life)).filter(|at| **at < commit.sent);
        if let Some(at) = out.filter(|_| !events.joined.iter().any(|joined| is_back(&joined))) {
            found.push(format!("zombie-commit: {number} {commit:?} was taken of a member that was out at {at}"));
        }
    }
}

/// In one generation a partition has one owner, and a share of one generation is never taken for that of another.
fn shares(events: &Events, found: &mut Vec<String>) {
    let mut owners: BTreeMap<(&str, i32, i32), &str> = BTreeMap::new();
    for share in &events.shares {
        if let Some(made_for) = share.made_for.filter(|made_for| *made_for != share.generation) {
            found.push(format!("dual-owner: a share of generation {made_for} is given out again: {share:?}"));
        }
        // Of the consumer protocol, members come to an epoch one by one: see `holds`.
        if !Cast::is_classic(share.group) {
            continue;
        }
        for partition in &share.partitions {
            let owner = owners.entry((share.group, share.generation, *partition)).or_insert(who(&share.member));
            if *owner != who(&share.member) {
                found.push(format!("dual-owner: partition {partition} is {owner}'s already: {share:?}"));
            }
        }
    }
}

/// A generation is given once, to one leader, and none that is over is given again.
fn generations(events: &Events, anew: &Anew, found: &mut Vec<String>) {
    let mut leaders: BTreeMap<(&str, usize, i32), &str> = BTreeMap::new();
    // From when on each generation is the least that there may be.
    let mut least: Vec<(&str, i32, At)> = Vec::new();
    least.extend(events.joined.iter().map(|joined| (joined.group, joined.generation, joined.told)));
    least.extend(events.over.iter().map(|over| (over.group, over.generation + 1, over.told)));
    for joined in &events.joined {
        // Members that speak the classic protocol keep the ids that the consumer protocol gave them: those of static ones do not say so.
        let Some(led_by) = joined.leader.as_deref().map(|leader| events.whose(leader)) else { continue };
        let times = anew.times(joined.group, joined.told);
        let leader = leaders.entry((joined.group, times, joined.generation)).or_insert(led_by);
        if *leader != led_by {
            found.push(format!("dual-owner: generation {} is {leader}'s already: {joined:?}", joined.generation));
        }
        let is_before = |group: &str, told: At| {
            group == joined.group && told < joined.sent && !anew.is_between(group, told, joined.sent)
        };
        let before = least.iter().filter(|(group, _, told)| is_before(group, *told));
        if let Some(before) = before.map(|(_, least, _)| *least).max().filter(|least| *least > joined.generation) {
            found.push(format!("dual-owner: there was a generation {before} before {joined:?}"));
        }
    }
}

/// A member of a group, or, without one, the group itself, and how often the group had begun anew.
type Whose<'a> = (&'a str, Option<&'a str>, usize);

/// Epochs never go back: that of a member while it is one, that of a group of the consumer protocol at all.
fn epochs(events: &Events, anew: &Anew, found: &mut Vec<String>) {
    let mut last: BTreeMap<(&str, &str, u32), i32> = BTreeMap::new();
    for joined in events.joined.iter().filter(|joined| joined.leader.is_none()) {
        let last = last.entry((joined.group, &joined.member, joined.life)).or_insert(joined.generation);
        if joined.generation < *last {
            found.push(format!("epoch-regress: it was {last} before {joined:?}"));
        }
        *last = joined.generation;
    }
    // By when each epoch was known, and the highest of those so far.
    let mut known: BTreeMap<Whose<'_>, Vec<(At, i32)>> = BTreeMap::new();
    for joined in events.joined.iter().filter(|joined| joined.leader.is_none()) {
        let whose = (joined.group, Some(joined.member.as_str()), anew.times(joined.group, joined.told));
        known.entry(whose).or_default().push((joined.told, joined.generation));
    }
    for shown in &events.shown {
        let whose = (shown.group, shown.member.as_deref(), anew.times(shown.group, shown.told));
        known.entry(whose).or_default().push((shown.told, shown.epoch));
    }
    for of_one in known.values_mut() {
        of_one.sort_unstable();
        for n in 1..of_one.len() {
            of_one[n].1 = of_one[n].1.max(of_one[n - 1].1);
        }
    }
    // Whoever is away is at no epoch.
    for shown in events.shown.iter().filter(|shown| shown.epoch >= 0) {
        let of_one = &known[&(shown.group, shown.member.as_deref(), anew.times(shown.group, shown.told))];
        let before = of_one.partition_point(|(told, _)| *told < shown.sent);
        if let Some((_, before)) = before.checked_sub(1).map(|last| of_one[last]).filter(|(_, it)| *it > shown.epoch) {
            found.push(format!("epoch-regress: it was {before} before {shown:?}"));
        }
    }
}

/// What a run has seen of what it is there for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Commits that were acknowledged.
    pub acked: usize,
    /// Commits of old generations, and of members that were out, that were refused.
    pub zombies_refused: usize,
    /// Commits that nobody was told of.
    pub maybe: usize,
    /// Offsets that were read.
    pub seen: usize,
    /// Generations that members were told of.
    pub generations: usize,
    /// Generations of which several members had shares.
    pub shared: usize,
    /// Times that a static member had its share of a generation under another id than before.
    pub replaced: usize,
    /// Members that were out.
    pub removed: usize,
    /// Requests without an answer.
    pub lost: usize,
    /// Epochs of the consumer protocol that members were told of.
    pub epochs: usize,
    /// Partitions of groups of that protocol that went from one member to another.
    pub passed_on: usize,
    /// Commits at an epoch that was over, of partitions that the member had had since, that were taken.
    pub kept: usize,
    /// Times that a member of that protocol was told that it is out.
    pub fenced: usize,
}

impl Coverage {
    /// Whether this is as much as `least`, in everything.
    pub fn has(&self, least: Self) -> bool {
        let all = |of: &Self| {
            let Self { acked, zombies_refused, maybe, seen, generations, shared, replaced, removed, lost, .. } = *of;
            let Self { epochs, passed_on, kept, fenced, .. } = *of;
            [
                acked,
                zombies_refused,
                maybe,
                seen,
                generations,
                shared,
                replaced,
                removed,
                lost,
                epochs,
                passed_on,
                kept,
                fenced,
            ]
        };
        all(self).iter().zip(all(&least)).all(|(seen, least)| *seen >= least)
    }
}

/// See [`Coverage`].
pub fn coverage(events: &Events) -> Coverage {
    let count = |wanted: &dyn Fn(&Commit) -> bool| events.commits.iter().filter(|commit| wanted(commit)).count();
    let zombie = [
        ErrorCode::ILLEGAL_GENERATION,
        ErrorCode::STALE_MEMBER_EPOCH,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::FENCED_INSTANCE_ID,
    ];
    let has_later = |commit: &&Commit| {
        let is_later = |joined: &&Joined| {
            joined.leader.is_none() && joined.member == commit.member && joined.generation > commit.generation
        };
        events.joined.iter().filter(is_later).any(|joined| joined.told < commit.sent)
    };
    let mut members: BTreeMap<(&str, i32), BTreeSet<&str>> = BTreeMap::new();
    let mut ids: BTreeMap<(&str, i32, &str), BTreeSet<&str>> = BTreeMap::new();
    for share in &events.shares {
        members.entry((share.group, share.generation)).or_default().insert(who(&share.member));
        ids.entry((share.group, share.generation, who(&share.member))).or_default().insert(&share.member);
    }
    Coverage {
        acked: count(&|commit| commit.told.is_some_and(|(_, code)| !code.is_error())),
        zombies_refused: count(&|commit| commit.told.is_some_and(|(_, code)| zombie.contains(&code))),
        maybe: count(&|commit| commit.told.is_none_or(|(_, code)| is_maybe(code))),
        seen: events.seen.len(),
        generations: members.len(),
        shared: members.values().filter(|members| members.len() > 1).count(),
        replaced: ids.values().map(|ids| ids.len() - 1).sum(),
        removed: events.removed.len(),
        lost: events.lost,
        epochs: events.joined.iter().filter(|joined| joined.leader.is_none()).count(),
        passed_on: events.holds.passed_on(),
        kept: count(&|commit| commit.told.is_some_and(|(_, code)| !code.is_error()) && has_later(&commit)),
        fenced: events.fenced,
    }
}
