//! Speed: time per token and bytes held against context length, with no cache, the full one, and budgets.

mod measure;
mod store;
mod summary;

pub use measure::{Decoding, Prompt, measure};
pub use store::{KIND, Speed, SpeedRecord, SpeedSettings, speed_table};
pub use summary::{Summary, summarise};

use std::fmt;

use crate::error::{Error, Result};

/// What is kept between two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the whole prefix is run again for every token.
    NoCache,
    /// All keys and values.
    Full,
    /// So many tokens per KV head, uniformly.
    Budget(usize),
}

impl Mode {
    /// Name in tables and files: "no-cache", "full", "budget".
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCache => "no-cache",
            Self::Full => "full",
            Self::Budget(_) => "budget",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCache => f.write_str("no cache"),
            Self::Full => f.write_str("full cache"),
            Self::Budget(tokens) => write!(f, "budget {tokens}"),
        }
    }
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeedOptions {
    /// Budgets in tokens per KV head; those that a prompt does not exceed are left out of it.
    pub budgets: Vec<usize>,
    /// Timed decoding steps of one repeat.
    pub steps: usize,
    /// Timed tokens of one repeat without a cache; 0 leaves that mode out.
    pub uncached_steps: usize,
    /// How often every mode is measured, in turns.
    pub repeats: usize,
}

impl SpeedOptions {
    /// Refuses what cannot be measured; `least` tokens always stay in a cut cache.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(&self, least: usize) -> Result<()> {
        for (what, count) in [("steps", self.steps), ("repeats", self.repeats)] {
            if count == 0 || count > 10_000 {
                let bound = "it must lie between 1 and 10000";
                return Err(Error::invalid(format!("number of {what}"), count, bound));
            }
        }
        if self.uncached_steps > self.steps {
            let bound = format!("at most the {} cached steps", self.steps);
            let what = "number of steps without a cache";
            return Err(Error::invalid(what, self.uncached_steps, bound));
        }
        if let Some(low) = self.budgets.iter().find(|b| **b < least) {
            let bound = format!("sinks and window alone take {least}: allow more, or lower them");
            return Err(Error::invalid("budget in tokens per KV head", low, bound));
        }
        Ok(())
    }

    /// The modes of a prompt of `tokens` tokens, those that hold least last.
    pub fn modes(&self, tokens: usize) -> Vec<Mode> {
        let mut budgets: Vec<usize> = self.budgets.to_vec();
        budgets.retain(|b| *b < tokens);
        budgets.sort_unstable_by(|a, b| b.cmp(a));
        budgets.dedup();
        let uncached = (self.uncached_steps > 0).then_some(Mode::NoCache);
        let cut = budgets.into_iter().map(Mode::Budget);
        uncached
            .into_iter()
            .chain([Mode::Full])
            .chain(cut)
            .collect()
    }
}

/// One repeat of one mode on one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Length that was asked for, in tokens.
    pub length: usize,
    /// T, the prompt's tokens.
    pub tokens: usize,
    /// What was kept.
    pub mode: Mode,
    /// Repeat, counted from 0.
    pub repeat: usize,
    /// Milliseconds per token, mean over the steps.
    pub ms_per_token: f64,
    /// Bytes of keys and values held between two tokens, before the first one is generated.
    pub kv_bytes: usize,
    /// Growth of the process's resident memory when that cache was made; `None` where it is not known.
    pub resident_bytes: Option<usize>,
    /// Seconds of the prompt's one prefill, scoring included.
    pub prefill_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SpeedOptions {
        SpeedOptions {
            budgets: vec![64, 1024, 64, 256],
            steps: 16,
            uncached_steps: 1,
            repeats: 5,
        }
    }

    #[test]
    fn budgets_that_keep_everything_are_no_modes() {
        let modes = options().modes(512);
        let names: Vec<String> = modes.iter().map(Mode::to_string).collect();
        assert_eq!(names, ["no cache", "full cache", "budget 256", "budget 64"]);
        assert_eq!(options().modes(256).len(), 3);
        let cached = SpeedOptions {
            uncached_steps: 0,
            ..options()
        };
        assert_eq!(cached.modes(64), [Mode::Full]);
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        assert!(options().check(36).is_ok());
        let problem = |options: SpeedOptions| options.check(36).unwrap_err().to_string();
        let with = |change: fn(&mut SpeedOptions)| {
            let mut options = options();
            change(&mut options);
            problem(options)
        };
        assert!(with(|o| o.steps = 0).contains("number of steps is 0"));
        assert!(with(|o| o.repeats = 0).contains("number of repeats is 0"));
        assert!(with(|o| o.uncached_steps = 17).contains("at most the 16 cached steps"));
        assert!(with(|o| o.budgets = vec![35]).contains("sinks and window alone take 36"));
    }
}
