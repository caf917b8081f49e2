//! Random requests, answers and times; an oracle that keeps its own books, and situations that
//! the sweep must have visited.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SEEDS: u64 = 100;
const STEPS: u32 = 300;
const SPACE_MAX: u64 = 1000;

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % end
    }

    fn pick(&mut self, from: &BTreeSet<TicketId>) -> Option<TicketId> {
        let at = self.below(from.len().max(1) as u64);
        from.iter().nth(usize::try_from(at).unwrap()).copied()
    }
}

/// What truly is, by the oracle's own books.
struct World {
    chance: Chance,
    now: Timestamp,
    queue: TransferQueue,
    limits: QueueLimits,
    asked: BTreeMap<TicketId, Request>,
    waiting: BTreeSet<TicketId>,
    running: BTreeSet<TicketId>,
    /// Room by who took it; it outlives the connection.
    held: BTreeMap<RoomId, u64>,
    /// Missing answers in a row since a host's last answer, and until when it is to be left alone.
    misses: BTreeMap<Arc<str>, u32>,
    alone_until: BTreeMap<Arc<str>, Timestamp>,
    /// Hosts that went down and have not answered since: one at a time tries them.
    down: BTreeSet<Arc<str>>,
    /// Until when hosts asked to be left alone, whatever they answered since.
    asked_until: BTreeMap<Arc<str>, Timestamp>,
    visited: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let per_host_max = 1 + u32::try_from(chance.below(3)).unwrap();
        let total_max = 1 + u32::try_from(chance.below(6)).unwrap();
        let ftp = Limit { connections: Some(2), ..Limit::default() };
        let limits = QueueLimits {
            total_max,
            per_host_max,
            schemes: BTreeMap::from([("ftp".to_owned(), ftp)]),
            space_max: Some(SPACE_MAX),
            ..QueueLimits::default()
        };
        Self {
            chance,
            now: Timestamp(1),
            queue: TransferQueue::new(limits.clone()),
            limits,
            asked: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            held: BTreeMap::new(),
            misses: BTreeMap::new(),
            alone_until: BTreeMap::new(),
            down: BTreeSet::new(),
            asked_until: BTreeMap::new(),
            visited: BTreeMap::new(),
        }
    }

    fn visit(&mut self, mark: &'static str) {
        *self.visited.entry(mark).or_default() += 1;
    }

    fn want(&mut self) {
        let host = format!("h{}", self.chance.below(5));
        let scheme = if self.chance.below(3) == 0 { "ftp" } else { "http" };
        let bytes = self.chance.below(SPACE_MAX) + 1;
        let room = (self.chance.below(2) == 0).then_some((RoomId(self.queue.next_ticket), bytes));
        let priority = u8::try_from(self.chance.below(4)).unwrap();
        let request = Request { host: host.into(), scheme: scheme.into(), priority, room };
        let id = self.queue.request(self.now, request.clone());
        self.asked.insert(id, request);
        self.waiting.insert(id);
    }

    fn raise(&mut self) {
        let waits = self.chance.pick(&self.waiting);
        if let Some(id) = waits.or_else(|| self.chance.pick(&self.running)) {
            self.queue.raise(id, u8::try_from(self.chance.below(8)).unwrap());
        }
    }

    fn start(&mut self) {
        let mut started = Vec::new();
        self.queue.start(self.now, &mut started);
        for id in started {
            assert!(self.waiting.remove(&id), "who starts waited");
            let request = self.asked[&id].clone();
            let alone = self.alone_until.get(&request.host).copied().unwrap_or_default();
            assert!(alone <= self.now, "{} is left alone", request.host);
            if let Some((room, bytes)) = request.room {
                let all = self.held.values().sum::<u64>() + bytes;
                assert!(all <= SPACE_MAX || self.running.is_empty(), "room is kept: {all}");
                if all > SPACE_MAX {
                    self.visit("beyond the bound, alone");
                }
                self.held.insert(room, bytes);
            }
            self.running.insert(id);
        }
        self.check_counts();
        self.check_nobody_waits_in_vain();
    }

    /// Whoever could have a connection has one, whatever becomes of others' hosts.
    fn check_nobody_waits_in_vain(&mut self) {
        let used = |is: &dyn Fn(&Request) -> bool| {
            self.running.iter().filter(|id| is(&self.asked[id])).count()
        };
        if self.running.len() >= self.limits.total_max as usize {
            return;
        }
        let mut beside_a_down_one = false;
        for id in &self.waiting {
            let Request { host, scheme, .. } = &self.asked[id];
            let is_full = used(&|other| other.host == *host) >= self.limits.per_host_max as usize;
            let is_full = is_full || **scheme == *"ftp" && used(&|o| *o.scheme == *"ftp") >= 2;
            let is_asked = self.asked_until.get(host).is_some_and(|until| *until > self.now);
            let is_left_alone = is_asked || self.down.contains(host);
            // Who is first at its host, and lacks room, is waited for by those behind it there.
            let mut at_host = self.waiting.iter().map(|id| &self.asked[id]);
            let lacks_room = at_host.any(|other| other.host == *host && other.room.is_some());
            assert!(is_full || is_left_alone || lacks_room, "{id:?} could start at {host}");
            beside_a_down_one |= is_left_alone && !self.running.is_empty();
        }
        if beside_a_down_one {
            self.visit("others go on");
        }
    }

    fn check_counts(&self) {
        let used = |is: &dyn Fn(&Request) -> bool| {
            self.running.iter().filter(|id| is(&self.asked[id])).count()
        };
        assert!(self.running.len() <= self.limits.total_max as usize, "the limit in all");
        assert!(used(&|request| &*request.scheme == "ftp") <= 2, "the limit of a scheme");
        for at in 0..5 {
            let host = format!("h{at}");
            let at_host = used(&|request| *request.host == *host);
            assert!(at_host <= self.limits.per_host_max as usize, "the limit of {host}");
        }
    }

    fn answer(&mut self, id: TicketId) {
        let host = Arc::clone(&self.asked[&id].host);
        let answer = match self.chance.below(8) {
            0 => Answer::Later(Duration::from_secs(self.chance.below(20))),
            1..=4 => Answer::Missing,
            _ => Answer::Given,
        };
        let went_down = self.queue.report(self.now, id, answer);
        let misses = self.misses.entry(Arc::clone(&host)).or_default();
        match answer {
            Answer::Missing => *misses += 1,
            Answer::Given | Answer::Later(_) => *misses = 0,
        }
        assert_eq!(went_down, *misses == 5 && answer == Answer::Missing, "down after five");
        if let Answer::Later(span) = answer {
            let until = self.asked_until.entry(Arc::clone(&host)).or_default();
            *until = self.now.after(span).max(*until);
        }
        let until = match answer {
            Answer::Later(span) => Some(self.now.after(span)),
            _ if went_down => Some(self.now.after(Duration::from_secs(5))),
            _ => None,
        };
        if answer == Answer::Given && self.alone_until.get(&host).is_some_and(|at| *at > self.now) {
            self.visit("answered while left alone");
            // What it asked for still holds; that it is down does not.
            self.alone_until.remove(&host);
        }
        match answer {
            Answer::Missing if went_down => {
                self.down.insert(Arc::clone(&host));
            }
            Answer::Missing => {}
            Answer::Given | Answer::Later(_) => {
                self.down.remove(&host);
            }
        }
        if let Some(until) = until {
            self.visit(if went_down { "went down" } else { "asked to wait" });
            self.alone_until.insert(host, until);
        }
    }

    fn end(&mut self, id: TicketId) {
        self.queue.end(self.now, id);
        self.waiting.remove(&id);
        self.running.remove(&id);
    }

    fn release(&mut self) {
        let idle = self.held.keys().find(|room| !self.running.contains(&TicketId(room.0)));
        if let Some(room) = idle.copied() {
            self.queue.release(room);
            self.held.remove(&room);
        }
    }

    fn step(&mut self) {
        match self.chance.below(10) {
            0..=2 => self.want(),
            3..=5 => {
                if let Some(id) = self.chance.pick(&self.running.clone()) {
                    self.answer(id);
                    self.end(id);
                }
            }
            6 => {
                if let Some(id) = self.chance.pick(&self.waiting.clone()) {
                    self.end(id);
                    self.visit("gave up waiting");
                }
            }
            7 => self.release(),
            8 => self.raise(),
            _ => self.now = self.now.after(Duration::from_millis(self.chance.below(4000))),
        }
        self.start();
        for id in &self.waiting {
            let wait = self.queue.waiting(self.now, *id).expect("who waits knows for what");
            *self.visited.entry(named(wait)).or_default() += 1;
        }
        self.queue.check_invariants();
    }

    /// Nothing new comes, all that runs ends well: then everybody has had a turn in the end.
    fn drain(&mut self) {
        let mut rounds = 0;
        while !self.waiting.is_empty() || !self.running.is_empty() {
            rounds += 1;
            assert!(rounds < 10_000, "{} wait for ever", self.waiting.len());
            if let Some(id) = self.running.first().copied() {
                self.queue.report(self.now, id, Answer::Given);
                self.alone_until.remove(&self.asked[&id].host);
                self.down.remove(&self.asked[&id].host);
                self.end(id);
            }
            self.release();
            self.start();
            if self.running.is_empty() && !self.waiting.is_empty() {
                let due = self.queue.next_deadline(self.now);
                let due = due.expect("something can start later, if nothing can now");
                assert!(due > self.now, "deadlines are in the future");
                self.now = due;
                self.start();
            }
            self.queue.check_invariants();
        }
    }
}

fn named(wait: Wait) -> &'static str {
    match wait {
        Wait::Turn => "turn",
        Wait::Host { .. } => "host",
        Wait::Scheme { .. } => "scheme",
        Wait::Asked { .. } => "asked",
        Wait::Down { .. } => "down",
        Wait::Room { .. } => "room",
    }
}

#[test]
fn limits_hold_and_everybody_has_a_turn_in_the_end() {
    let mut visited = BTreeMap::<_, u64>::new();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.drain();
        for (mark, count) in world.visited {
            *visited.entry(mark).or_default() += count;
        }
    }
    let marks = [
        "turn",
        "host",
        "scheme",
        "asked",
        "down",
        "room",
        "went down",
        "asked to wait",
        "beyond the bound, alone",
        "answered while left alone",
        "gave up waiting",
        "others go on",
    ];
    let missing: Vec<_> = marks.iter().filter(|mark| !visited.contains_key(**mark)).collect();
    assert!(missing.is_empty(), "not visited: {missing:?} of {visited:?}");
}

/// While a host can have a turn, the starts of all others are bounded.
#[test]
fn no_host_is_passed_by_for_ever() {
    let mut chance = Chance(7);
    for hosts in [2, 5, 20] {
        let limits = QueueLimits { total_max: 3, per_host_max: 3, ..QueueLimits::default() };
        let mut queue = TransferQueue::new(limits);
        let now = Timestamp(0);
        let mut since = vec![0; hosts];
        let mut running: Vec<TicketId> = Vec::new();
        let mut of = BTreeMap::new();
        let want = |queue: &mut TransferQueue, of: &mut BTreeMap<_, _>, at: usize| {
            let priority = if at == 0 { 0 } else { 200 };
            let host = format!("h{at}").into();
            let request = Request { host, scheme: "http".into(), priority, room: None };
            of.insert(queue.request(now, request), at);
        };
        for at in (0..hosts).cycle().take(hosts * 4) {
            want(&mut queue, &mut of, at);
        }
        for _ in 0..4000 {
            let mut started = Vec::new();
            queue.start(now, &mut started);
            for id in started {
                let at = of[&id];
                for count in &mut since {
                    *count += 1;
                }
                since[at] = 0;
                want(&mut queue, &mut of, at);
                running.push(id);
            }
            let longest = since.iter().max().copied().unwrap_or_default();
            assert!(longest <= 10 * hosts, "{longest} starts passed by one of {hosts} hosts");
            let at = usize::try_from(chance.below(running.len() as u64)).unwrap();
            queue.end(now, running.swap_remove(at));
        }
    }
}
