//! Which needles to hide: arguments that building and evaluating share.

use kvprof::dataset::needle::{Depths, Options};

/// Lengths, depths and number of needles.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Needles")]
pub struct NeedleArguments {
    /// Sizes of the whole prompt in tokens, chat wrapper included [default: 1024,2048,4096]
    #[arg(long, value_delimiter = ',')]
    lengths: Option<Vec<usize>>,
    /// Needles' places in per cent of the haystack: 0,50,100 or START..END/STEP [default: 0..100/10]
    #[arg(long, allow_negative_numbers = true)]
    depths: Option<Depths>,
    /// Number of needles and haystacks [default: 3]
    #[arg(long)]
    seeds: Option<u64>,
}

impl NeedleArguments {
    /// The grid that was asked for, its first needle being that of `first_seed`.
    pub fn options(&self, first_seed: u64) -> anyhow::Result<Options> {
        let depths = match &self.depths {
            Some(depths) => depths.clone(),
            None => "0..100/10".parse()?,
        };
        let seeds = self.seeds.unwrap_or(3);
        Ok(Options {
            lengths: self.lengths.clone().unwrap_or(vec![1024, 2048, 4096]),
            depths,
            seeds: first_seed..first_seed.saturating_add(seeds),
        })
    }

    /// Whether any of them was typed.
    pub fn given(&self) -> bool {
        self.lengths.is_some() || self.depths.is_some() || self.seeds.is_some()
    }
}
