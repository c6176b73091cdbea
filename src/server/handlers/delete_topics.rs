//! DeleteTopics, by name or by id. The topic is gone when this is answered; its files follow.

use std::collections::HashMap;

use super::alter::{Refused, not_made, refused};
use crate::ids::TopicId;
use crate::machine::controller::{Controller, Record, Topic};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::delete_topics::DeletableTopicResult;
use crate::protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// A topic as the request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    Name(Text),
    Id(TopicId),
    Neither,
    Both(Text, TopicId),
}

/// Handles one DeleteTopics request.
pub async fn handle(call: &Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(Named::Name);
    let by_state = request.topics.into_iter().map(|topic| match (topic.name, topic.topic_id) {
        (None, TopicId::ZERO) => Named::Neither,
        (None, id) => Named::Id(id),
        (Some(name), TopicId::ZERO) => Named::Name(name),
        (Some(name), id) => Named::Both(name, id),
    });
    let mut counts: HashMap<Named, usize> = HashMap::new();
    let mut order = Vec::new();
    for named in by_name.chain(by_state) {
        let count = counts.entry(named.clone()).or_default();
        *count += 1;
        if *count == 1 || named == Named::Neither {
            order.push(named);
        }
    }
    let decide = |controller: &Controller| {
        let mut records = Vec::new();
        let resolved = order.iter().filter_map(|named| resolve(controller, named));
        let mut references: HashMap<TopicId, usize> = HashMap::new();
        resolved.for_each(|topic| *references.entry(topic.id).or_default() += 1);
        let mut responses = Vec::with_capacity(order.len());
        for named in &order {
            let outcome = decide_one(controller, named, counts[named] > 1, &references);
            responses.push(outcome.map(|(name, id, record)| {
                records.push(record);
                (name, id)
            }));
        }
        Ok((records, responses))
    };
    let responses = match call.context.controller.change(decide).await {
        Ok(outcomes) => order.iter().zip(outcomes).map(|(named, outcome)| result(call, named, outcome)).collect(),
        Err(failure) => {
            let why = not_made(failure);
            order.iter().map(|named| result(call, named, Err(why.clone()))).collect()
        }
    };
    DeleteTopicsResponse { responses, ..Default::default() }
}

fn resolve<'a>(controller: &'a Controller, named: &Named) -> Option<&'a Topic> {
    match named {
        Named::Name(name) => controller.topic(name),
        Named::Id(id) => controller.topic_by_id(*id),
        Named::Neither | Named::Both(..) => None,
    }
}

type Deleted = Result<(Text, TopicId), Refused>;

fn decide_one(
    controller: &Controller,
    named: &Named,
    is_repeated: bool,
    references: &HashMap<TopicId, usize>,
) -> Result<(Text, TopicId, Record), Refused> {
    let invalid = |message: &str| (ErrorCode::INVALID_REQUEST, message.to_owned());
    match named {
        Named::Neither => return Err(invalid("Neither topic name nor id were specified.")),
        Named::Both(..) => return Err(invalid("You may not specify both topic name and topic id.")),
        Named::Name(_) if is_repeated => return Err(invalid("Duplicate topic name.")),
        Named::Id(_) if is_repeated => return Err(invalid("Duplicate topic id.")),
        Named::Name(_) | Named::Id(_) => {}
    }
    let topic = resolve(controller, named).ok_or_else(|| {
        let code = match named {
            Named::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
            _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        (code, code.meaning().to_owned())
    })?;
    let (name, id) = (Text::from(topic.name.as_str()), topic.id);
    if references[&id] > 1 {
        return Err(invalid("The provided topic name maps to an ID that was already supplied."));
    }
    let record = controller.decide_delete_topic_id(id).map_err(refused)?;
    Ok((name, id, record))
}

fn result(call: &Call, named: &Named, outcome: Deleted) -> DeletableTopicResult {
    match outcome {
        Ok((name, topic_id)) => DeletableTopicResult { name: Some(name), topic_id, ..Default::default() },
        Err((error_code, message)) => {
            call.context.metrics.error(call.header.api.key(), error_code.0);
            let (name, topic_id) = match named {
                Named::Name(name) => (Some(name.clone()), TopicId::ZERO),
                Named::Id(id) => (None, *id),
                Named::Neither => (None, TopicId::ZERO),
                Named::Both(name, id) => (Some(name.clone()), *id),
            };
            DeletableTopicResult { name, topic_id, error_code, error_message: Some(message.into()) }
        }
    }
}
