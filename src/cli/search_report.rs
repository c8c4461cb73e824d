//! What `kvprof search` found, for a plan's file, for a script and in words.

use std::io::Write;
use std::path::Path;

use kvprof::budget::CacheBudget;
use kvprof::eval::search::{Ended, HeldOutGain, Searched};
use kvprof::eval::statistics::FEWEST_PAIRS;
use serde_json::{Value, json};

use super::text_table::text_table;

/// A search that has ended, with what it was asked for.
pub struct SearchReport<'a> {
    /// What stays.
    pub budget: CacheBudget,
    /// Scorer and split.
    pub rank: &'a str,
    /// Groups of layers.
    pub groups: usize,
    /// Of everything that is drawn.
    pub seed: u64,
    /// What was found.
    pub searched: &'a Searched,
}

impl SearchReport<'_> {
    /// What a plan says of how it was found.
    pub fn facts(&self) -> Value {
        let searched = self.searched;
        let start = &searched.starts[searched.best_start];
        let starts = searched.starts.iter();
        let starts: Vec<Value> = starts
            .map(|s| json!({"strategy": s.method, "kl": s.kl}))
            .collect();
        let factors: Vec<f64> = searched.found.logs.iter().map(|log| log.exp()).collect();
        let held_out = searched.held_out.as_ref().map(|gain| {
            json!({
                "contexts": gain.contexts, "kl": gain.kl, "start_kl": gain.start_kl,
                "difference": gain.kl - gain.start_kl, "interval": gain.interval, "better_on": gain.better,
            })
        });
        json!({
            "rank": self.rank, "starts": starts, "start": start.method, "groups": self.groups, "factors": factors,
            "seed": self.seed, "tried": searched.found.tried, "ended": ended_as(searched.found.ended),
            "calibration": {
                "contexts": searched.contexts, "kl": searched.found.score, "start_kl": start.kl,
                "difference": searched.found.score - start.kl,
            },
            "held_out": held_out, "left_out": searched.left_out,
        })
    }

    /// Says it in words; `model` is whose plan it is, `written` where that went.
    pub fn write(&self, model: &str, written: Option<&Path>) -> anyhow::Result<()> {
        let searched = self.searched;
        let mut out = std::io::stdout().lock();
        let start = &searched.starts[searched.best_start];
        writeln!(
            out,
            "budget {} of {}, ranked by {}; kl in nats, mean over {} to search on (prefilled once, in {:.1} s)",
            self.budget,
            model,
            self.rank,
            super::counted(searched.contexts, "context"),
            searched.prefill_s
        )?;
        let mut table = text_table(["<plan", "kl"]);
        for start in &searched.starts {
            table.add_row([start.method.clone(), format!("{:.4}", start.kl)]);
        }
        table.add_row(["found".to_owned(), format!("{:.4}", searched.found.score)]);
        writeln!(out, "{}", table.trim_fmt())?;
        for id in &searched.left_out {
            writeln!(out, "left out: the model says nothing after prompt {id}")?;
        }
        let ended = match searched.found.ended {
            Ended::Settled if searched.found.tried == 0 => {
                "no factor changes a token: nothing lies above sinks and window to be shared"
            }
            Ended::Settled => "no smaller step helps",
            Ended::Spent => "as many as --most allows; more may find more",
            Ended::Stopped => "stopped before its end; more may find more",
        };
        let tried = super::counted(searched.found.tried, "plan");
        writeln!(out, "from {}: {tried} tried, {ended}", start.method)?;
        let factors = searched
            .found
            .logs
            .iter()
            .map(|log| format!("{:.2}", log.exp()));
        writeln!(
            out,
            "factors of the groups, first layers first: {}",
            factors.collect::<Vec<_>>().join(" ")
        )?;
        match &searched.held_out {
            None => writeln!(
                out,
                "nothing was held out: how much of this holds for other prompts is not known"
            )?,
            Some(gain) => self.write_gain(
                &mut out,
                searched.found.score - start.kl,
                gain,
                &start.method,
            )?,
        }
        match written {
            Some(path) => writeln!(out, "wrote {}", path.display())?,
            None => writeln!(out, "nothing was written: add --out plan.json")?,
        }
        Ok(())
    }

    /// What the search promised, and what held-out contexts say.
    fn write_gain(
        &self,
        out: &mut impl Write,
        promised: f64,
        gain: &HeldOutGain,
        start: &str,
    ) -> std::io::Result<()> {
        let held = gain.kl - gain.start_kl;
        let interval = gain.interval.filter(|_| gain.contexts >= FEWEST_PAIRS);
        let interval = interval.map_or(String::new(), |i| {
            format!(" (95 % {:+.4} to {:+.4})", i.low, i.high)
        });
        writeln!(
            out,
            "the start is the mean of the plans that {start} makes for the contexts searched on"
        )?;
        writeln!(out, "found - start, searched on: {promised:+.4}")?;
        writeln!(
            out,
            "found - start, held out:    {held:+.4}{interval}, lower on {} of {}",
            gain.better,
            super::counted(gain.contexts, "context")
        )?;
        let words = match gain.interval {
            _ if gain.contexts < FEWEST_PAIRS => {
                "too few contexts were held out to say whether the gain holds"
            }
            Some(interval) if interval.high < 0.0 => {
                "the gain holds on prompts that the search never saw"
            }
            Some(interval) if interval.low > 0.0 => {
                "on prompts that the search never saw the plan is worse than its start"
            }
            _ => "on prompts that the search never saw no difference is shown",
        };
        if gain.contexts < FEWEST_PAIRS {
            return writeln!(out, "{words}");
        }
        let more = held - promised;
        let hope = if more > 0.0 {
            format!("the search promised {more:.4} more than that")
        } else {
            "which is no less than the search promised".to_owned()
        };
        writeln!(out, "{words}; {hope}")
    }
}

/// Why a search ended, in a word.
fn ended_as(ended: Ended) -> &'static str {
    match ended {
        Ended::Settled => "settled",
        Ended::Spent => "spent",
        Ended::Stopped => "stopped",
    }
}
