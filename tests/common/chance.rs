//! Chance that can be had again: a seed says what comes.

/// A generator of pseudo-random numbers (`SplitMix64`, Steele and others, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The number in an environment variable, if it is set.
pub(crate) fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What a test begins with: `KEELBOAT_SEED`, else another one each time.
pub(crate) fn seed() -> u64 {
    from_environment("KEELBOAT_SEED").unwrap_or_else(|| {
        let clock = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::from(clock.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
    })
}
