//! Fetch sessions (KIP-227).

use ottla::ids::TopicId;
use ottla::protocol::messages::FetchRequest;
use ottla::protocol::messages::fetch::ForgottenTopic;

use super::fetch::{Want, request};
use super::kit::{NO_TOPIC, append, batch, create};
use crate::run::Run;

const VERSIONS: std::ops::RangeInclusive<i16> = 7..=18;

/// The cases.
pub fn cases(run: &mut Run) {
    for version in VERSIONS {
        life(run, version);
        errors(run, version);
        changes(run, version);
    }
}

fn in_session(session_id: i32, session_epoch: i32, wants: &[Want<'_>], version: i16) -> FetchRequest {
    FetchRequest { session_id, session_epoch, ..request(wants, version) }
}

fn forgetting(topic: (&str, TopicId), partitions: &[i32], request: FetchRequest) -> FetchRequest {
    let topic = ForgottenTopic { topic: topic.0.into(), topic_id: topic.1, partitions: partitions.to_vec() };
    FetchRequest { forgotten_topics_data: vec![topic], ..request }
}

fn life(run: &mut Run, version: i16) {
    run.case("a session's life");
    let name = format!("session-life-v{version}");
    let id = create(run, &name, 3, &[]);
    let topic = (name.as_str(), id);
    append(run, &name, 0, batch(1, &["a"]));
    let all = [Want::new(topic, 0, 0), Want::new(topic, 1, 0)];
    let opened = run.one("it opens", version, &in_session(0, 0, &all, version)).expect("an answer");
    let session = opened.session_id;
    run.one("the same record again", version, &in_session(session, 1, &[], version));
    run.one("from behind it", version, &in_session(session, 2, &[Want::new(topic, 0, 1)], version));
    append(run, &name, 1, batch(1, &["b"]));
    run.one("what is new", version, &in_session(session, 3, &[], version));
    run.one("one more partition", version, &in_session(session, 4, &[Want::new(topic, 2, 0)], version));
    run.one("one that does not exist", version, &in_session(session, 5, &[Want::new(topic, 9, 0)], version));
    run.one("the error again", version, &in_session(session, 6, &[], version));
    let without = forgetting(topic, &[9, 1], in_session(session, 7, &[], version));
    run.one("two are forgotten", version, &without);
    run.one("nothing is new", version, &in_session(session, 8, &[], version));
    let unknown = forgetting(topic, &[7], in_session(session, 9, &[], version));
    run.one("one is forgotten that was not there", version, &unknown);
    run.one("it closes", version, &in_session(session, -1, &all[..1], version));
    run.one("it is gone", version, &in_session(session, 10, &[], version));
}

fn errors(run: &mut Run, version: i16) {
    run.case("a session's errors");
    let name = format!("session-error-v{version}");
    let id = create(run, &name, 1, &[]);
    let topic = (name.as_str(), id);
    let want = [Want::new(topic, 0, 0)];
    run.one("no such session", version, &in_session(987_654, 5, &want, version));
    run.one("no session, and an epoch", version, &in_session(0, 5, &want, version));
    run.one("no session wanted", version, &in_session(0, -1, &want, version));
    run.one("no such session to be closed", version, &in_session(987_654, -1, &want, version));
    run.one("a negative epoch", version, &in_session(0, -2, &want, version));
    let session = run.one("it opens", version, &in_session(0, 0, &want, version)).expect("an answer").session_id;
    run.one("an epoch too early", version, &in_session(session, 5, &[], version));
    run.one("the right epoch after a wrong one", version, &in_session(session, 1, &[], version));
    run.one("an epoch again", version, &in_session(session, 1, &[], version));
    let again = run.one("it is replaced", version, &in_session(session, 0, &want, version)).expect("an answer");
    run.one("the one before is gone", version, &in_session(session, 2, &[], version));
    let last = forgetting(topic, &[0], in_session(again.session_id, 1, &[], version));
    run.one("all is forgotten", version, &last);
    run.one("then it is gone", version, &in_session(again.session_id, 2, &[], version));
    run.one("nothing wanted from the beginning", version, &in_session(0, 0, &[], version));
}

fn changes(run: &mut Run, version: i16) {
    run.case("a session and topic ids");
    let name = format!("session-ids-v{version}");
    let id = create(run, &name, 1, &[]);
    let topic = (name.as_str(), id);
    let want = [Want::new(topic, 0, 0)];
    let session = run.one("it opens", version, &in_session(0, 0, &want, version)).expect("an answer").session_id;
    let other = if version < 13 { 13 } else { 12 };
    let asked = in_session(session, 1, &[], other);
    run.one(&format!("then topics are named otherwise, from {version}"), other, &asked);
    run.one("and as before", version, &in_session(session, 1, &[], version));
    let unknown = [Want::new(("session-none", NO_TOPIC), 0, 0)];
    let session = run.one("an unknown topic", version, &in_session(0, 0, &unknown, version)).expect("an answer");
    run.one("an unknown topic again", version, &in_session(session.session_id, 1, &[], version));
}
