//! Scenarios as text: each line is something that happens, and who starts because of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

struct Script {
    queue: TransferQueue,
    now: Timestamp,
    tickets: BTreeMap<String, TicketId>,
}

fn limits(total_max: u32, per_host_max: u32) -> QueueLimits {
    QueueLimits { total_max, per_host_max, ..QueueLimits::default() }
}

/// Lines of `event => tickets that start`. A ticket `a@h` is called a and is for host h.
fn check(limits: QueueLimits, script: &str) {
    let queue = TransferQueue::new(limits);
    let mut run = Script { queue, now: Timestamp(1_000_000), tickets: BTreeMap::new() };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (event, expected) = line.split_once("=>").expect("an arrow");
        let said = run.event(event.trim());
        let found = said.unwrap_or_else(|| run.started());
        assert_eq!(found, expected.trim(), "after {event}");
        run.queue.check_invariants();
    }
}

impl Script {
    fn started(&mut self) -> String {
        let mut started = Vec::new();
        self.queue.start(self.now, &mut started);
        let name = |id: &TicketId| self.tickets.iter().find(|(_, at)| *at == id).expect("known").0;
        started.iter().map(|id| name(id).as_str()).collect::<Vec<_>>().join(" ")
    }

    fn room(name: &str) -> RoomId {
        RoomId(name.bytes().fold(0, |sum, byte| sum * 256 + u64::from(byte)))
    }

    fn event(&mut self, text: &str) -> Option<String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let now = self.now;
        match *words {
            ["want", ref wanted @ ..] => {
                for one in wanted {
                    self.want(one);
                }
            }
            ["more", host] => {
                let id = self.queue.request_extra(now, &host.into(), &"http".into());
                let name = format!("more{}", self.tickets.len());
                let said = id.map_or("no", |_| "yes");
                self.tickets.extend(id.map(|id| (name, id)));
                return Some(said.to_owned());
            }
            ["time", seconds] => {
                let seconds: f64 = seconds.parse().expect("seconds");
                self.now = now.after(Duration::from_secs_f64(seconds));
            }
            ["end", ref ended @ ..] => {
                for name in ended {
                    self.queue.end(now, self.tickets[*name]);
                }
            }
            ["raise", name, priority] => {
                self.queue.raise(self.tickets[name], priority.parse().expect("a priority"));
            }
            ["answers", name] => drop(self.report(name, Answer::Given)),
            ["misses", ref names @ ..] => {
                let down = names.iter().fold(false, |down, name| {
                    let went = self.report(name, Answer::Missing);
                    self.queue.end(now, self.tickets[*name]);
                    down || went
                });
                if down {
                    return Some("down".into());
                }
            }
            ["later", name, seconds] => {
                let span = Duration::from_secs(seconds.parse().expect("seconds"));
                self.report(name, Answer::Later(span));
            }
            ["why", name] => {
                let wait = self.queue.waiting(now, self.tickets[name]);
                return Some(wait.map_or_else(|| "nothing".to_owned(), |wait| self.in_words(wait)));
            }
            ["deadline"] => {
                let due = self.queue.next_deadline(now);
                return Some(due.map_or_else(|| "none".to_owned(), |due| self.span(due)));
            }
            ["reserve", name, bytes] => {
                let bytes = bytes.parse().expect("bytes");
                return Some(format!("{:?}", self.queue.reserve(Self::room(name), bytes)));
            }
            ["full", name] => self.queue.fill(Self::room(name)),
            ["lack"] => {
                let lack = self.queue.room_lacking(now);
                return Some(lack.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string()));
            }
            ["release", name] => self.queue.release(Self::room(name)),
            ["elsewhere", bytes, moves] => {
                let bytes = bytes.parse().expect("bytes");
                self.queue.set_elsewhere(Elsewhere { bytes, is_moving: moves == "moves" });
            }
            _ => panic!("no event {text}"),
        }
        None
    }

    /// `a@h`, `a@h!9` (priority), `a@ftp:h` (scheme), `a@h+7` (needs room for 7 bytes).
    fn want(&mut self, text: &str) {
        let (name, rest) = text.split_once('@').expect("a host");
        let (rest, bytes) = rest.split_once('+').unwrap_or((rest, ""));
        let (rest, priority) = rest.split_once('!').unwrap_or((rest, "0"));
        let (scheme, host) = rest.split_once(':').unwrap_or(("http", rest));
        let room = bytes.parse().ok().map(|bytes| (Self::room(name), bytes));
        let priority = priority.parse().expect("a priority");
        let request = Request { host: host.into(), scheme: scheme.into(), priority, room };
        let id = self.queue.request(self.now, request);
        self.tickets.insert(name.to_owned(), id);
    }

    fn report(&mut self, name: &str, answer: Answer) -> bool {
        self.queue.report(self.now, self.tickets[name], answer)
    }

    fn span(&self, at: Timestamp) -> String {
        let (sign, span) =
            if at < self.now { ("-", self.now.since(at)) } else { ("", at.since(self.now)) };
        format!("{sign}{}", span.as_secs_f64())
    }

    fn in_words(&self, wait: Wait) -> String {
        let mut text = String::new();
        let written = match wait {
            Wait::Turn => write!(text, "turn"),
            Wait::Host { connections_max } => write!(text, "host {connections_max}"),
            Wait::Scheme { connections_max } => write!(text, "scheme {connections_max}"),
            Wait::Asked { until } => write!(text, "asked {}", self.span(until)),
            Wait::Down { since, until } => {
                write!(text, "down {} {}", self.span(since), self.span(until))
            }
            Wait::Room { bytes } => write!(text, "room {bytes}"),
        };
        written.expect("text");
        text
    }
}

#[test]
fn connections_are_bounded_in_all_and_for_each_host() {
    check(
        limits(3, 2),
        "want a@h b@h c@h => a b
         why c            => host 2
         why a            => nothing
         want d@i e@i     => d
         why e            => turn
         end a            => c
         end a            =>
         end d            => e",
    );
}

#[test]
fn a_scheme_and_a_host_can_have_limits_of_their_own() {
    let one = Limit { connections: Some(1), ..Limit::default() };
    let two = Limit { connections: Some(2), ..Limit::default() };
    let schemes = BTreeMap::from([("ftp".to_owned(), one)]);
    let hosts = BTreeMap::from([("big".to_owned(), two), ("big:80".to_owned(), one)]);
    check(
        QueueLimits { schemes, hosts, ..limits(9, 1) },
        "want a@ftp:h b@ftp:i c@j => a c
         why b                    => scheme 1
         want d@big e@big f@big   => d e
         end c                    =>
         end a                    => b",
    );
    let hosts = BTreeMap::from([("big".to_owned(), two), ("big:80".to_owned(), one)]);
    let limits = QueueLimits { hosts, ..limits(9, 4) };
    let of = |host: &str| limits.host(host).connections;
    assert_eq!([of("big:80"), of("big:8080"), of("big"), of("s3:big")], [1, 2, 2, 2].map(Some));
    assert_eq!(of("other:80"), Some(4));
}

#[test]
fn hosts_take_turns() {
    check(
        limits(1, 4),
        "want a1@a a2@a a3@a b1@b b2@b c1@c => a1
         end a1                             => b1
         end b1                             => c1
         end c1                             => a2
         end a2                             => b2
         end b2                             => a3",
    );
}

#[test]
fn the_urgent_goes_first_until_others_have_waited_for_too_long() {
    check(
        limits(1, 4),
        "want x@h        => x
         want a@h b@h!2  =>
         time 15         =>
         want c@h!1      =>
         want d@i!9      =>
         end x           => d
         end d           => b
         end b           => a
         end a           => c",
    );
}

#[test]
fn an_endless_line_of_urgent_requests_starves_no_other_host() {
    let mut queue = TransferQueue::new(limits(1, 1));
    let now = Timestamp(0);
    let request = |host: &str, priority| Request {
        host: host.into(),
        scheme: "http".into(),
        priority,
        room: None,
    };
    let patient = queue.request(now, request("b", 0));
    let mut started = Vec::new();
    for starts in 0.. {
        queue.request(now, request("a", 255));
        queue.start(now, &mut started);
        queue.check_invariants();
        let id = started.pop().expect("one starts");
        if id == patient {
            assert!(starts > 4, "the urgent went first for a while");
            break;
        }
        assert!(starts < 20, "it had its turn after two rounds of eight starts");
        queue.end(now, id);
    }
}

#[test]
fn a_host_that_does_not_answer_is_left_alone_and_then_probed() {
    check(
        limits(9, 5),
        "want a@h b@h c@h d@h e@h f@h g@h x@i => a x b c d e
         misses a b                       => f g
         misses c d                       =>
         misses e                         => down
         want h@h y@i                     => y
         why h                            => down 0 5
         deadline                         => 5
         misses f                         =>
         why h                            => down 0 5
         end g                            =>
         time 5                           => h
         want k@h                         =>
         why k                            => down -5 0
         deadline                         => none
         misses h                         =>
         deadline                         => 10
         time 10                          => k
         want l@h m@h                     =>
         misses k                         =>
         time 19                          =>
         why l                            => down -34 1
         time 1                           => l
         answers l                        => m
         want n@h                         => n",
    );
}

#[test]
fn the_time_that_a_host_is_left_alone_has_an_end() {
    let mut script = "want z@h => z\nmisses z => down\n".to_owned();
    for (at, pause) in [5, 10, 20, 40, 80, 120, 120].iter().enumerate() {
        let line = format!(
            "want t{at}@h =>\ndeadline => {pause}\ntime {pause} => t{at}\nmisses t{at} =>\n"
        );
        script.push_str(&line);
    }
    let breaker = BreakerPolicy { failures_max: 1, ..BreakerPolicy::default() };
    check(QueueLimits { breaker, ..limits(9, 5) }, &script);
}

#[test]
fn an_answer_in_between_ends_the_count() {
    let breaker = BreakerPolicy { failures_max: 2, ..BreakerPolicy::default() };
    check(
        QueueLimits { breaker, ..limits(9, 5) },
        "want a@h b@h c@h d@h => a b c d
         misses a             =>
         answers b            =>
         misses c             =>
         misses d             => down",
    );
}

#[test]
fn a_probe_that_is_given_up_is_followed_by_another() {
    let breaker = BreakerPolicy { failures_max: 1, ..BreakerPolicy::default() };
    check(
        QueueLimits { breaker, ..limits(9, 5) },
        "want a@h b@h c@h => a b c
         misses a         => down
         want d@h e@h f@h =>
         time 5           => d
         end d            => e
         end b            =>
         answers c        => f",
    );
}

#[test]
fn a_host_that_asks_to_be_left_alone_is() {
    check(
        limits(9, 2),
        "want a@h b@h c@h x@i => a x b
         later a 30           =>
         end a                =>
         why c                => asked 30
         deadline             => 30
         answers b            =>
         end b                =>
         time 29              =>
         time 1               => c",
    );
}

#[test]
fn there_are_more_connections_only_when_nobody_waits_for_them() {
    check(
        limits(5, 3),
        "more h          => no
         want a@h        => a
         more h          => yes
         more h          => yes
         more h          => no
         want b@h        =>
         want c@i        => c
         more i          => no
         end more1       => b
         end more2       =>
         want d@i        => d
         more h          => no",
    );
}

#[test]
fn room_is_kept_and_a_single_transfer_goes_beyond_it_when_nothing_else_moves() {
    check(
        QueueLimits { space_max: Some(10), ..limits(9, 9) },
        "want a@h               => a
         reserve a 11           => Never
         reserve a 6            => Yes
         want b@i+5             =>
         why b                  => room 5
         want c@j               => c
         reserve c 1            => Later
         end c                  =>
         end a                  => b
         end b                  =>
         release a              =>
         release b              =>
         elsewhere 8 moves      =>
         want d@h+5 e@i+5       =>
         elsewhere 8 rests      => d
         end d                  => e
         release d              =>
         end e                  =>
         elsewhere 5 moves      =>
         want f@h+5             =>
         release e              => f",
    );
}

#[test]
fn nobody_goes_beyond_the_bound_while_what_is_full_is_handed_on() {
    check(
        QueueLimits { space_max: Some(10), ..limits(9, 9) },
        "want a@h+8        => a
         lack              => none
         want b@i+7 c@j+5  =>
         lack              => 3
         full a            =>
         end a             =>
         elsewhere 8 moves =>
         release a         =>
         lack              => 3
         elsewhere 5 moves =>
         lack              => 2
         elsewhere 3 moves => b
         lack              => 5",
    );
    check(
        QueueLimits { space_max: Some(10), ..limits(9, 9) },
        "want a@h+8 b@i+7  => a
         full a            =>
         end a             =>
         want a@h+8        => a
         end a             => b",
    );
}

#[test]
fn who_has_room_already_goes_before_those_who_wait_for_their_first() {
    check(
        QueueLimits { space_max: Some(10), ..limits(9, 9) },
        "want a@h k@k    => a k
         reserve a 4     => Yes
         want b@i+8      =>
         reserve a 9     => Yes
         end k           =>
         end a           => b",
    );
}

#[test]
fn bandwidth_is_that_of_the_slowest_of_host_scheme_and_all() {
    let rate = |bytes| Limit { bytes_per_second: Some(bytes), ..Limit::default() };
    let mut queue = TransferQueue::new(QueueLimits {
        bytes_per_second: Some(4000),
        schemes: BTreeMap::from([("http".to_owned(), rate(2000))]),
        hosts: BTreeMap::from([("slow".to_owned(), rate(1000))]),
        ..limits(9, 9)
    });
    let now = Timestamp(1_000_000);
    let mut start = |host: &str, scheme: &str| {
        let request = Request { host: host.into(), scheme: scheme.into(), priority: 0, room: None };
        let id = queue.request(now, request);
        let mut started = Vec::new();
        queue.start(now, &mut started);
        (id, queue.grant(now, id, 2000).as_millis())
    };
    assert_eq!(start("slow", "http").1, 1750);
    assert_eq!(start("fast", "http").1, 1750);
    assert_eq!(start("fast", "ftp").1, 1250);
}

#[test]
fn hosts_are_forgotten_when_nothing_is_to_be_remembered() {
    let mut queue = TransferQueue::new(limits(9, 9));
    for at in 0..10_000_u64 {
        let now = Timestamp(at);
        let host = format!("h{at}").into();
        let id =
            queue.request(now, Request { host, scheme: "http".into(), priority: 0, room: None });
        let mut started = Vec::new();
        queue.start(now, &mut started);
        assert_eq!(started, [id]);
        if at % 2 == 0 {
            queue.report(now, id, Answer::Missing);
        }
        queue.end(now, id);
        assert!(queue.hosts.len() <= HOSTS_MAX, "{} hosts", queue.hosts.len());
    }
}

#[test]
fn who_becomes_more_urgent_goes_before_others_and_never_back() {
    check(
        limits(1, 1),
        "want a@h => a
         want b@h!3 c@h!3 d@h ftp@ftp:h e@other!3 =>
         raise d 9 =>
         raise d 1 =>
         end a => d
         raise d 200 =>
         end d => e
         raise ftp 3 =>
         end e => b
         end b => c
         end c => ftp
         raise a 9 =>
         end ftp =>",
    );
}

#[test]
fn who_needs_room_at_a_host_does_not_stand_in_the_way_of_who_has_it() {
    let limits = QueueLimits { space_max: Some(10), ..limits(4, 1) };
    check(
        limits,
        "reserve a 8 => Yes
         full a =>
         want b@h+5 =>
         want a@h+0 => a
         end a =>
         want c@h =>
         release a => b",
    );
}
