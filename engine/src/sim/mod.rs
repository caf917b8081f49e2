//! A simulator: random workflows, sites, failures and crashes under virtual time, decided by a
//! seed; an oracle that knows where bytes truly are; and marks that a sweep must visit.

mod ahead;
mod chance;
mod checkpoints;
mod delivery;
mod gate;
mod life;
mod marks;
mod model;
mod oracle;
mod plan;
mod program;
mod room;
mod world;

use self::life::{End, Life, after_life};
use self::marks::Marks;
use self::model::Model;
use self::oracle::Oracle;
use self::plan::Plan;
use self::world::World;
use crate::RunOutcome;

/// Engines that may crash in one run, before one that does not.
const CRASHES_MAX: u32 = 4;

/// So many seeds visit every mark.
const SEEDS: u64 = 1_200;

/// Whether what happens is written, to be read when a seed fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    EachStep,
    Nothing,
}

/// Two runs of one plan: the first on nothing, the second on what the first left.
fn simulate(seed: u64, telling: Telling, marks: &mut Marks) {
    let plan = Plan::random(seed);
    let mut world = World::new(&plan, seed, marks);
    world.is_told = telling == Telling::EachStep;
    for _ in 0..2 {
        let mut oracle = Oracle::default();
        oracle.cancels = world.chance.one_in(10);
        let mut crashes = 0;
        loop {
            let model = Model::new(&plan, world.versions.clone());
            let crashes_now = crashes < CRASHES_MAX && !world.chance.one_in(3);
            let crash_at = crashes_now.then(|| u32::try_from(world.chance.span(0, 250)).unwrap());
            let life = Life { world: &mut world, oracle: &mut oracle, model: &model, crash_at };
            let end = life.live();
            after_life(&mut world);
            oracle.restart();
            crashes += 1;
            match end {
                End::Over(RunOutcome::Cancelled) | End::Crashed => {}
                End::Over(_) => break,
            }
        }
    }
}

fn simulate_named(seed: u64, telling: Telling, marks: &mut Marks) {
    let run = std::panic::AssertUnwindSafe(|| simulate(seed, telling, marks));
    let result = std::panic::catch_unwind(run);
    if let Err(panic) = result {
        eprintln!(
            "seed {seed} fails; alone: KEELBOAT_SIM_SEED={seed} cargo test -p keelboat-engine sweep"
        );
        std::panic::resume_unwind(panic);
    }
}

/// Seeds to try: all that the sweep needs to go everywhere, or those of `KEELBOAT_SIM_SEED`,
/// which is one number or a range such as `1000..2000`. One alone tells each of its steps.
#[expect(clippy::disallowed_methods, reason = "who runs the sweep may ask for other seeds")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("KEELBOAT_SIM_SEED") else { return 0..SEEDS };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match wanted.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&wanted)..number(&wanted) + 1,
    }
}

#[test]
fn sweep() {
    let mut marks = Marks::default();
    let seeds = seeds();
    let many = seeds.end.saturating_sub(seeds.start);
    let enough = many >= SEEDS;
    let telling = if many == 1 { Telling::EachStep } else { Telling::Nothing };
    for seed in seeds {
        simulate_named(seed, telling, &mut marks);
    }
    if enough {
        assert_eq!(marks.missing(), [], "the sweep went everywhere; visits: {:?}", marks.0);
    }
}
