//! The Kafka wire codec: bytes to structs and back, for both ends of a connection. See [`frame`] for how to use it.
//!
//! - [`frame`]: whole requests and responses with their size in front, and the size checks.
//! - [`header`]: what stands before a message's body.
//! - [`api`]: the one table of APIs and versions. [`error_code`]: the one table of errors.
//! - [`messages`]: the messages, one declaration each; [`wire`] makes codecs of them.
//! - [`batch`], [`record`], [`compression`]: the record batch format (KIP-98), its checks, and the records inside.
//! - [`consumer_protocol`]: what members of classic groups of consumers tell each other.
//! - [`primitive`], [`value`]: bounded reading, writing without copies of records.
//!
//! Bytes from a peer never make any of this panic, nor allocate by a size that was not checked.

pub mod api;
pub mod batch;
pub mod compression;
pub mod consumer_protocol;
pub mod error_code;
pub mod frame;
pub mod header;
pub mod messages;
pub mod primitive;
pub mod record;
pub mod value;
pub mod wire;
