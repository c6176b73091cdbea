//! More connections than there may be.

use crate::client::Client;
use crate::kit::{Beside, Broker, Peer};
use ottla::protocol::messages::MetadataRequest;

/// Opens so many connections; those that were served, and how many were refused: closed at once, without a byte.
fn open(broker: &Broker, count: usize) -> (Vec<Client>, usize) {
    let mut refused = 0;
    let mut served = Vec::new();
    for _ in 0..count {
        let mut client = broker.connect();
        if client.try_ask(&MetadataRequest::default()).is_some() {
            served.push(client);
        } else {
            refused += 1;
        }
    }
    (served, refused)
}

/// Opens more connections than there may be: those that are open go on, and when some have gone there is room for as many again.
fn overrun(broker: &Broker, beside: &Beside, attempts: usize, limit: usize) {
    let (mut served, refused) = open(broker, attempts);
    // The honest client's is one of them.
    assert_eq!((served.len() + 1, refused + limit), (limit, attempts + 1));
    broker.wait_for_line(&["refused a connection", &format!("limit={limit}")]);
    beside.must_go_on(2);
    for client in &mut served {
        let _ = client.ask(&MetadataRequest::default());
    }
    let half = served.len() / 2;
    let leaving: Vec<String> =
        served.drain(..half).map(|client| client.stream().local_addr().unwrap().to_string()).collect();
    for name in &leaving {
        broker.wait_for_line(&["connection closed", name]);
    }
    let (again, _) = open(broker, attempts);
    assert_eq!(again.len(), half, "there is room for as many as have left");
    beside.must_go_on(2);
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let broker = Broker::start(&[("LIMITS_CONNECTIONS", "20")]);
    let beside = broker.beside();
    overrun(&broker, &beside, 50, 20);
    beside.finish();
}

#[test]
fn connections_past_what_the_system_gives_descriptors_for_are_closed_at_once() {
    let broker = Broker::start_with_descriptors(400, &[]);
    let beside = broker.beside();
    broker.wait_for_line(&["limits.connections is more than the limit of open files allows", "configured=10000"]);
    let line = broker.lines_with("fitting=").remove(0);
    let fitting = line.split("fitting=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    assert!((100..300).contains(&fitting), "{fitting} of 400 descriptors are for connections");
    overrun(&broker, &beside, 500, fitting);
    beside.finish();
}

#[test]
fn thousands_of_connections_that_come_and_go_are_survived() {
    let broker = Broker::start(&[("LIMITS_CONNECTIONS", "200")]);
    let beside = broker.beside();
    for _ in 0..20 {
        let peers: Vec<Peer> = (0..300).map(|_| broker.peer()).collect();
        drop(peers);
    }
    beside.must_go_on(2);
    beside.finish();
}
