//! The cases, by API, and the order in which they run: what a group leaves behind, the next ones see.

mod alter;
mod bytes;
mod configs;
mod coordinators;
mod fetch;
mod groups;
mod kit;
mod metadata;
mod offsets;
mod produce;
mod sessions;
mod topics;
mod versions;

use crate::recording::Recording;
use crate::run::{Peer, Run};

type Group = (&'static str, fn(&mut Run));

/// Every group: the name of its recording, and its cases.
const GROUPS: &[Group] = &[
    ("api_versions", versions::cases),
    // First of those that make topics: it asks for all there are.
    ("metadata", metadata::cases),
    ("bytes", bytes::cases),
    ("produce", produce::cases),
    ("idempotence", produce::idempotence),
    ("fetch", fetch::cases),
    ("sessions", sessions::cases),
    ("offsets", offsets::cases),
    ("topics", topics::cases),
    ("configs", configs::cases),
    ("alter", alter::cases),
    // Last: Kafka makes its internal topics.
    ("coordinators", coordinators::cases),
    ("groups", groups::cases),
    ("group_offsets", groups::offsets),
];

/// The groups' names.
pub fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(name, _)| *name)
}

/// Runs all cases against a broker without topics, and gives what it answered, group by group.
pub fn run_all(peer: Peer, mut take: impl FnMut(&'static str, Recording)) {
    let mut run = Run::new(peer);
    kit::warm_up(&mut run);
    for (name, cases) in GROUPS {
        cases(&mut run);
        take(name, run.take_recording());
    }
}
