//! One host: who waits for it, and whether it is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pace::Bucket;
use super::{Answer, BreakerPolicy, QueueLimits, Rank, TicketId, Wait};
use crate::Timestamp;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) connections_max: Option<u32>,
    pub(super) under_way: u32,
    /// By scheme, and none empty.
    pub(super) waiting: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    pub(super) pace: Option<Bucket>,
    /// Starts elsewhere since it could have had one.
    pub(super) passed: u64,
    /// The number of its last start among all.
    pub(super) last_served: u64,
    /// It asked to be left alone until then.
    asked_until: Timestamp,
    breaker: Breaker,
}

#[derive(Debug)]
enum Breaker {
    /// It answers, as far as is known.
    Closed { failures: u32 },
    /// It is left alone. How often it was found down in a row doubles the time.
    Open { since: Timestamp, until: Timestamp, times: u32 },
    /// One of those who wait tries it.
    Probed { since: Timestamp, by: TicketId, begun: Timestamp, times: u32 },
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    WentDown,
    AsBefore,
}

impl Host {
    pub(super) fn new(limits: &QueueLimits, name: &str) -> Self {
        let limit = limits.host(name);
        Self {
            connections_max: limit.connections,
            under_way: 0,
            waiting: BTreeMap::new(),
            pace: limit.bytes_per_second.map(Bucket::new),
            passed: 0,
            last_served: 0,
            asked_until: Timestamp(0),
            breaker: Breaker::Closed { failures: 0 },
        }
    }

    pub(super) fn stop_waiting(&mut self, scheme: &str, rank: Rank) {
        if let Some(line) = self.waiting.get_mut(scheme) {
            line.remove(&rank);
            if line.is_empty() {
                self.waiting.remove(scheme);
            }
        }
    }

    /// Whether one who waits could have a connection now, as far as the host is concerned.
    pub(super) fn may_start(&self, now: Timestamp) -> bool {
        let has_place = self.connections_max.is_none_or(|max| self.under_way < max);
        has_place && self.is_left_alone(now).is_none()
    }

    /// Whether it answers, and has a place that nobody waits for.
    pub(super) fn may_have_more(&self, now: Timestamp) -> bool {
        let is_well = matches!(self.breaker, Breaker::Closed { .. });
        is_well && self.waiting.is_empty() && self.may_start(now)
    }

    pub(super) fn is_left_alone(&self, now: Timestamp) -> Option<Wait> {
        match self.breaker {
            Breaker::Open { since, until, .. } if until > now => Some(Wait::Down { since, until }),
            Breaker::Probed { since, begun, .. } => Some(Wait::Down { since, until: begun }),
            _ if self.asked_until > now => Some(Wait::Asked { until: self.asked_until }),
            _ => None,
        }
    }

    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        match self.is_left_alone(now)? {
            Wait::Down { until, .. } | Wait::Asked { until } => Some(until).filter(|at| *at > now),
            _ => None,
        }
    }

    /// One who waited has a connection; with a host that was down, that is the probe.
    pub(super) fn served(&mut self, now: Timestamp, number: u64, by: TicketId) {
        (self.passed, self.last_served) = (0, number);
        if let Breaker::Open { since, times, .. } = self.breaker {
            self.breaker = Breaker::Probed { since, by, begun: now, times };
        }
    }

    /// A probe that ended without an answer either way is followed by the next one.
    pub(super) fn probe_ended(&mut self, now: Timestamp, id: TicketId) {
        if let Breaker::Probed { since, by, times, .. } = self.breaker
            && by == id
        {
            self.breaker = Breaker::Open { since, until: now, times };
        }
    }

    #[cfg(test)]
    pub(super) fn probe(&self) -> Option<TicketId> {
        match self.breaker {
            Breaker::Probed { by, .. } => Some(by),
            _ => None,
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        id: TicketId,
        answer: Answer,
        policy: &BreakerPolicy,
    ) -> Verdict {
        match answer {
            Answer::Given => self.breaker = Breaker::Closed { failures: 0 },
            Answer::Later(span) => {
                self.asked_until = self.asked_until.max(now.after(span));
                self.breaker = Breaker::Closed { failures: 0 };
            }
            Answer::Missing => return self.missed(now, id, policy),
        }
        Verdict::AsBefore
    }

    fn missed(&mut self, now: Timestamp, id: TicketId, policy: &BreakerPolicy) -> Verdict {
        match &mut self.breaker {
            Breaker::Closed { failures } => {
                *failures += 1;
                if *failures < policy.failures_max.max(1) {
                    return Verdict::AsBefore;
                }
                let until = now.after(policy.pause_min);
                self.breaker = Breaker::Open { since: now, until, times: 1 };
                Verdict::WentDown
            }
            Breaker::Probed { since, by, times, .. } if *by == id => {
                let factor = 2_u32.saturating_pow(*times);
                let pause = policy.pause_min.saturating_mul(factor).min(policy.pause_max);
                let (since, times) = (*since, times.saturating_add(1));
                self.breaker = Breaker::Open { since, until: now.after(pause), times };
                Verdict::AsBefore
            }
            // Connections of before it went down end like this, and say nothing new.
            Breaker::Open { .. } | Breaker::Probed { .. } => Verdict::AsBefore,
        }
    }

    /// Whether nothing goes on with it, and it is not left alone either.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.under_way == 0 && self.waiting.is_empty() && self.is_left_alone(now).is_none()
    }

    /// Whether a new one would be the same, but for the order of service.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.is_idle(now)
            && matches!(self.breaker, Breaker::Closed { failures: 0 })
            && self.pace.as_ref().is_none_or(|pace| pace.is_full(now))
    }
}
