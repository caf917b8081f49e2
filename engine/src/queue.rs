//! The queue of transfers: who may have a connection now, who waits, and for what.
//!
//! A state machine with time as an argument. Requests come in, [`TransferQueue::start`] gives out
//! those whose turn it is, [`TransferQueue::end`] takes their places back, and
//! [`TransferQueue::report`] tells how hosts answered. Between hosts it is fair, within a host the
//! more urgent one goes first until another has waited for too long. A host that does not answer,
//! or that asked to be left alone, is left alone; what is for others goes on.
//!
//! Deliberately absent: what is transferred, retries of one transfer (its owner asks again), and
//! sharing of one transfer by many who want it.

mod host;
mod limits;
mod pace;
#[cfg(test)]
mod random;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use limits::{BreakerPolicy, Limit, QueueLimits};
pub use room::{Elsewhere, Reserved, RoomId};

use crate::Timestamp;
use host::{Host, Verdict};
use pace::Bucket;
use room::Room;

/// A step of urgency is worth so much waiting: nobody is overtaken for longer than
/// 255 times this (42 minutes) by what comes later.
pub const AGING_MS: u64 = 10_000;

/// A host that could have a turn is passed by so many rounds of starts for more urgent others,
/// before it is among those that go first. A round is one start for each host that could have one.
pub const ROUNDS_PASSED_MAX: u64 = 8;

/// Hosts that are remembered although nothing goes on with them.
const HOSTS_MAX: usize = 1024;

/// One connection that is wanted or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TicketId(pub u64);

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// With whom: `host:port`.
    pub host: Arc<str>,
    /// Over which scheme, lower case.
    pub scheme: Arc<str>,
    /// How urgent it is; more is sooner.
    pub priority: u8,
    /// The room that it has to have before it starts; 0 bytes: what it has by then is enough, or
    /// nobody knows yet.
    pub room: Option<(RoomId, u64)>,
}

/// How a host answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answered, if only that there is no such file.
    Given,
    /// It could not be reached, fell silent, or cannot serve anybody now.
    Missing,
    /// It asked to be left alone for so long.
    Later(Duration),
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A free connection among all, or its turn among those who want one.
    Turn,
    /// A free one of the connections that its host may have.
    Host {
        /// How many those are.
        connections_max: u32,
    },
    /// A free one of the connections that its scheme may have.
    Scheme {
        /// How many those are.
        connections_max: u32,
    },
    /// The moment until which its host asked to be left alone.
    Asked {
        /// That moment.
        until: Timestamp,
    },
    /// Its host, which does not answer.
    Down {
        /// Since when it is left alone.
        since: Timestamp,
        /// When it is tried again; in the past: that is being done.
        until: Timestamp,
    },
    /// Room for its bytes.
    Room {
        /// How many those are.
        bytes: u64,
    },
}

/// Sorts those who wait for one host: the lower, the sooner.
type Rank = (i64, TicketId);

#[derive(Debug)]
struct Ticket {
    request: Request,
    rank: Rank,
    under_way: bool,
}

#[derive(Debug, Default)]
struct Scheme {
    under_way: u32,
    pace: Option<Bucket>,
}

/// All who want connections, and all who have one.
#[derive(Debug)]
pub struct TransferQueue {
    limits: QueueLimits,
    tickets: BTreeMap<TicketId, Ticket>,
    hosts: BTreeMap<Arc<str>, Host>,
    schemes: BTreeMap<Arc<str>, Scheme>,
    under_way: u32,
    pace: Option<Bucket>,
    room: Room,
    /// Somebody whose turn it is waits for room, so nobody else gets any.
    room_is_awaited: bool,
    next_ticket: u64,
    starts: u64,
}

/// Why nothing of a host can start, or what can.
enum Candidate {
    None,
    Ready(TicketId),
    /// All it lacks is room.
    Cramped(TicketId),
}

impl TransferQueue {
    /// An empty one.
    pub fn new(limits: QueueLimits) -> Self {
        let pace = limits.bytes_per_second.map(Bucket::new);
        let room = Room::new(limits.space_max);
        Self {
            limits,
            tickets: BTreeMap::new(),
            hosts: BTreeMap::new(),
            schemes: BTreeMap::new(),
            under_way: 0,
            pace,
            room,
            room_is_awaited: false,
            next_ticket: 0,
            starts: 0,
        }
    }

    /// Somebody wants a connection.
    pub fn request(&mut self, now: Timestamp, request: Request) -> TicketId {
        let id = self.new_ticket(now, request, false);
        let ticket = &self.tickets[&id];
        let host = self.hosts.get_mut(&ticket.request.host).expect("it was just made");
        host.waiting.entry(Arc::clone(&ticket.request.scheme)).or_default().insert(ticket.rank);
        id
    }

    /// One more connection for somebody who has one already: only if nobody waits who could have
    /// it, and never the last one.
    pub fn request_extra(
        &mut self,
        now: Timestamp,
        host: &Arc<str>,
        scheme: &Arc<str>,
    ) -> Option<TicketId> {
        let is_spare = self.under_way + 1 < self.limits.total_max.max(1)
            && self.scheme_has_place(scheme)
            && self.hosts.get(host).is_some_and(|host| host.may_have_more(now));
        is_spare.then(|| {
            let (host, scheme) = (Arc::clone(host), Arc::clone(scheme));
            let request = Request { host, scheme, priority: 0, room: None };
            let id = self.new_ticket(now, request, true);
            self.take_place(id);
            id
        })
    }

    fn new_ticket(&mut self, now: Timestamp, request: Request, under_way: bool) -> TicketId {
        let id = TicketId(self.next_ticket);
        self.next_ticket += 1;
        let bonus = u64::from(request.priority) * AGING_MS;
        let rank = (now.0.cast_signed().saturating_sub_unsigned(bonus), id);
        if !self.hosts.contains_key(&request.host) {
            if self.hosts.len() >= HOSTS_MAX {
                self.hosts.retain(|_, host| !host.is_idle(now));
            }
            let host = Host::new(&self.limits, &request.host);
            self.hosts.insert(Arc::clone(&request.host), host);
        }
        if !self.schemes.contains_key(&request.scheme) {
            let pace = self.limits.scheme(&request.scheme).bytes_per_second.map(Bucket::new);
            let scheme = Scheme { under_way: 0, pace };
            self.schemes.insert(Arc::clone(&request.scheme), scheme);
        }
        self.tickets.insert(id, Ticket { request, rank, under_way });
        id
    }

    /// Adds those whose turn it is, in the order in which they got it. To be called after whatever
    /// changed, and at [`next_deadline`](Self::next_deadline).
    pub fn start(&mut self, now: Timestamp, started: &mut Vec<TicketId>) {
        self.room_is_awaited = false;
        while self.under_way < self.limits.total_max.max(1) {
            let Some(id) = self.choose(now) else { return };
            let Ticket { request, rank, under_way } =
                self.tickets.get_mut(&id).expect("who waits has a ticket");
            *under_way = true;
            if let Some((room, bytes)) = request.room.filter(|(_, bytes)| *bytes > 0) {
                self.room.take(room, bytes);
            }
            let host = self.hosts.get_mut(&request.host).expect("who waits has a host");
            host.stop_waiting(&request.scheme, *rank);
            self.starts += 1;
            host.served(now, self.starts, id);
            self.take_place(id);
            started.push(id);
        }
    }

    fn take_place(&mut self, id: TicketId) {
        let request = &self.tickets[&id].request;
        self.under_way += 1;
        if let Some(host) = self.hosts.get_mut(&request.host) {
            host.under_way += 1;
        }
        if let Some(scheme) = self.schemes.get_mut(&request.scheme) {
            scheme.under_way += 1;
        }
    }

    /// The next to start. Hosts that were passed often go first, in the order in which they were
    /// last served; then those with the most urgent request; then, again, by when they were served.
    fn choose(&mut self, now: Timestamp) -> Option<TicketId> {
        let waiting = self.hosts.iter().filter(|(_, host)| !host.waiting.is_empty());
        let able = waiting.filter_map(|(name, host)| match self.candidate(now, host) {
            Candidate::None => None,
            Candidate::Ready(id) => Some((name, host, id, false)),
            Candidate::Cramped(id) => Some((name, host, id, true)),
        });
        let able: Vec<_> = able.collect();
        let passed_max = ROUNDS_PASSED_MAX * able.len() as u64;
        let order = |(name, host, id, cramped): (&Arc<str>, &Host, TicketId, bool)| {
            let urgency = u8::MAX - self.tickets[&id].request.priority;
            let is_patient = host.passed < passed_max;
            let urgency = if is_patient { urgency } else { 0 };
            ((is_patient, urgency, host.last_served), Arc::clone(name), id, cramped)
        };
        let mut able: Vec<_> = able.into_iter().map(order).collect();
        able.sort();
        let mut chosen = None;
        for (_, name, id, cramped) in able {
            let lacks_room = cramped || self.room_is_awaited && self.wants_first_room(id);
            if chosen.is_none() && !lacks_room {
                chosen = Some(id);
                continue;
            }
            self.room_is_awaited |= cramped && chosen.is_none();
            let host = self.hosts.get_mut(&name).expect("it is able");
            host.passed = host.passed.saturating_add(u64::from(chosen.is_some()));
        }
        chosen
    }

    /// Whether somebody is to have room who has none yet. Who has some goes before those who wait
    /// for their first, since its bytes are in their way.
    fn wants_first_room(&self, id: TicketId) -> bool {
        let room = self.tickets[&id].request.room;
        room.is_some_and(|(room, bytes)| bytes > 0 && !self.room.has_some(room))
    }

    /// The one that is next at a host, whatever is wanted elsewhere.
    fn candidate(&self, now: Timestamp, host: &Host) -> Candidate {
        if !host.may_start(now) {
            return Candidate::None;
        }
        let schemes = host.waiting.iter().filter(|(scheme, _)| self.scheme_has_place(scheme));
        let Some((_, id)) = schemes.filter_map(|(_, ranks)| ranks.first()).min() else {
            return Candidate::None;
        };
        match self.tickets[id].request.room {
            Some((room, bytes)) if self.offer(room, bytes, 0) == Reserved::Later => {
                let lines = host.waiting.iter().filter(|(scheme, _)| self.scheme_has_place(scheme));
                let settled =
                    lines.flat_map(|(_, line)| line).filter(|(_, id)| self.is_settled(*id));
                settled.min().map_or(Candidate::Cramped(*id), |(_, id)| Candidate::Ready(*id))
            }
            _ => Candidate::Ready(*id),
        }
    }

    /// Whether it has the room that it is to have, which others may wait for: it goes before them.
    fn is_settled(&self, id: TicketId) -> bool {
        let room = self.tickets[&id].request.room;
        room.is_some_and(|(room, bytes)| self.room.has_some(room) && self.room.own(room) >= bytes)
    }

    /// While nothing else is under way, here or elsewhere, there is room for one.
    fn offer(&self, room: RoomId, bytes: u64, own_connections: u32) -> Reserved {
        self.room.offer(room, bytes, self.under_way <= own_connections)
    }

    fn scheme_has_place(&self, scheme: &str) -> bool {
        let used = self.schemes.get(scheme).map_or(0, |scheme| scheme.under_way);
        self.limits.scheme(scheme).connections.is_none_or(|max| used < max.max(1))
    }

    /// Somebody needs no connection any more, or none after all. Twice is harmless.
    pub fn end(&mut self, now: Timestamp, id: TicketId) {
        let Some(Ticket { request, rank, under_way }) = self.tickets.remove(&id) else { return };
        let host = self.hosts.get_mut(&request.host).expect("a ticket has a host");
        if under_way {
            self.under_way -= 1;
            host.under_way -= 1;
            host.probe_ended(now, id);
            if let Some(scheme) = self.schemes.get_mut(&request.scheme) {
                scheme.under_way -= 1;
            }
        } else {
            host.stop_waiting(&request.scheme, rank);
        }
        if host.is_forgettable(now) {
            self.hosts.remove(&request.host);
        }
    }

    /// Somebody is more urgent than it was; never less. What it has waited for so far still counts.
    pub fn raise(&mut self, id: TicketId, priority: u8) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        let more = priority.saturating_sub(ticket.request.priority);
        let before = ticket.rank;
        ticket.request.priority += more;
        ticket.rank.0 = before.0.saturating_sub_unsigned(u64::from(more) * AGING_MS);
        if !ticket.under_way {
            let host = self.hosts.get_mut(&ticket.request.host).expect("a ticket has a host");
            host.stop_waiting(&ticket.request.scheme, before);
            let scheme = Arc::clone(&ticket.request.scheme);
            host.waiting.entry(scheme).or_default().insert(ticket.rank);
        }
    }

    /// Tells how a host answered to somebody who has a connection. Whether the host is left alone
    /// from now on, and was not before.
    pub fn report(&mut self, now: Timestamp, id: TicketId, answer: Answer) -> bool {
        let Some(ticket) = self.tickets.get(&id).filter(|ticket| ticket.under_way) else {
            return false;
        };
        let host = self.hosts.get_mut(&ticket.request.host).expect("a ticket has a host");
        host.answered(now, id, answer, &self.limits.breaker) == Verdict::WentDown
    }

    /// How long to wait after so many bytes with a host, for the limits on bandwidth to hold.
    pub fn grant(&mut self, now: Timestamp, id: TicketId, bytes: u64) -> Duration {
        let Some(ticket) = self.tickets.get(&id) else { return Duration::ZERO };
        let host = self.hosts.get_mut(&ticket.request.host);
        let scheme = self.schemes.get_mut(&ticket.request.scheme);
        let paces = [
            self.pace.as_mut(),
            host.and_then(|host| host.pace.as_mut()),
            scheme.and_then(|scheme| scheme.pace.as_mut()),
        ];
        let waits = paces.into_iter().flatten().map(|pace| pace.take(now, bytes));
        waits.max().unwrap_or_default()
    }

    /// Somebody with a connection wants room for so many bytes in all, at once or not at all.
    pub fn reserve(&mut self, room: RoomId, bytes: u64) -> Reserved {
        let offered = self.offer(room, bytes, 1);
        if offered == Reserved::Yes {
            if self.room_is_awaited && bytes > 0 && !self.room.has_some(room) {
                return Reserved::Later;
            }
            self.room.take(room, bytes);
        }
        offered
    }

    /// So many bytes are there by now, whether there was room for them or not.
    pub fn occupy(&mut self, room: RoomId, bytes: u64) {
        self.room.take(room, bytes);
    }

    /// All bytes are here that there is room for, and are about to be somebody else's matter. Until
    /// then nobody goes beyond the bound.
    pub fn fill(&mut self, room: RoomId) {
        self.room.fill(room);
    }

    /// How many bytes have to go so that one of those can start who wait for nothing but room;
    /// `None`: nobody does.
    pub fn room_lacking(&self, now: Timestamp) -> Option<u64> {
        let waiting = self.hosts.values().filter(|host| !host.waiting.is_empty());
        let cramped = waiting.filter_map(|host| match self.candidate(now, host) {
            Candidate::Cramped(id) => self.tickets[&id].request.room,
            _ => None,
        });
        cramped.map(|(room, bytes)| self.room.lack(room, bytes)).min()
    }

    /// The bytes are gone, or somebody else's matter. Twice is harmless.
    pub fn release(&mut self, room: RoomId) {
        self.room.release(room);
    }

    /// How many bytes are kept elsewhere that count against the same bound, and whether anything
    /// there goes on that may free some.
    pub fn set_elsewhere(&mut self, elsewhere: Elsewhere) {
        self.room.set_elsewhere(elsewhere);
    }

    /// What a request waits for; `None` when it does not wait.
    pub fn waiting(&self, now: Timestamp, id: TicketId) -> Option<Wait> {
        let ticket = self.tickets.get(&id).filter(|ticket| !ticket.under_way)?;
        let Request { host, scheme, room, .. } = &ticket.request;
        let host = &self.hosts[host];
        if let Some(wait) = host.is_left_alone(now) {
            return Some(wait);
        }
        if let Some(max) = host.connections_max.filter(|max| host.under_way >= *max) {
            return Some(Wait::Host { connections_max: max });
        }
        if !self.scheme_has_place(scheme) {
            let connections_max = self.limits.scheme(scheme).connections.unwrap_or(1).max(1);
            return Some(Wait::Scheme { connections_max });
        }
        let cramped = room.filter(|(room, bytes)| {
            self.offer(*room, *bytes, 0) != Reserved::Yes
                || self.room_is_awaited && self.wants_first_room(id)
        });
        Some(cramped.map_or(Wait::Turn, |(_, bytes)| Wait::Room { bytes }))
    }

    /// When something can start at the latest, if nothing else happens.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.hosts.values().filter(|host| !host.waiting.is_empty());
        waiting.filter_map(|host| host.next_deadline(now)).min()
    }

    /// Connections in use.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        self.tickets.len() - self.under_way as usize
    }

    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let under_way = self.tickets.values().filter(|ticket| ticket.under_way);
        assert_eq!(under_way.count(), self.under_way as usize, "connections are counted");
        assert!(self.under_way <= self.limits.total_max.max(1), "connections are bounded");
        for (name, host) in &self.hosts {
            let at_host = || self.tickets.values().filter(|ticket| ticket.request.host == *name);
            let used = at_host().filter(|ticket| ticket.under_way).count();
            assert_eq!(used, host.under_way as usize, "connections with {name} are counted");
            assert!(host.connections_max.is_none_or(|max| host.under_way <= max), "{name} is full");
            let waiting: usize = host.waiting.values().map(std::collections::BTreeSet::len).sum();
            let wait = at_host().filter(|ticket| !ticket.under_way).count();
            assert_eq!(waiting, wait, "who waits for {name} is in its line once");
            assert!(host.waiting.values().all(|line| !line.is_empty()), "no line is empty");
            let probe = host.probe().map(|probe| &self.tickets[&probe]);
            assert!(probe.is_none_or(|ticket| ticket.under_way), "{name} is probed by somebody");
        }
        for (name, scheme) in &self.schemes {
            let mut used = self.tickets.values().filter(|ticket| ticket.request.scheme == *name);
            let used = used.by_ref().filter(|ticket| ticket.under_way).count();
            assert_eq!(used, scheme.under_way as usize, "connections over {name} are counted");
            let max = self.limits.scheme(name).connections.map_or(u32::MAX, |max| max.max(1));
            assert!(scheme.under_way <= max, "{name}: is full");
        }
        self.room.check_invariants();
    }
}
