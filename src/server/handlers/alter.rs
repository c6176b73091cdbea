//! What AlterConfigs and IncrementalAlterConfigs have in common, and how a refusal of the controller is told.

use std::collections::BTreeSet;

use crate::machine::controller::configs::DRAIN;
use crate::machine::controller::{Controller, Record, Refusal, Resource};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::replica::controller::ChangeError;
use crate::server::dispatch::Call;
use crate::server::error;

const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Why something was refused: the code, and the reason for people.
pub(super) type Refused = (ErrorCode, String);
/// What became of the changes to one resource.
pub(super) type Outcome = Result<(), Refused>;

/// How a refusal of the controller's machine is told.
pub(super) fn refused(refusal: Refusal) -> Refused {
    (error::controller(refusal.kind), refusal.message)
}

/// How a change that was not made is told.
pub(super) fn not_made(failure: ChangeError<Refused>) -> Refused {
    match failure {
        ChangeError::Refused(refused) => refused,
        // Retriable, here or at another broker.
        ChangeError::Unavailable(unavailable) => (ErrorCode::NOT_CONTROLLER, unavailable.to_string()),
    }
}

/// The resources that are named more than once.
pub(super) fn repeated(named: &[(i8, Text)]) -> BTreeSet<(i8, Text)> {
    let mut seen = BTreeSet::new();
    named.iter().filter(|resource| !seen.insert(*resource)).cloned().collect()
}

pub(super) fn refused_as_repeated() -> Refused {
    (ErrorCode::INVALID_REQUEST, "Each resource must appear at most once.".to_owned())
}

/// What the response says.
pub(super) fn told(call: &Call, outcome: Outcome) -> (ErrorCode, Option<Text>) {
    match outcome {
        Ok(()) => (ErrorCode::NONE, None),
        Err((code, message)) => {
            call.context.metrics.error(call.header.api.key(), code.0);
            (code, Some(message.into()))
        }
    }
}

/// Checks the entries' names: each at most once, and none without the value that it needs.
pub(super) fn check_names<'a>(names: &[&str], nulls: impl Iterator<Item = &'a str>) -> Outcome {
    let distinct: BTreeSet<_> = names.iter().collect();
    if distinct.len() < names.len() {
        return Err((ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys".to_owned()));
    }
    let nulls: Vec<_> = nulls.collect();
    match nulls.is_empty() {
        true => Ok(()),
        false => Err((ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {}", nulls.join(", ")))),
    }
}

/// Checks that a resource is of a kind that has configs here. A broker named by its id has to be this one, as in Kafka, unless it is about what the controller
/// keeps of it alone: a broker that is away can be drained too.
pub(super) fn check_resource(call: &Call, resource_type: i8, name: &str, configs: &[&str]) -> Outcome {
    let invalid = |message: String| Err((ErrorCode::INVALID_REQUEST, message));
    let me = call.context.broker.0;
    match (resource_type, name) {
        (TOPIC, _) | (BROKER, "") => Ok(()),
        (BROKER, name) => match name.parse::<i32>() {
            Ok(id) if id == me || !configs.is_empty() && configs.iter().all(|config| *config == DRAIN) => Ok(()),
            Ok(_) => invalid(format!("Unexpected broker id, expected {me}, but received {name}")),
            Err(_) => invalid(format!("Node id must be an integer, but it is: {name}")),
        },
        (other, _) => invalid(format!("Unknown resource type {other}")),
    }
}

/// Changes a resource's configs, or only checks the change.
pub(super) async fn change(
    call: &Call,
    (resource_type, name): (i8, &str),
    validate_only: bool,
    decide: impl Fn(&Controller, Resource) -> Result<Vec<Record>, Refusal>,
) -> Outcome {
    let changed = call.context.controller.change(|controller| {
        let resource = controller.find_resource(resource_type, name).map_err(refused)?;
        let records = decide(controller, resource).map_err(refused)?;
        Ok((if validate_only { Vec::new() } else { records }, ()))
    });
    changed.await.map_err(not_made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_named_twice_is_found() {
        let named = [(2, Text::from("a")), (4, Text::from("a")), (2, Text::from("a"))];
        assert_eq!(repeated(&named), BTreeSet::from([(2, Text::from("a"))]));
    }

    #[test]
    fn an_entry_named_twice_or_without_its_value_is_refused() {
        assert_eq!(check_names(&["a", "b"], std::iter::empty()), Ok(()));
        assert!(check_names(&["a", "a"], std::iter::empty()).is_err());
        let (_, message) = check_names(&["a", "b"], ["a", "b"].into_iter()).unwrap_err();
        assert_eq!(message, "Null value not supported for : a, b");
    }
}
