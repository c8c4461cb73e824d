//! Needles in haystacks: one sentence to be found again, at every depth of prompts of every length.
//!
//! Haystack and needles are our own: everyday scenes in sentences that never repeat, and the pass code
//! of an invented place. A seed has one needle and one text; its prompts of one length differ in nothing
//! but the needle's place (and, rarely, a last sentence), those of several lengths begin alike.
//!
//! Paper: none: house definition; the task is the usual one, a sentence hidden in a long text. Differs:
//! the haystack is generated and nobody's essays, and a prompt's length counts the whole prompt.

mod depths;
mod fact;
mod haystack;
mod prose;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value, json};

pub use self::depths::Depths;
use self::fact::Fact;
use self::haystack::{LEAST, Writer, hide};
use self::prose::Prose;
use super::read::{Dataset, read_jsonl};
use super::record::columns;
use super::scale::Scale;
use crate::error::{Error, Result};

/// Largest prompt in tokens.
pub const MAX_TOKENS: usize = 1 << 20;

/// Most records in one data set.
pub const MAX_RECORDS: usize = 100_000;

/// Which needles to hide: every length with every depth and every seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Sizes of the whole prompt: at most this, and a few tokens below it.
    ///
    /// Units: tokens, as the caller counts them.
    pub lengths: Vec<usize>,
    /// Where the needle stands, to within half a sentence.
    pub depths: Depths,
    /// A seed has a needle and a haystack of its own; records do not depend on what else is built.
    pub seeds: Range<u64>,
}

/// Builds the records: LongBench's fields with `length`, `depth`, `seed` and the needle as evidence.
///
/// Accepted answers are the code alone, and the needle itself, which is how small models tend to say it.
/// Records of a seed stand together, by length and then by depth, so that the first ones already hold
/// the whole grid. `count_tokens` is given a message and says how long the prompt around it becomes.
/// Units: `evidence` in characters of `context`, `length` in tokens, `depth` in per cent.
/// Errors: [`Error::Invalid`] for options out of bounds, a length too short among them, which names the
/// shortest; whatever `count_tokens` returns.
pub fn build(
    options: &Options,
    count_tokens: &dyn Fn(&str) -> Result<usize>,
) -> Result<Vec<Map<String, Value>>> {
    let lengths = check(options)?;
    let prose = Prose::load()?;
    let mut records = Vec::new();
    for seed in options.seeds.clone() {
        let fact = Fact::of_seed(prose, seed);
        let scale = Scale::new(count_tokens, &fact.question);
        let mut writer = Writer::new(prose, seed, &fact.sentence);
        for &length in &lengths {
            for &depth in options.depths.percent() {
                match record(&mut writer, &scale, &fact, (length, depth, seed))? {
                    Some(record) => records.push(record),
                    None => return Err(too_short(options, length, count_tokens)?),
                }
            }
        }
    }
    Ok(records)
}

/// The same as a data set in memory, called `needle`; its checksum is of its records as JSONL.
///
/// Errors: as [`build`].
pub fn dataset(options: &Options, count_tokens: &dyn Fn(&str) -> Result<usize>) -> Result<Dataset> {
    let mut lines = Vec::new();
    for record in build(options, count_tokens)? {
        lines.extend(Value::Object(record).to_string().into_bytes());
        lines.push(b'\n');
    }
    let dataset = read_jsonl(Path::new("needle"), &lines)?;
    Ok(Dataset {
        path: None,
        ..dataset
    })
}

/// Refuses options out of bounds; gives the lengths in order, each once.
fn check(options: &Options) -> Result<Vec<usize>> {
    let mut lengths = options.lengths.clone();
    lengths.sort_unstable();
    lengths.dedup();
    let seeds = options.seeds.end.saturating_sub(options.seeds.start);
    for (what, count) in [("lengths", lengths.len() as u64), ("seeds", seeds)] {
        if count == 0 {
            let what = format!("number of {what}");
            return Err(Error::invalid(what, 0, "one is needed"));
        }
    }
    if let Some(&longest) = lengths.last().filter(|&&l| l > MAX_TOKENS) {
        let bound = format!("prompts of at most {MAX_TOKENS} can be built");
        return Err(Error::invalid("prompt length in tokens", longest, bound));
    }
    let grid = (lengths.len() * options.depths.percent().len()) as u64;
    let records = grid.saturating_mul(seeds);
    if records > MAX_RECORDS as u64 {
        let bound = format!("at most {MAX_RECORDS} can be built: take fewer seeds or depths");
        return Err(Error::invalid("number of needle records", records, bound));
    }
    Ok(lengths)
}

/// One record; `None` if the length does not hold the shortest haystack.
fn record(
    writer: &mut Writer,
    scale: &Scale<'_>,
    fact: &Fact,
    (length, depth, seed): (usize, f64, u64),
) -> Result<Option<Map<String, Value>>> {
    let mut room = length;
    let hidden = loop {
        let Some(haystack) = writer.haystack(room, scale)? else {
            return Ok(None);
        };
        // Elsewhere than where it was measured, the needle may cost a token more.
        match writer.size(&haystack, depth, scale)?.checked_sub(length) {
            None | Some(0) => break hide(&fact.sentence, &haystack, depth),
            Some(over) => room = room.saturating_sub(over),
        }
    };
    Ok(Some(columns(json!({
        "input": fact.question,
        "context": hidden.text,
        "answers": [fact.answer, fact.sentence],
        "length": length,
        "depth": depth,
        "seed": seed,
        "dataset": "needle",
        "language": "en",
        "all_classes": null,
        "_id": format!("needle-{length}-{depth}-{seed}"),
        "evidence": [[hidden.needle.start, hidden.needle.end]],
    }))))
}

/// The error that names the shortest length at which all seeds and depths can be built.
fn too_short(
    options: &Options,
    length: usize,
    count_tokens: &dyn Fn(&str) -> Result<usize>,
) -> Result<Error> {
    let prose = Prose::load()?;
    let mut shortest = 0;
    for seed in options.seeds.clone() {
        let fact = Fact::of_seed(prose, seed);
        let scale = Scale::new(count_tokens, &fact.question);
        let mut writer = Writer::new(prose, seed, &fact.sentence);
        for &depth in options.depths.percent() {
            shortest = writer.shortest(depth, &scale)?.max(shortest);
        }
    }
    let bound = format!(
        "a needle, its question and a haystack of {LEAST} sentences need at least {shortest}"
    );
    Ok(Error::invalid("prompt length in tokens", length, bound))
}
