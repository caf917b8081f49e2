//! One attack: its size, its seed, and what it says at its end.

use std::time::Instant;

use libtest_mimic::Trial;

use crate::chance::{Chance, seed};

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// With every change.
    Small,
    /// For hours.
    Full,
}

impl Size {
    fn chosen() -> Self {
        match std::env::var("KEELBOAT_ATTACK").ok().as_deref() {
            None | Some("" | "small") => Self::Small,
            Some("full") => Self::Full,
            Some(other) => panic!("KEELBOAT_ATTACK={other}: expected small or full"),
        }
    }
}

/// What an attack is given.
#[derive(Debug)]
pub(crate) struct Bout {
    size: Size,
    pub(crate) chance: Chance,
}

impl Bout {
    /// How often, by the size.
    pub(crate) fn times(&self, small: usize, full: usize) -> usize {
        match self.size {
            Size::Small => small,
            Size::Full => full,
        }
    }

    /// One of so many, by chance.
    pub(crate) fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.chance.below(count as u64)).expect("an index")
    }

    /// All numbers below the bound in the full size; in the small one so many of them, by chance,
    /// in order.
    pub(crate) fn sample(&mut self, small: usize, bound: usize) -> Vec<usize> {
        if self.size == Size::Full || small >= bound {
            return (0..bound).collect();
        }
        let mut chosen = std::collections::BTreeSet::new();
        while chosen.len() < small {
            chosen.insert(self.one_of(bound));
        }
        chosen.into_iter().collect()
    }
}

/// A trial that says how it is had again, and its figures at the end. It fails by a panic.
pub(crate) fn attack(name: &'static str, attack: fn(&mut Bout) -> String) -> Trial {
    Trial::test(name, move || {
        let (seed, size) = (seed(), Size::chosen());
        let sized = if size == Size::Full { "KEELBOAT_ATTACK=full " } else { "" };
        let again = format!("{sized}KEELBOAT_SEED={seed} cargo test --test attack -- {name}");
        println!("{name}: again with: {again}");
        let started = Instant::now();
        let mut bout = Bout { size, chance: Chance(seed) };
        let figures = attack(&mut bout);
        println!("{name}: {figures}; {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    })
}
