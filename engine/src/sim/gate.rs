//! The queue between the core and the hosts, as the edges drive it: whose turn it is, hosts that
//! do not answer, and the bound on room. What must hold of both together is checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use super::marks::Mark;
use super::world::{Attempt, Deed, World};
use crate::core::{Core, Event, Phase};
use crate::queue::{Answer, BreakerPolicy, QueueLimits, Request, RoomId, TicketId, TransferQueue};
use crate::{FailureClass, Timestamp};

/// The largest file has 256 bytes, and is never refused.
const SPACE: (u64, u64) = (256, 800);

#[derive(Debug)]
pub(super) struct Gate {
    queue: TransferQueue,
    limits: QueueLimits,
    jobs: BTreeMap<TicketId, Job>,
    running: BTreeSet<TicketId>,
    rooms: BTreeMap<RoomId, u64>,
    /// Their bytes came, and the queue was not told yet that the core has them.
    full: Vec<RoomId>,
    /// Hosts that went down and gave no answer since.
    down: BTreeSet<Arc<str>>,
    asked: BTreeMap<Arc<str>, Timestamp>,
}

#[derive(Debug)]
struct Job {
    host: Arc<str>,
    room: Option<(RoomId, u64)>,
    deed: Deed,
}

impl Gate {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let breaker = BreakerPolicy {
            failures_max: 2,
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_millis(400),
        };
        let limits = QueueLimits {
            total_max: u32::try_from(chance.span(1, 6)).unwrap(),
            per_host_max: u32::try_from(chance.span(1, 3)).unwrap(),
            space_max: chance.one_in(2).then(|| chance.span(SPACE.0, SPACE.1)),
            breaker,
            ..QueueLimits::default()
        };
        Self {
            queue: TransferQueue::new(limits.clone()),
            limits,
            jobs: BTreeMap::new(),
            running: BTreeSet::new(),
            rooms: BTreeMap::new(),
            full: Vec::new(),
            down: BTreeSet::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.queue.next_deadline(now)
    }

    /// All that waits or has a connection.
    pub(super) fn deeds(&self) -> impl Iterator<Item = &Deed> {
        self.jobs.values().map(|job| &job.deed)
    }

    /// Who waits, and for what.
    pub(super) fn waits(&self, now: Timestamp) -> Vec<String> {
        let waiting = self.jobs.iter().filter_map(|(id, job)| {
            Some(format!("{}: {:?}", job.host, self.queue.waiting(now, *id)?))
        });
        waiting.collect()
    }

    fn release(&mut self, room: Option<(RoomId, u64)>) {
        if let Some((room, _)) = room {
            self.rooms.remove(&room);
            self.queue.release(room);
        }
    }

    /// A host that is down, or asked to be left alone, delays only what is for it: all others
    /// have what places there are.
    fn check_nobody_waits_in_vain(&self, now: Timestamp) {
        if self.running.len() >= self.limits.total_max as usize {
            return;
        }
        let waiting = || self.jobs.iter().filter(|(id, _)| !self.running.contains(id));
        for (id, job) in waiting() {
            let at_host = self.running.iter().filter(|id| self.jobs[id].host == job.host);
            let is_full = at_host.count() >= self.limits.per_host_max as usize;
            let is_asked = self.asked.get(&job.host).is_some_and(|until| *until > now);
            let is_left_alone = self.down.contains(&job.host) || is_asked;
            // Who is first at its host, and lacks room, is waited for by those behind it there.
            let lacks_room =
                waiting().any(|(_, other)| other.host == job.host && other.room.is_some());
            let waits = is_full || is_left_alone || lacks_room;
            assert!(waits, "{id:?} could have a connection with {}", job.host);
        }
    }
}

impl World<'_> {
    /// Something wants a connection; with room for so many bytes, if they stay here.
    pub(super) fn enter(&mut self, host: &str, priority: u8, bytes: Option<u64>, deed: Deed) {
        let gate = &mut self.gate;
        let host: Arc<str> = host.into();
        let bytes = bytes.filter(|_| gate.limits.space_max.is_some());
        self.rooms_made += 1;
        let room = bytes.map(|bytes| (RoomId(self.rooms_made), bytes));
        let request = Request { host: host.clone(), scheme: "http".into(), priority, room };
        let id = gate.queue.request(self.now, request);
        gate.jobs.insert(id, Job { host, room, deed });
    }

    /// Tells the queue what the core keeps, and lets in those whose turn it is. Room that has to
    /// be made first is wanted of the core.
    pub(super) fn pump(&mut self, core: &Core) -> Option<Event> {
        self.gate.queue.set_elsewhere(core.kept());
        for room in std::mem::take(&mut self.gate.full) {
            self.gate.release(Some((room, 0)));
        }
        let mut started = Vec::new();
        self.gate.queue.start(self.now, &mut started);
        self.gate.queue.check_invariants();
        for id in started {
            self.check_room(id, core);
            self.gate.running.insert(id);
            self.later((1, 60), Deed::Through(id));
        }
        self.gate.check_nobody_waits_in_vain(self.now);
        let bytes = self.gate.queue.room_lacking(self.now);
        self.marks.hit_if(bytes.is_some(), Mark::LackedRoom);
        bytes.filter(|_| core.has_spare()).map(|bytes| Event::RoomWanted { bytes })
    }

    /// The room of all together is bounded, unless nothing would ever happen otherwise.
    fn check_room(&mut self, id: TicketId, core: &Core) {
        let Some((room, bytes)) = self.gate.jobs[&id].room else { return };
        self.gate.rooms.insert(room, bytes);
        let all = self.gate.rooms.values().sum::<u64>() + core.kept().bytes;
        if self.gate.limits.space_max.is_none_or(|max| all <= max) {
            return;
        }
        self.marks.hit(Mark::BeyondTheBound);
        assert!(self.gate.running.is_empty(), "{all} bytes, and others are on their way");
        let mut attempts = self.attempts.values();
        let waits = |attempt: &Attempt| attempt.publishing && self.is_join(&attempt.spec.name);
        assert!(attempts.all(waits), "{all} bytes, and an attempt may end");
        assert!(!core.has_spare(), "{all} bytes, and there is what could go");
        // An answer frees nothing where a task was cancelled, or has another key by now.
        let recalls = |deed: &Deed| match deed {
            Deed::Recall { task, key, .. } => {
                core.phase(*task) == Phase::Recalling && core.key(*task) == Some(*key)
            }
            _ => false,
        };
        assert!(!self.pending.values().any(recalls), "{all} bytes, and a task may be done");
    }

    /// Who had a connection has done with it.
    pub(super) fn go_through(&mut self, id: TicketId, core: &Core) -> Option<Event> {
        let Job { host, room, deed } = self.gate.jobs.remove(&id)?;
        self.gate.running.remove(&id);
        let event = self.carry_out(deed, core);
        let is_transient = |event: &Event| match event {
            Event::StageFailed { failure, .. } => failure.class == FailureClass::Transient,
            _ => false,
        };
        let answer = match self.chance.below(4) {
            _ if !event.as_ref().is_some_and(is_transient) => Answer::Given,
            0 => Answer::Later(Duration::from_millis(self.chance.span(10, 200))),
            1 | 2 => Answer::Missing,
            _ => Answer::Given,
        };
        let gate = &mut self.gate;
        if gate.queue.report(self.now, id, answer) {
            self.marks.hit(Mark::HostWentDown);
            gate.down.insert(host.clone());
        }
        match answer {
            Answer::Missing => {}
            Answer::Given => {
                gate.down.remove(&host);
            }
            Answer::Later(span) => {
                gate.down.remove(&host);
                let until = gate.asked.entry(host).or_default();
                *until = self.now.after(span).max(*until);
            }
        }
        if let (Some(Event::Staged { .. }), Some((room, _))) = (&event, room) {
            gate.queue.fill(room);
            gate.full.push(room);
        } else {
            gate.release(room);
        }
        gate.queue.end(self.now, id);
        event
    }
}
