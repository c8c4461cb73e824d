//! The table of workloads.

use super::decode::Decode;
use super::grid::{CONFIGURATIONS, Grid};
use super::prefill::{ByLayer, Prefill, Profiling};
use super::work::Work;
use crate::error::{Error, Result};
use crate::eval::speed::Mode;

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

const fn line(
    name: &'static str,
    base: &'static str,
    work: &'static dyn Work,
    about: &'static str,
) -> Workload {
    Workload {
        name,
        about,
        base,
        times: 1,
        work,
    }
}

/// Every workload; bases stand before what is taken against them.
#[rustfmt::skip]
pub const WORKLOADS: &[Workload] = &[
    line("prefill", "prefill", &Prefill, "the prompt through the model, nobody watching"),
    line("profile-32", "prefill", &Profiling { window: Some(32), strategy: None },
        "the same with everything that a profile measures, over the last 32 rows"),
    line("profile-128", "prefill", &Profiling { window: Some(128), strategy: None },
        "the same over the last 128 rows"),
    line("profile-all", "prefill", &Profiling { window: None, strategy: None },
        "the same over every row"),
    line("profile-by-layer", "prefill", &ByLayer,
        "a profile of the last 32 rows, every layer read, used and let go"),
    line("prefill-zigzag", "prefill", &Profiling { window: Some(32), strategy: Some("zigzag") },
        "the prompt through the model with what online zigzag reads, over the last 32 rows"),
    line("decode-full", "decode-full", &Decode(Mode::Full),
        "steps after the prompt with all its keys and values"),
    line("decode-1024", "decode-full", &Decode(Mode::Budget(1024)),
        "the same with 1,024 tokens per KV head, chosen by SnapKV"),
    line("decode-256", "decode-full", &Decode(Mode::Budget(256)), "the same with 256"),
    line("decode-64", "decode-full", &Decode(Mode::Budget(64)), "the same with 64"),
    Workload { times: CONFIGURATIONS, ..line("grid", "prefill", &Grid,
        "eval's sweep of 24 configurations, against prefilling for each of them") },
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
