//! A member of a classic group.

use bytes::Bytes;

use super::record::MemberValue;
use super::{Moment, Ticket};
use crate::protocol::value::Text;

/// A request of a member that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It joins, and waits for the others.
    Join(Ticket),
    /// It waits for its share.
    Sync(Ticket),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: Text,
    pub(super) instance_id: Option<Text>,
    pub(super) client_id: Text,
    pub(super) client_host: Text,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) session_timeout_ms: u64,
    /// The protocols that it knows, the one it likes best first, and what it says for each.
    pub(super) protocols: Vec<(Text, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) waiting: Option<Waiting>,
    /// Whether it has joined a generation yet.
    pub(super) is_new: bool,
    /// Whether it has asked for its share of this generation.
    pub(super) synced: bool,
    /// When it is taken for dead. `None` while it waits: a request under way is a sign of life.
    pub(super) expires: Option<Moment>,
}

impl Member {
    /// What it says for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether it knows a protocol.
    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Which of these protocols it likes best.
    pub(super) fn vote<'a>(&'a self, candidates: &[Text]) -> Option<&'a Text> {
        self.protocols.iter().map(|(name, _)| name).find(|name| candidates.contains(name))
    }

    pub(super) fn is_joining(&self) -> bool {
        matches!(self.waiting, Some(Waiting::Join(_)))
    }

    /// As it is stored.
    pub(super) fn value(&self, protocol: Option<&Text>) -> MemberValue {
        MemberValue {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: i32::try_from(self.rebalance_timeout_ms).unwrap_or(i32::MAX),
            session_timeout: i32::try_from(self.session_timeout_ms).unwrap_or(i32::MAX),
            subscription: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            assignment: self.assignment.clone(),
        }
    }

    /// A member that was stored, whose session begins anew.
    pub(super) fn stored(value: MemberValue, protocol: Option<&Text>, now: Moment) -> Self {
        let session_timeout_ms = u64::try_from(value.session_timeout).unwrap_or(0);
        Self {
            id: value.member_id,
            instance_id: value.group_instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: u64::try_from(value.rebalance_timeout).unwrap_or(session_timeout_ms),
            session_timeout_ms,
            protocols: protocol.map(|protocol| (protocol.clone(), value.subscription)).into_iter().collect(),
            assignment: value.assignment,
            waiting: None,
            is_new: false,
            synced: true,
            expires: Some(now.after(session_timeout_ms)),
        }
    }
}
