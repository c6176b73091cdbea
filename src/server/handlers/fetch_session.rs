//! Fetch sessions (KIP-227): what a client reads is kept here, so that its requests and our answers name only what changed.
//!
//! A session belongs to the broker, not to a connection. Its epoch counts requests: one that is out of turn is refused, and
//! an answer that was overtaken is too. Invariants: at most as many sessions as there are slots; ids are positive and drawn
//! from the broker's seed; an epoch wraps from the largest to 1, since 0 and -1 open and close. Time comes in as an argument,
//! and nothing here waits. Lock order: the cache, then a session.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::fetch::PartitionData;
use crate::protocol::value::Text;

/// A session unused for so long may be evicted; one younger than that never is for its size.
pub const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Partitions kept over all sessions: about a quarter of a gigabyte. A client that asks for more reads without a session.
pub const PARTITIONS_MAX: usize = 1 << 20;
/// The session id that means "none".
const NO_SESSION: i32 = 0;
/// The epoch of a request that opens a session.
const OPEN_EPOCH: i32 = 0;
/// The epoch of a request that closes a session, or wants none.
const CLOSE_EPOCH: i32 = -1;
/// What a client has been told of a watermark before it was told anything.
const UNTOLD: i64 = -1;

/// A topic as fetch requests name it: by name up to version 12, by id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(Text),
    /// By id.
    Id(TopicId),
}

/// A partition as fetch requests name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The topic.
    pub topic: TopicKey,
    /// The partition's number, as the client sent it.
    pub partition: i32,
}

/// What a client wants of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The first offset to read.
    pub offset: i64,
    /// How many bytes to return at most.
    pub max_bytes: i32,
    /// The leader epoch that the client knows, or -1.
    pub current_epoch: i32,
    /// The epoch of the last record that it read, or -1.
    pub last_fetched_epoch: i32,
}

/// What one fetch request says about sessions and partitions.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The session, or 0.
    pub session_id: i32,
    /// The request's number in the session.
    pub session_epoch: i32,
    /// Whether topics are named by id.
    pub uses_ids: bool,
    /// The partitions listed, in order.
    pub wanted: Vec<(Key, Want)>,
    /// The partitions that leave the session.
    pub forgotten: Vec<Key>,
}

/// What was read of one partition.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The partition.
    pub key: Key,
    /// What was asked.
    pub want: Want,
    /// What was read.
    pub data: PartitionData,
}

/// What the response says of the session, and which answers it carries.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The top-level error.
    pub error: ErrorCode,
    /// The session's id, or 0.
    pub session_id: i32,
    /// The answers that the client needs, in order.
    pub answers: Vec<Answer>,
}

/// How a request relates to sessions, between its start and its answer.
#[derive(Debug)]
pub struct Ticket(Kind);

#[derive(Debug)]
enum Kind {
    Sessionless,
    Open { uses_ids: bool },
    Incremental { id: i32, epoch: i32, session: Arc<Mutex<Session>> },
}

/// The broker's fetch sessions.
#[derive(Debug)]
pub struct Sessions {
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Cache {
    slots: usize,
    random: StdRng,
    sessions: BTreeMap<i32, Slot>,
    /// The sum of the sessions' partitions.
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created: Instant,
    last_used: Instant,
    partitions: usize,
}

/// One session's partitions, in the order in which they are read.
#[derive(Debug)]
struct Session {
    /// The number of the next request.
    epoch: i32,
    uses_ids: bool,
    places: HashMap<Key, u64>,
    in_order: BTreeMap<u64, Cached>,
    next_place: u64,
}

#[derive(Debug)]
struct Cached {
    key: Key,
    want: Want,
    told_high_watermark: i64,
    told_log_start: i64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under the sessions' locks")
}

fn after(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

impl Sessions {
    /// Room for `slots` sessions, with ids drawn from `seed`.
    #[must_use]
    pub fn new(slots: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { cache: Mutex::new(Cache { slots, random, sessions: BTreeMap::new(), partitions: 0 }) }
    }

    /// How many sessions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.cache).sessions.len()
    }

    /// Begins a request: which partitions it reads, in order, and the ticket to finish it with.
    ///
    /// # Errors
    /// The top-level error of the response, when the session is unknown, out of turn, or of the other kind of topic names.
    pub fn begin(&self, ask: Ask, now: Instant) -> Result<(Ticket, Vec<(Key, Want)>), ErrorCode> {
        if ask.session_epoch == OPEN_EPOCH || ask.session_epoch == CLOSE_EPOCH {
            if ask.session_id != NO_SESSION {
                lock(&self.cache).remove(ask.session_id);
            }
            let kind = match ask.session_epoch {
                CLOSE_EPOCH => Kind::Sessionless,
                _ => Kind::Open { uses_ids: ask.uses_ids },
            };
            return Ok((Ticket(kind), without_duplicates(ask.wanted)));
        }
        let found = lock(&self.cache).take_turn(ask, now)?;
        match found {
            Turn::Closed(wanted) => Ok((Ticket(Kind::Sessionless), without_duplicates(wanted))),
            Turn::Next { id, epoch, session } => {
                let wanted = lock(&session).wanted();
                Ok((Ticket(Kind::Incremental { id, epoch, session }), wanted))
            }
        }
    }

    /// Finishes a request: opens the session that it asked for, or leaves out what the client knows already.
    #[must_use]
    pub fn finish(&self, ticket: Ticket, answers: Vec<Answer>, now: Instant) -> Finished {
        let done = |session_id, answers| Finished { error: ErrorCode::NONE, session_id, answers };
        match ticket.0 {
            Kind::Sessionless => done(NO_SESSION, answers),
            Kind::Open { uses_ids } => done(lock(&self.cache).open(uses_ids, &answers, now), answers),
            Kind::Incremental { id, epoch, session } => {
                let mut session = lock(&session);
                if session.epoch != epoch {
                    let error = ErrorCode::INVALID_FETCH_SESSION_EPOCH;
                    return Finished { error, session_id: id, answers: Vec::new() };
                }
                done(id, answers.into_iter().filter(|answer| session.must_tell(answer)).collect())
            }
        }
    }
}

enum Turn {
    /// Every partition has left: there is no session any more.
    Closed(Vec<(Key, Want)>),
    Next {
        id: i32,
        epoch: i32,
        session: Arc<Mutex<Session>>,
    },
}

impl Cache {
    fn take_turn(&mut self, ask: Ask, now: Instant) -> Result<Turn, ErrorCode> {
        let id = ask.session_id;
        let slot = self.sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        let shared = Arc::clone(&slot.session);
        let mut session = lock(&shared);
        if session.epoch != ask.session_epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.uses_ids != ask.uses_ids {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.update(&ask.wanted, &ask.forgotten);
        if session.places.is_empty() {
            self.remove(id);
            return Ok(Turn::Closed(ask.wanted));
        }
        slot.last_used = now;
        self.partitions = self.partitions - slot.partitions + session.places.len();
        slot.partitions = session.places.len();
        if self.partitions > PARTITIONS_MAX {
            // The client opens a new one, and is told to do without.
            self.remove(id);
            return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        }
        session.epoch = after(session.epoch);
        let epoch = session.epoch;
        drop(session);
        Ok(Turn::Next { id, epoch, session: shared })
    }

    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.partitions -= slot.partitions;
        }
    }

    /// Opens a session if there is room, and returns its id.
    fn open(&mut self, uses_ids: bool, answers: &[Answer], now: Instant) -> i32 {
        if self.partitions + answers.len() > PARTITIONS_MAX {
            return NO_SESSION;
        }
        if self.sessions.len() >= self.slots && !self.evict(answers.len(), now) {
            return NO_SESSION;
        }
        let mut session = Session::new(uses_ids);
        for answer in answers {
            let Answer { key, want, data } = answer;
            session.insert(key.clone(), *want, data.high_watermark, data.log_start_offset);
        }
        let id = loop {
            let id = self.random.random_range(1..=i32::MAX);
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let session = Arc::new(Mutex::new(session));
        self.partitions += answers.len();
        self.sessions.insert(id, Slot { session, created: now, last_used: now, partitions: answers.len() });
        id
    }

    /// Makes room for a session of so many partitions: at the cost of one that nobody uses, else of a smaller one that is not new.
    fn evict(&mut self, partitions: usize, now: Instant) -> bool {
        let stale = self.sessions.iter().min_by_key(|(id, slot)| (slot.last_used, **id));
        let stale = stale.filter(|(_, slot)| now.duration_since(slot.last_used) > EVICTION_AGE);
        let victim = stale.map(|(id, _)| *id).or_else(|| {
            let settled = |slot: &Slot| slot.last_used.duration_since(slot.created) > EVICTION_AGE;
            let candidates = self.sessions.iter().filter(|(_, slot)| settled(slot));
            let smallest = candidates.min_by_key(|(id, slot)| (slot.partitions, **id))?;
            (smallest.1.partitions < partitions).then_some(*smallest.0)
        });
        if let Some(id) = victim {
            self.remove(id);
        }
        victim.is_some()
    }
}

impl Session {
    fn new(uses_ids: bool) -> Self {
        let epoch = after(OPEN_EPOCH);
        Self { epoch, uses_ids, places: HashMap::new(), in_order: BTreeMap::new(), next_place: 0 }
    }

    /// Adds a partition behind all others. Its name no longer pins the request.
    fn insert(&mut self, mut key: Key, want: Want, told_high_watermark: i64, told_log_start: i64) {
        if let TopicKey::Name(name) = &mut key.topic {
            // Partitions of one topic come together: they share one copy of its name.
            *name = match self.in_order.last_key_value().map(|(_, last)| &last.key.topic) {
                Some(TopicKey::Name(last)) if last == name => last.clone(),
                _ => name.detached(),
            };
        }
        self.append(Cached { key, want, told_high_watermark, told_log_start });
    }

    fn append(&mut self, cached: Cached) {
        self.places.insert(cached.key.clone(), self.next_place);
        self.in_order.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn update(&mut self, wanted: &[(Key, Want)], forgotten: &[Key]) {
        for (key, want) in wanted {
            match self.find(key) {
                Some(cached) => cached.want = *want,
                None => self.insert(key.clone(), *want, UNTOLD, UNTOLD),
            }
        }
        for key in forgotten {
            if let Some(place) = self.places.remove(key) {
                self.in_order.remove(&place);
            }
        }
    }

    fn find(&mut self, key: &Key) -> Option<&mut Cached> {
        self.in_order.get_mut(self.places.get(key)?)
    }

    fn wanted(&self) -> Vec<(Key, Want)> {
        self.in_order.values().map(|cached| (cached.key.clone(), cached.want)).collect()
    }

    /// Whether the client has to be told this answer; takes note that it is. A partition that gave records goes to the end, so
    /// that the others have their turn when the limit of bytes is reached.
    fn must_tell(&mut self, answer: &Answer) -> bool {
        let data = &answer.data;
        let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let diverges = data.diverging_epoch.epoch >= 0;
        // Every answer is of a partition that was read for this very request, and the epoch says that nothing came between.
        let Some(cached) = self.find(&answer.key) else { return true };
        let moved = cached.told_high_watermark != data.high_watermark || cached.told_log_start != data.log_start_offset;
        cached.told_high_watermark = data.high_watermark;
        cached.told_log_start = data.log_start_offset;
        if data.error_code.is_error() {
            // Told again in any case once the error has gone.
            cached.told_high_watermark = UNTOLD;
        }
        if has_records {
            let place = self.places.remove(&answer.key);
            let cached = place.and_then(|place| self.in_order.remove(&place)).expect("it was found above");
            self.append(cached);
        }
        has_records || moved || diverges || data.error_code.is_error() || data.preferred_read_replica >= 0
    }
}

/// Of a partition that is listed more than once, the first place and the last wish count.
fn without_duplicates(mut wanted: Vec<(Key, Want)>) -> Vec<(Key, Want)> {
    let mut seen = HashSet::with_capacity(wanted.len());
    if wanted.len() < 2 || wanted.iter().all(|(key, _)| seen.insert(key)) {
        return wanted;
    }
    let last: HashMap<Key, Want> = wanted.iter().cloned().collect();
    let mut placed = HashSet::with_capacity(last.len());
    wanted.retain(|(key, _)| placed.insert(key.clone()));
    for (key, want) in &mut wanted {
        *want = last[key];
    }
    wanted
}

#[cfg(test)]
#[path = "fetch_session_tests.rs"]
mod tests;
