//! Topics by id: what the cases name is asked for by id where a version has no names.

use std::any::Any;
use std::collections::BTreeMap;

use bytes::Bytes;
use ottla::ids::TopicId;
use ottla::protocol::frame::encode_request;
use ottla::protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, ProduceRequest};
use ottla::protocol::primitive::EncodeError;
use ottla::protocol::wire::Request;

/// An id that no topic has.
pub const NO_TOPIC: TopicId = TopicId([0x5a; 16]);
/// What the client calls itself.
const CLIENT_ID: Option<&str> = Some("beside-kafka");

/// The ids of topics that were created, the last of each name.
pub type Topics = BTreeMap<String, TopicId>;

/// The frame of a request whose topics have the ids of their names, where it gives none.
pub fn encode<R: Request + 'static>(
    version: i16,
    correlation_id: i32,
    request: &R,
    topics: &Topics,
) -> Result<Vec<Bytes>, EncodeError> {
    let give = |name: &str, id: &mut TopicId| {
        if !name.is_empty() && *id == TopicId::ZERO {
            *id = topics.get(name).copied().unwrap_or(NO_TOPIC);
        }
    };
    let request = request as &dyn Any;
    if let Some(mut request) = request.downcast_ref::<ProduceRequest>().cloned() {
        request.topic_data.iter_mut().for_each(|topic| give(&topic.name, &mut topic.topic_id));
        return encode_request(version, correlation_id, CLIENT_ID, &request);
    }
    if let Some(mut request) = request.downcast_ref::<OffsetCommitRequest>().cloned() {
        request.topics.iter_mut().for_each(|topic| give(&topic.name, &mut topic.topic_id));
        return encode_request(version, correlation_id, CLIENT_ID, &request);
    }
    if let Some(mut request) = request.downcast_ref::<OffsetFetchRequest>().cloned() {
        let named = request.groups.iter_mut().flat_map(|group| group.topics.iter_mut().flatten());
        named.for_each(|topic| give(&topic.name, &mut topic.topic_id));
        return encode_request(version, correlation_id, CLIENT_ID, &request);
    }
    encode_request(version, correlation_id, CLIENT_ID, request.downcast_ref::<R>().expect("it is what it was"))
}
