//! What the members of a group read, and the target that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;

use super::super::record::Part;
use super::super::{Effects, KnownTopic, Moment, Now, Topics};
use super::assignor::{Assignor, Reader};
use super::member::Goal;
use super::record::{MemberValue, Partitions, RegexValue, TargetEpochValue, record, tombstone};
use super::{Group, Refusal};
use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;

/// The longest regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1024;
/// Memory that a compiled regular expression may take: what a short one can ask for grows with its repetitions.
const REGEX_HEAP_BYTES_MAX: usize = 256 << 10;
/// Different regular expressions of the members of a group: each is matched with the name of each topic.
const REGEXES_MAX: usize = 100;
/// Names of topics that the expressions of a group may stand for, all together, when one more comes.
const EXPRESSED_MAX: usize = 100_000;
/// The topics of the cluster are looked at anew at most so often for each group, and so much less often for each expression.
const LOOK_AGAIN_MS: u64 = 1_000;
const LOOK_AGAIN_FOR_REGEX_MS: u64 = 100;
/// Steps of an assignor in about a millisecond. As long as a target took, no other is computed.
const STEPS_IN_A_MS: usize = 2_000;

/// When the cluster's topics were looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    version: u64,
    at: Moment,
}

/// An expression that stands for whole names of topics. Takes a while: not for a coordinator's turn.
///
/// # Errors
/// Why it is none, or too large a one.
pub fn compile(expression: &str) -> Result<regex::Regex, Refusal> {
    let refused = |error: String| Refusal {
        code: ErrorCode::INVALID_REGULAR_EXPRESSION,
        message: format!("SubscribedTopicRegex `{expression}` is not a valid regular expression: {error}."),
    };
    if expression.len() > REGEX_BYTES_MAX {
        return Err(refused(format!("it has {} bytes, {REGEX_BYTES_MAX} are allowed", expression.len())));
    }
    let build = |expression: &str| {
        RegexBuilder::new(expression).size_limit(REGEX_HEAP_BYTES_MAX).dfa_size_limit(REGEX_HEAP_BYTES_MAX).build()
    };
    // By itself first: what closes a bracket that it did not open is no expression.
    let built = build(expression).and_then(|_| build(&format!("^(?:{expression})$")));
    built.map_err(|error| refused(error.to_string()))
}

fn matching(expression: &regex::Regex, names: &[Text]) -> BTreeSet<Text> {
    names.iter().filter(|name| expression.is_match(name)).cloned().collect()
}

impl Group {
    /// Whether there is room for one more expression.
    pub(super) fn has_room_for_regex(&self, expression: &Text) -> bool {
        let expressed = || self.regexes.values().map(|(_, topics)| topics.len()).sum::<usize>();
        self.regexes.contains_key(expression) || (self.regexes.len() < REGEXES_MAX && expressed() < EXPRESSED_MAX)
    }

    /// A member reads something from now on.
    pub(super) fn note_subscription(
        &mut self,
        now: Now,
        says: &MemberValue,
        expression: Option<&regex::Regex>,
        topics: &dyn Topics,
        out: &mut Effects,
    ) {
        for topic in &says.topics {
            *self.named.entry(topic.clone()).or_default() += 1;
        }
        let Some(regex) = says.regex.as_ref().filter(|regex| !regex.is_empty()) else { return };
        if let Some((members, _)) = self.regexes.get_mut(regex) {
            *members += 1;
            return;
        }
        let version = topics.version();
        let found = expression.map(|expression| matching(expression, &topics.names())).unwrap_or_default();
        self.regexes.insert(regex.clone(), (1, found));
        self.remember_regex(now, regex, version, out);
    }

    /// A member does not read any more what it did.
    pub(super) fn forget_subscription(&mut self, says: &MemberValue, out: &mut Effects) {
        for topic in &says.topics {
            let Some(members) = self.named.get_mut(topic) else { continue };
            *members -= 1;
            if *members == 0 {
                self.named.remove(topic);
            }
        }
        let Some(regex) = says.regex.as_ref().filter(|regex| !regex.is_empty()) else { return };
        let Some((members, _)) = self.regexes.get_mut(regex) else { return };
        *members -= 1;
        if *members == 0 {
            self.regexes.remove(regex);
            out.records.push(tombstone(&self.id, &Part::Regex(regex.clone())));
        }
    }

    fn remember_regex(&self, now: Now, regex: &Text, version: u64, out: &mut Effects) {
        let topics = self.regexes[regex].1.iter().cloned().collect();
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let value = RegexValue { topics, version, at: now.wall.0 };
        out.records.push(record(&self.id, &Part::Regex(regex.clone()), &value));
    }

    /// Looks whether the topics that members read are what they were; if not, or if `must`, the group has a new epoch.
    pub(super) fn look_at_topics(&mut self, now: Now, must: bool, topics: &dyn Topics, out: &mut Effects) {
        let version = topics.version();
        let regexes = u64::try_from(self.regexes.len()).unwrap_or(u64::MAX);
        let again_ms = LOOK_AGAIN_MS.saturating_add(regexes.saturating_mul(LOOK_AGAIN_FOR_REGEX_MS));
        let is_old = |seen: Seen| seen.version != version && now.moment >= seen.at.after(again_ms);
        let looks = self.seen.is_none_or(is_old);
        if looks {
            self.seen = Some(Seen { version, at: now.moment });
            let names = if self.regexes.is_empty() { Vec::new() } else { topics.names() };
            for regex in self.regexes.keys().cloned().collect::<Vec<_>>() {
                // One that was taken by another version of this program, and is none here, stands for nothing.
                let found = compile(&regex).map(|compiled| matching(&compiled, &names)).unwrap_or_default();
                let known = &mut self.regexes.get_mut(&regex).expect("it is one of them").1;
                if *known != found {
                    *known = found;
                    self.remember_regex(now, &regex, version, out);
                }
            }
        }
        if must || looks {
            let digest = self.digest_of(topics);
            if must || digest != self.digest {
                self.digest = digest;
                self.next_epoch(now, out);
            }
        }
    }

    /// The names of all topics that members read.
    fn read_names(&self) -> BTreeSet<&Text> {
        self.named.keys().chain(self.regexes.values().flat_map(|(_, topics)| topics)).collect()
    }

    /// Whether a member reads a topic.
    #[must_use]
    pub fn is_subscribed(&self, topic: &Text) -> bool {
        self.named.contains_key(topic) || self.regexes.values().any(|(_, topics)| topics.contains(topic))
    }

    /// A digest of the topics that members read: FNV-1a over names, ids and numbers of partitions.
    pub(super) fn digest_of(&self, topics: &dyn Topics) -> i64 {
        let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for name in self.read_names() {
            let Some(topic) = topics.find(name) else { continue };
            add(name.as_bytes());
            add(&[0]);
            add(&topic.id.0);
            add(&topic.partitions.to_be_bytes());
        }
        i64::from_be_bytes(digest.to_be_bytes())
    }

    /// The topics that a member reads and that are there.
    pub(super) fn reads(&self, says: &MemberValue, topics: &dyn Topics) -> BTreeSet<TopicId> {
        let by_regex = says.regex.as_ref().and_then(|regex| self.regexes.get(regex));
        let names = says.topics.iter().chain(by_regex.into_iter().flat_map(|(_, topics)| topics));
        names.filter_map(|name| topics.find(name)).map(|topic| topic.id).collect()
    }

    /// The assignor that most members want of those who want one.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        let wanted = self.members.values().filter_map(|member| member.says.assignor.as_deref());
        for assignor in wanted.filter_map(Assignor::by_name) {
            *votes.entry(assignor).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map_or(Assignor::DEFAULT, |(assignor, _)| assignor)
    }

    /// Computes the target of this epoch if there is none, now or soon.
    pub(super) fn retarget_if_due(&mut self, now: Now, topics: &dyn Topics, out: &mut Effects) {
        if self.epoch <= self.target_epoch {
            return;
        }
        if now.moment >= self.retarget_from {
            self.retarget(now, topics, out);
        } else {
            self.retarget_at = Some(self.retarget_from);
        }
    }

    /// Computes what each member shall have.
    pub(super) fn retarget(&mut self, now: Now, topics: &dyn Topics, out: &mut Effects) {
        self.retarget_at = None;
        let found = self.read_names().into_iter().filter_map(|name| topics.find(name));
        let counts: BTreeMap<TopicId, i32> = found.map(|KnownTopic { id, partitions }| (id, partitions)).collect();
        // Most members read the same: it is looked up once.
        let mut subscriptions: BTreeMap<(&[Text], Option<&Text>), BTreeSet<TopicId>> = BTreeMap::new();
        for member in self.members.values() {
            let subscription = (&*member.says.topics, member.regex());
            subscriptions.entry(subscription).or_insert_with(|| self.reads(&member.says, topics));
        }
        let readers: Vec<Reader<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Reader {
                id,
                instance_id: member.says.instance_id.as_ref(),
                topics: &subscriptions[&(&*member.says.topics, member.regex())],
                has: self.targets.get(id),
            })
            .collect();
        let (shares, steps) = self.assignor().assign(&readers, &counts);
        let none = Partitions::new();
        let is_new = |(id, share): &(&Text, Partitions)| self.targets.get(*id).unwrap_or(&none) != share;
        let changed = readers.iter().map(|reader| reader.id).zip(shares).filter(is_new);
        let changed: Vec<(Text, Partitions)> = changed.map(|(id, share)| (id.clone(), share)).collect();
        for (id, share) in changed {
            self.targets.insert(id.clone(), share);
            out.records.push(self.target_record(&id));
        }
        self.target_epoch = self.epoch;
        let value = TargetEpochValue { epoch: self.epoch, at: now.wall.0 };
        out.records.push(record(&self.id, &Part::TargetEpoch, &value));
        let took_ms = u64::try_from(steps / STEPS_IN_A_MS).unwrap_or(u64::MAX);
        self.retarget_from = now.moment.after(took_ms);
    }

    /// Has a member take its next step to what it shall have. Whether it may use other partitions than before.
    pub(super) fn reconcile(
        &mut self,
        now: Now,
        id: &Text,
        reads_others: bool,
        owned: Option<&Partitions>,
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> bool {
        let member = &self.members[id];
        if !reads_others && member.standing.is_reconciled_to(self.target_epoch) {
            return false;
        }
        let (none, owners) = (Partitions::new(), &self.owners);
        let goal = Goal {
            target: self.targets.get(id).unwrap_or(&none),
            epoch: self.target_epoch,
            reads: &self.reads(&member.says, topics),
            reads_others,
            owned,
            is_free: &|topic, partition| owners.get(&(topic, partition)).is_none_or(|owner| owner == id),
        };
        let next = member.standing.next(&goal);
        if next == member.standing {
            return false;
        }
        let keys = |standing: &super::Standing| -> Vec<(TopicId, Vec<i32>)> {
            standing.given.iter().map(|(topic, given)| (*topic, given.keys().copied().collect())).collect()
        };
        let has_others = keys(&next) != keys(&member.standing);
        let (is_classic, timeout_ms) = (member.is_classic(), member.rebalance_timeout_ms());
        let revokes = next.state == super::member::State::Revoking && !is_classic;
        self.stand(id, next);
        out.records.push(self.current_record(id));
        self.set_timers(id, |timers| timers.revoke = revokes.then(|| now.moment.after(timeout_ms)));
        has_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_stand_for_whole_names_and_take_bounded_memory() {
        let matches = |expression: &str, name: &str| compile(expression).unwrap().is_match(name);
        assert!(matches("orders|bills", "bills") && !matches("orders|bills", "bills-2"));
        assert!(matches("orders.*", "orders-2") && !matches("orders", "all-orders"));
        assert!(matches("(?i)ORDERS", "orders"));
        for expression in ["a)(b", "(", "[", "(?<!a)b", r"(a)\1", "((a{1000}){1000}){1000}", &"a".repeat(5000)] {
            let refused = compile(expression).unwrap_err();
            assert_eq!(refused.code, ErrorCode::INVALID_REGULAR_EXPRESSION);
        }
        // What runs away elsewhere is linear here.
        assert!(!matches("(a*)*b", &"a".repeat(249)));
    }
}
