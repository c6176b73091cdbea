//! Beside Kafka: the same requests go to Apache Kafka 4.3.1 and to Ottla, and the answers are compared field by field.
//!
//! `cases/` holds the requests: for each API every version that is advertised, and the ways in which it fails. What Kafka answers is
//! recorded in `recorded/`, one file for each group of cases, so that a run needs no JVM: it starts an Ottla in this process, asks
//! it the same and compares. Ids, times, addresses and leader epochs are mapped to what they stand for first ([`answer`]).
//! A difference fails the test unless [`differences`] lists it with a reason, and `docs/compatibility.md` has a row for every reason.
//!
//! To record Kafka's answers again (Java 17 and Maven are needed), from a Kafka that has no topics yet:
//!
//! ```text
//! benches/kafka up --port 19492 --set group.initial.rebalance.delay.ms=0 --set group.consumer.assignment.interval.ms=0 --set group.consumer.assignor.offload.enable=false && OTTLA_RECORD=127.0.0.1:19492 cargo test --test beside_kafka; benches/kafka down --port 19492
//! ```
//!
//! `OTTLA_CASES=<group>` runs (and records) one group of cases alone, while one works on it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod answer;
mod cases;
mod connection;
#[path = "../codec/debug.rs"]
#[allow(dead_code, reason = "the comparison of two codecs is not needed here")]
mod debug;
mod differences;
mod ids;
mod mapping;
mod ottla_server;
mod recording;
mod run;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ottla::protocol::api::ApiKey;

use differences::{DIFFERENCES, Findings};
use recording::Recording;

/// Where Kafka listens whose answers are to be recorded.
const RECORD: &str = "OTTLA_RECORD";

fn recorded(group: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/beside_kafka/recorded/{group}.txt"))
}

fn read_recorded(group: &str) -> Recording {
    let path = recorded(group);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Recording::parse(&text)
}

#[test]
fn every_answer_is_kafkas_but_for_the_differences_listed() {
    if let Ok(address) = std::env::var(RECORD) {
        let peer = run::Peer::new(address.parse().expect("an address"), run::Kind::Kafka);
        peer.assert_fresh();
        cases::run_all(peer, |group, recording| std::fs::write(recorded(group), recording.to_string()).unwrap());
    }
    let server = ottla_server::Server::start();
    if let Some(only) = cases::only() {
        assert!(cases::groups().any(|group| group == only), "no group of cases is called {only}");
    }
    let mut findings = Findings::default();
    let peer = run::Peer::new(server.address(), run::Kind::Ottla);
    cases::run_all(peer, |group, ottla| findings.compare(group, &read_recorded(group), &ottla));
    println!("{findings}");
    let told = findings.unexplained.join("\n");
    assert!(findings.unexplained.is_empty(), "{} differences without a reason:\n{told}", findings.unexplained.len());
    let unused: Vec<_> = DIFFERENCES.iter().filter(|listed| !findings.used.contains(*listed)).collect();
    if cases::only().is_some() {
        return;
    }
    assert!(unused.is_empty(), "listed, but there is no such difference: {unused:#?}");
}

#[test]
fn every_advertised_version_of_every_api_has_a_case() {
    let mut asked = BTreeSet::new();
    for group in cases::groups() {
        asked.extend(read_recorded(group).versions());
    }
    let advertised = ApiKey::advertised().flat_map(|(api, versions)| versions.clone().map(move |v| (api.key(), v)));
    let missing: Vec<_> = advertised.filter(|version| !asked.contains(version)).collect();
    assert!(missing.is_empty(), "(API, version) without a case: {missing:?}");
}

#[test]
fn every_reason_stands_in_the_documentation_and_is_needed() {
    let documented: BTreeSet<&str> = differences::documented(include_str!("../../docs/compatibility.md"));
    let listed: BTreeSet<&str> = DIFFERENCES.iter().map(|difference| difference.reason).collect();
    assert_eq!(documented, listed, "left: rows of docs/compatibility.md, right: reasons in differences.rs");
}
