//! Which needles to hide: arguments that building and evaluating share.

use kvprof::dataset::needle::{Depths, Options};

/// Lengths, depths and seeds of needles.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct NeedleArguments {
    /// Sizes of the whole prompt in tokens, chat wrapper included
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    pub lengths: Vec<usize>,
    /// Needles' places in per cent of the haystack: 0,50,100 or START..END/STEP
    #[arg(long, default_value = "0..100/10", allow_negative_numbers = true)]
    pub depths: Depths,
    /// Number of needles and haystacks
    #[arg(long, default_value_t = 3)]
    pub seeds: u64,
    /// The first of them; same seed, same bytes
    #[arg(long = "seed", default_value_t = 0)]
    pub first_seed: u64,
}

impl NeedleArguments {
    /// The grid that was asked for.
    pub fn options(&self) -> Options {
        Options {
            lengths: self.lengths.clone(),
            depths: self.depths.clone(),
            seeds: self.first_seed..self.first_seed.saturating_add(self.seeds),
        }
    }
}
