//! Outputs at their addresses: what truly is there, and what has to be.

use super::marks::Mark;
use super::oracle::Oracle;
use super::plan::source_name;
use super::world::{Deed, World, failure};
use crate::core::{Core, Event, Phase};
use crate::{Content, Fact, FailureClass, RunOutcome, TaskId};

impl World<'_> {
    /// Copies an output to its address, unless it is there.
    pub(super) fn deliver(
        &mut self,
        core: &Core,
        task: TaskId,
        output: u32,
        content: Content,
    ) -> Event {
        let spec = core.spec(task);
        let path = &spec.outputs[output as usize].path;
        // It can have been written anew before it was read here, or after.
        let now = core.content(core.graph().task(task).outputs[output as usize]);
        if now != Some(content) && self.chance.one_in(2) {
            self.marks.hit(Mark::DeliveryOutdated);
            let failure = failure(FailureClass::Permanent, "it changed");
            return Event::DeliverFailed { task, output, failure };
        }
        if self.plan.undeliverable.contains(&(spec.name.clone(), output as usize)) {
            self.marks.hit(Mark::DeliveryFailed);
            let failure = failure(FailureClass::Permanent, "no bucket");
            return Event::DeliverFailed { task, output, failure };
        }
        let tries = self.delivery_failures.entry(path.to_string()).or_default();
        if *tries < self.plan.options.stage_retries && self.chance.one_in(5) {
            *tries += 1;
            self.marks.hit(Mark::DeliveryRetried);
            let failure = failure(FailureClass::Transient, "connection reset");
            return Event::DeliverFailed { task, output, failure };
        }
        *tries = 0;
        let mark = match self.delivered.insert(path.to_string(), content) {
            None => Mark::Delivered,
            Some(before) if before == content => Mark::FoundDelivered,
            Some(_) => Mark::DeliveredAnew,
        };
        self.marks.hit(mark);
        Event::Delivered { task, output }
    }
}

impl Oracle {
    /// An output is to be copied: what is recorded of its task, once, and not in vain.
    pub(super) fn check_delivery(
        &mut self,
        (task, output): (TaskId, u32),
        content: Content,
        world: &mut World<'_>,
        core: &Core,
    ) {
        let spec = core.spec(task);
        let path = &spec.outputs[output as usize].path;
        let recorded = self.journal.iter().rev().find_map(|fact| match fact {
            Fact::Completed { task, record, .. } | Fact::Reused { task, record, .. } => {
                (*task == spec.name).then(|| record.outputs[output as usize].content)
            }
            _ => None,
        });
        assert_eq!(recorded, Some(Some(content)), "{path} is copied as it is recorded");
        let last = self.journal.iter().rev().find_map(|fact| match fact {
            Fact::Delivered { path: at, content, .. } if at == path => Some(*content),
            _ => None,
        });
        assert_ne!(last, Some(content), "{path} is copied once");
        let is_same = |deed: &Deed| match deed {
            Deed::Deliver(other, at, _) => (*other, *at) == (task, output),
            _ => false,
        };
        let on_its_way = world.pending.values().chain(world.gate.deeds()).any(is_same);
        assert!(!on_its_way, "{path} is on its way once");
        let is_there = world.delivered.get(path.as_ref()) == Some(&content);
        let is_ours = self.journal.iter().any(|fact| matches!(fact, Fact::AttemptStarted { .. }));
        world.marks.hit_if(is_there && is_ours, Mark::DeliveredUnrecorded);
        // What others can see waits until the facts behind it are durable.
        self.flushed = self.journal.len();
    }

    pub(super) fn check_delivered(path: &str, content: Content, world: &World<'_>) {
        let there = world.delivered.get(path);
        assert_eq!(there, Some(&content), "{path} is at its address as it is recorded");
    }

    /// The run is over: what is done and has an address is there, unless that cannot be.
    pub(super) fn check_addresses(outcome: RunOutcome, world: &World<'_>, core: &Core) {
        if outcome == RunOutcome::Cancelled {
            return;
        }
        for (at, node) in core.graph().tasks().iter().enumerate() {
            if core.phase(TaskId(u32::try_from(at).unwrap())) != Phase::Done {
                continue;
            }
            let addressed = node.spec.outputs.iter().zip(&node.outputs).enumerate();
            for (out, (_, file)) in addressed.filter(|(_, (out, _))| out.deliver_to.is_some()) {
                let path = source_name(&core.graph().file(*file).source);
                let undeliverable = (node.spec.name.clone(), out);
                if let Some(content) = core.content(*file)
                    && !world.plan.undeliverable.contains(&undeliverable)
                {
                    Self::check_delivered(&path, content, world);
                }
            }
        }
    }
}
