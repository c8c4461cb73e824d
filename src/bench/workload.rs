//! The table of workloads.

use super::arithmetic::{Arithmetic, Shape};
use super::clock::Seconds;
use super::decode::Decode;
use super::grid::{CONFIGURATIONS, Grid};
use super::prefill::{Prefill, Profiling};
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::eval::speed::Mode;

/// Something whose cost is measured.
pub trait Work: Send + Sync {
    /// Does it once and says how long the part took that counts.
    ///
    /// Errors: those of what is done.
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds>;

    /// Tokens that a prompt must have at least for the work to make sense.
    fn least_tokens(&self) -> usize {
        1
    }

    /// Tokens that must fit the model's context after the prompt.
    fn room(&self, _steps: usize) -> usize {
        0
    }

    /// Whether it goes on from a prompt that was prefilled before.
    fn decodes(&self) -> bool {
        false
    }

    /// What the timed part cannot do without; `None` where that is not counted.
    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic>;

    /// Tokens of its cache, per KV head.
    fn cache_tokens(&self, shape: &Shape<'_>) -> usize {
        shape.tokens
    }
}

/// A line of the bench.
pub struct Workload {
    /// Name on the command line and in tables.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The workload that it is divided by.
    pub base: &'static str,
    /// How many of those.
    pub times: usize,
    /// How it is done.
    pub work: &'static dyn Work,
}

/// Every workload; bases stand before what is taken against them.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "prefill",
        about: "the prompt through the model, nobody watching",
        base: "prefill",
        times: 1,
        work: &Prefill,
    },
    Workload {
        name: "profile-32",
        about: "the same with everything that a profile measures, over the last 32 rows",
        base: "prefill",
        times: 1,
        work: &Profiling {
            window: Some(32),
            strategy: None,
        },
    },
    Workload {
        name: "profile-128",
        about: "the same over the last 128 rows",
        base: "prefill",
        times: 1,
        work: &Profiling {
            window: Some(128),
            strategy: None,
        },
    },
    Workload {
        name: "profile-all",
        about: "the same over every row",
        base: "prefill",
        times: 1,
        work: &Profiling {
            window: None,
            strategy: None,
        },
    },
    Workload {
        name: "prefill-zigzag",
        about: "the prompt through the model with what online zigzag reads, over the last 32 rows",
        base: "prefill",
        times: 1,
        work: &Profiling {
            window: Some(32),
            strategy: Some("zigzag"),
        },
    },
    Workload {
        name: "decode-full",
        about: "steps after the prompt with all its keys and values",
        base: "decode-full",
        times: 1,
        work: &Decode(Mode::Full),
    },
    Workload {
        name: "decode-1024",
        about: "the same with 1,024 tokens per KV head, chosen by SnapKV",
        base: "decode-full",
        times: 1,
        work: &Decode(Mode::Budget(1024)),
    },
    Workload {
        name: "decode-256",
        about: "the same with 256",
        base: "decode-full",
        times: 1,
        work: &Decode(Mode::Budget(256)),
    },
    Workload {
        name: "decode-64",
        about: "the same with 64",
        base: "decode-full",
        times: 1,
        work: &Decode(Mode::Budget(64)),
    },
    Workload {
        name: "grid",
        about: "eval's sweep of 24 configurations, against prefilling for each of them",
        base: "prefill",
        times: CONFIGURATIONS,
        work: &Grid,
    },
];

/// The workloads of these names and those that they are taken against, in the order of the table.
///
/// Errors: [`Error::UnknownName`]; [`Error::Invalid`] for a name given twice.
pub fn named(names: &[String]) -> Result<Vec<&'static Workload>> {
    for (i, name) in names.iter().enumerate() {
        if !WORKLOADS.iter().any(|w| w.name == name) {
            let known = WORKLOADS.iter().map(|w| w.name);
            return Err(Error::unknown("workload", name, known));
        }
        if names[..i].contains(name) {
            return Err(Error::invalid("workload", name, "it is named twice"));
        }
    }
    let asked = |w: &Workload| names.iter().any(|name| name == w.name);
    let serves = |w: &Workload| WORKLOADS.iter().any(|o| asked(o) && o.base == w.name);
    Ok(WORKLOADS.iter().filter(|w| asked(w) || serves(w)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Result<Vec<&'static str>> {
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        Ok(named(&asked)?.iter().map(|w| w.name).collect())
    }

    #[test]
    fn bases_stand_first_and_are_their_own() {
        for (place, workload) in WORKLOADS.iter().enumerate() {
            let base = WORKLOADS.iter().position(|w| w.name == workload.base);
            assert!(base.unwrap() <= place, "{}", workload.name);
            let base = &WORKLOADS[base.unwrap()];
            assert_eq!((base.base, base.times), (base.name, 1));
            let same = WORKLOADS.iter().filter(|w| w.name == workload.name);
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn what_is_asked_for_brings_its_base() {
        assert_eq!(names(&["profile-32"]).unwrap(), ["prefill", "profile-32"]);
        assert_eq!(
            names(&["decode-64", "prefill"]).unwrap(),
            ["prefill", "decode-full", "decode-64"]
        );
        assert!(names(&[]).unwrap().is_empty());
    }

    #[test]
    fn names_that_are_not_there_are_refused() {
        let problem = names(&["decode-65"]).unwrap_err().to_string();
        assert!(problem.contains("decode-64"), "{problem}");
        let twice = names(&["grid", "grid"]).unwrap_err().to_string();
        assert!(twice.contains("twice"), "{twice}");
    }
}
