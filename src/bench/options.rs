//! What is measured, and what can be refused before anything is.

use super::workload::Workload;
use crate::error::{Error, Result};

/// What to measure.
pub struct BenchOptions {
    /// Prompt lengths in tokens, ascending, each once.
    pub lengths: Vec<usize>,
    /// Workloads, in the order of the table.
    pub workloads: Vec<&'static Workload>,
    /// Whether they were asked for by name: then one that no length can serve is refused, not left out.
    pub named: bool,
    /// How often each is measured, in turns.
    pub repeats: usize,
    /// Timed decoding steps of a repeat.
    pub steps: usize,
}

/// The most repeats, or steps of one of them.
const MOST: usize = 10_000;

impl BenchOptions {
    /// Refuses what cannot be measured, before a model is known.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(&self) -> Result<()> {
        for (what, count) in [("steps", self.steps), ("repeats", self.repeats)] {
            if count == 0 || count > MOST {
                let bound = format!("it must lie between 1 and {MOST}");
                return Err(Error::invalid(format!("number of {what}"), count, bound));
            }
        }
        let Some(&longest) = self.lengths.last() else {
            return Err(Error::invalid("number of lengths", 0, "one is needed"));
        };
        if self.lengths.first() == Some(&0) {
            return Err(Error::invalid("length", 0, "a prompt has a token at least"));
        }
        if self.workloads.is_empty() {
            return Err(Error::invalid("number of workloads", 0, "one is needed"));
        }
        if !self.lengths.windows(2).all(|w| w[0] < w[1]) {
            let (lengths, bound) = (&self.lengths, "lengths must ascend, each once");
            return Err(Error::invalid("lengths", format!("{lengths:?}"), bound));
        }
        self.check_asked(longest)
    }

    fn check_asked(&self, longest: usize) -> Result<()> {
        let idle = |w: &&&Workload| self.named && w.work.least_tokens() > longest;
        match self.workloads.iter().find(idle) {
            None => Ok(()),
            Some(workload) => {
                let bound = format!(
                    "it needs prompts of at least {} tokens and the longest has {longest}: add a length, or \
                     leave it out",
                    workload.work.least_tokens()
                );
                Err(Error::invalid("workload", workload.name, bound))
            }
        }
    }

    /// Refuses lengths that a model's context cannot hold with what follows them.
    ///
    /// Errors: [`Error::Invalid`], which names the longest that fits.
    pub fn check_context(&self, context: usize) -> Result<()> {
        for &length in &self.lengths {
            for workload in self.of_length(length) {
                let room = workload.work.room(self.steps);
                if length + room > context {
                    let bound = format!(
                        "with {room} tokens after it for {} it exceeds the model's context of {context}: at \
                         most {} fit",
                        workload.name,
                        context.saturating_sub(room)
                    );
                    return Err(Error::invalid("length", length, bound));
                }
            }
        }
        Ok(())
    }

    /// The workloads that make sense at a length.
    pub fn of_length(&self, length: usize) -> impl Iterator<Item = &'static Workload> + '_ {
        let fits = move |w: &&Workload| w.work.least_tokens() <= length;
        self.workloads.iter().copied().filter(fits)
    }

    /// Lengths with the workloads that they are too short for.
    pub fn left_out(&self) -> Vec<(usize, &'static Workload)> {
        let mut left_out = Vec::new();
        for &length in &self.lengths {
            let short = self
                .workloads
                .iter()
                .filter(|w| w.work.least_tokens() > length);
            left_out.extend(short.map(|w| (length, *w)));
        }
        left_out
    }

    /// Measurements in all.
    pub fn measurements(&self) -> usize {
        let of_length = self.lengths.iter().map(|l| self.of_length(*l).count());
        of_length.sum::<usize>() * self.repeats
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::{WORKLOADS, named};
    use super::*;

    fn options(lengths: &[usize], only: &[&str]) -> BenchOptions {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        BenchOptions {
            lengths: lengths.to_vec(),
            workloads: if only.is_empty() {
                WORKLOADS.iter().collect()
            } else {
                named(&only).unwrap()
            },
            named: !only.is_empty(),
            repeats: 3,
            steps: 16,
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(options(&[1024, 2048], &[]).check().is_ok());
        let problem = |o: BenchOptions| o.check().unwrap_err().to_string();
        assert!(problem(options(&[], &[])).contains("number of lengths"));
        assert!(problem(options(&[0, 5], &[])).contains("length is 0"));
        assert!(problem(options(&[64], &["grid"])).contains("at least 513 tokens"));
        assert!(options(&[64], &[]).check().is_ok(), "nobody asked for it");
        assert!(problem(options(&[64, 64], &["prefill"])).contains("each once"));
        let none = BenchOptions {
            workloads: vec![],
            ..options(&[64], &[])
        };
        assert!(problem(none).contains("number of workloads"));
        let idle = BenchOptions {
            repeats: 0,
            ..options(&[64], &["prefill"])
        };
        assert!(problem(idle).contains("number of repeats is 0"));
    }

    #[test]
    fn the_context_must_hold_what_follows() {
        let check = |only: &[&str]| options(&[100, 8180], only).check_context(8192);
        assert!(check(&["prefill"]).is_ok());
        let problem = check(&["decode-full"]).unwrap_err().to_string();
        assert!(problem.contains("17 tokens after it"), "{problem}");
        assert!(problem.contains("at most 8175 fit"), "{problem}");
    }

    #[test]
    fn short_prompts_leave_workloads_out() {
        let options = options(&[64, 256, 1024], &["prefill", "decode-64", "decode-256"]);
        let of = |length| {
            options
                .of_length(length)
                .map(|w| w.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(64), ["prefill", "decode-full"]);
        assert_eq!(of(256), ["prefill", "decode-full", "decode-64"]);
        assert_eq!(options.measurements(), (2 + 3 + 4) * 3);
        let left = options.left_out();
        let left: Vec<_> = left.iter().map(|(length, w)| (*length, w.name)).collect();
        assert_eq!(
            left,
            [(64, "decode-256"), (64, "decode-64"), (256, "decode-256")]
        );
    }
}
