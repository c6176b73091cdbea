//! What a topic may be called.

use super::{Kind, Refusal};

/// The longest topic name, in bytes (Kafka's limit: it becomes part of a file's name there).
pub const NAME_BYTES_MAX: usize = 249;

/// The topic whose partitions coordinate groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Names that belong to the cluster itself.
const INTERNAL: [&str; 3] = [OFFSETS_TOPIC, "__share_group_state", "__transaction_state"];

/// Kafka's own name for the controller's log, which no topic may have.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Whether the topic belongs to the cluster itself, so that clients may not write to it.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Checks a name by itself.
///
/// # Errors
/// [`Kind::InvalidTopic`], or [`Kind::InvalidRequest`] for the one reserved name.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid = |why: &str| Err(Refusal::new(Kind::InvalidTopic, format!("Topic name is invalid: {why}")));
    match name {
        "" => invalid("the empty string is not allowed"),
        "." => invalid("'.' is not allowed"),
        ".." => invalid("'..' is not allowed"),
        CLUSTER_METADATA => {
            let message = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
            Err(Refusal::new(Kind::InvalidRequest, message))
        }
        // The length in characters, as Kafka counts them; of legal ones each is a byte.
        name if name.encode_utf16().count() > NAME_BYTES_MAX => {
            invalid(&format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}"))
        }
        name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => invalid(&format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )),
        _ => Ok(()),
    }
}

/// The name as metrics would show it: names that are equal here collide.
pub(super) fn fold_name(name: &str) -> String {
    name.replace('.', "_")
}
