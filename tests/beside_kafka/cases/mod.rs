//! The cases, by API, and the order in which they run: what a group leaves behind, the next ones see.

mod alter;
mod bytes;
mod configs;
mod consumer_groups;
mod coordinators;
mod fetch;
mod group_offsets;
mod groups;
mod kit;
mod metadata;
mod moves;
mod offsets;
mod produce;
mod quorum;
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
    ("moves", moves::cases),
    ("quorum", quorum::cases),
    ("configs", configs::cases),
    ("alter", alter::cases),
    // Last: Kafka makes its internal topics.
    ("coordinators", coordinators::cases),
    ("groups", groups::cases),
    ("group_offsets", group_offsets::cases),
    ("consumer_groups", consumer_groups::cases),
];

/// The groups' names.
pub fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(name, _)| *name)
}

/// The only group that is wanted, while one works on it.
pub fn only() -> Option<String> {
    std::env::var("OTTLA_CASES").ok()
}

/// Runs all cases against a broker without topics, and gives what it answered, group by group.
pub fn run_all(peer: Peer, mut take: impl FnMut(&'static str, Recording)) {
    let mut run = Run::new(peer);
    kit::warm_up(&mut run);
    let wanted = only();
    for (name, cases) in GROUPS.iter().filter(|(name, _)| wanted.as_deref().is_none_or(|wanted| wanted == *name)) {
        cases(&mut run);
        take(name, run.take_recording());
    }
}
