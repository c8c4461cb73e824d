//! Prompts in the style of 2WikiMultihopQA over an invented world.
//!
//! Every question gets a world of its own: people, films, books, songs, firms, schools, towns and
//! rivers with invented names, so that nothing can be answered from memory. The answer follows from
//! two to four sentences in different passages; they are marked as evidence. Passages that surround
//! them speak of things of the same kinds, some with nearly the same names.
//!
//! Paper: 2WikiMultihopQA (arXiv 2011.01060) for the four types of question, LongBench (arXiv
//! 2308.14508) for the fields. Differs: text, names and questions are our own.

mod data;
mod distractors;
mod fit;
mod making;
mod names;
mod passage;
mod question;
#[cfg(test)]
mod tests;
mod world;

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use self::data::Data;
use self::distractors::Distractors;
use self::fit::{compose, fill_up};
use self::passage::{Draft, Orders};
use self::question::{Question, Turns};
use self::world::{Fact, World};
use super::dice::Dice;
use super::record::columns;
use super::scale::Scale;
use crate::error::{Error, Result};

/// Smallest message in tokens that holds ten passages and a question.
pub const MIN_TOKENS: usize = 1_000;

/// Largest message in tokens.
pub const MAX_TOKENS: usize = 1 << 20;

/// Most questions in one data set.
pub const MAX_QUESTIONS: usize = 10_000;

/// Every context has at least this many passages.
const MIN_PASSAGES: usize = 10;

/// Worlds tried for one question before giving up; nearly every first one will do.
const ATTEMPTS: u64 = 64;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of questions, types taking turns.
    pub questions: usize,
    /// Size of the rendered message (default template, no chat template): at most this, and within
    /// 2 % of it.
    ///
    /// Units: tokens, as the caller counts them.
    pub tokens: usize,
    /// The same seed gives the same bytes; question i does not depend on how many follow.
    pub seed: u64,
}

/// Generates records with LongBench's fields, the question's type and its evidence.
///
/// Units: `evidence` is in characters of `context`, `length` in words of it.
///
/// Errors: [`Error::Invalid`] for options out of bounds, or whatever `count_tokens` returns.
pub fn generate(
    options: &Options,
    count_tokens: &dyn Fn(&str) -> Result<usize>,
) -> Result<Vec<Map<String, Value>>> {
    check(options)?;
    let data = Data::load()?;
    let turns = Turns::new(data, options.seed);
    (0..options.questions)
        .map(|index| record(options, data, &turns, index, count_tokens))
        .collect()
}

fn check(options: &Options) -> Result<()> {
    let Options {
        questions, tokens, ..
    } = *options;
    if questions == 0 || questions > MAX_QUESTIONS {
        let bound = format!("from 1 to {MAX_QUESTIONS} can be generated at once");
        return Err(Error::invalid("number of questions", questions, bound));
    }
    if tokens < MIN_TOKENS {
        return Err(too_small(tokens, MIN_TOKENS));
    }
    if tokens > MAX_TOKENS {
        let bound = format!("prompts of at most {MAX_TOKENS} tokens can be generated");
        return Err(Error::invalid("prompt size in tokens", tokens, bound));
    }
    Ok(())
}

fn too_small(tokens: usize, needed: usize) -> Error {
    let bound = format!("a question over {MIN_PASSAGES} passages needs at least {needed}");
    Error::invalid("prompt size in tokens", tokens, bound)
}

fn record(
    options: &Options,
    data: &'static Data,
    turns: &Turns,
    index: usize,
    count_tokens: &dyn Fn(&str) -> Result<usize>,
) -> Result<Map<String, Value>> {
    for attempt in 0..ATTEMPTS {
        let dice = Dice::new(options.seed, index as u64 * ATTEMPTS + attempt);
        let mut world = World::new(data, dice);
        let Some(question) = turns.question(&mut world, index) else {
            continue;
        };
        let scale = Scale::new(count_tokens, &question.text);
        let drafts = passages(&mut world, &question, &scale, options.tokens)?;
        if let Some(drafts) = drafts
            && question.has_one_answer(&world)
            && let Some(record) = finish(options, index, &question, &drafts)
        {
            return Ok(record);
        }
    }
    let bound =
        format!("no world for question {index} came out in {ATTEMPTS} attempts: try another");
    Err(Error::invalid("seed", options.seed, bound))
}

/// The passages of one context in their order; `None` if they cannot be made to fit.
fn passages(
    world: &mut World,
    question: &Question,
    scale: &Scale<'_>,
    tokens: usize,
) -> Result<Option<Vec<Draft>>> {
    let gold: HashSet<Fact> = question.gold.iter().map(|(_, fact)| *fact).collect();
    let mut distractors = Distractors::new(world, question);
    let mut drafts = Vec::new();
    for thing in question.things() {
        let here = question.gold.iter().filter(|(of, _)| *of == thing);
        let need: Vec<_> = here.map(|(_, fact)| *fact).collect();
        let orders = Orders {
            need: &need,
            gold: &gold,
            named: question.answer_is_subject,
        };
        let Some(draft) = Draft::new(world, thing, &orders) else {
            return Ok(None);
        };
        drafts.push(draft);
    }
    // The share of all possible sentences that a context uses: the less, the more passages it has.
    let share = usize::try_from(world.dice.between(55, 85)).unwrap_or(70);
    let (mut stated, mut optional) = (scale.message(String::new())?, 0);
    for draft in &mut drafts {
        let (says, could_say) = measure(draft, scale)?;
        (stated, optional) = (stated + says, optional + could_say);
    }
    let ways = gold.iter().flat_map(|fact| shortcuts(*fact));
    let elsewhere: HashSet<_> = ways.chain(gold.iter().copied()).collect();
    while drafts.len() < MIN_PASSAGES || stated + optional * share / 100 < tokens {
        let (thing, says) = distractors.next(world);
        let orders = Orders {
            need: says.as_slice(),
            gold: &elsewhere,
            named: false,
        };
        if let Some(mut draft) = Draft::new(world, thing, &orders) {
            let (says, could_say) = measure(&mut draft, scale)?;
            (stated, optional) = (stated + says, optional + could_say);
            drafts.push(draft);
        }
    }
    world.dice.shuffle(&mut drafts);
    let size = scale.message(compose(&drafts).text)?;
    if size > tokens && drafts.len() == MIN_PASSAGES {
        return Err(too_small(tokens, size));
    }
    Ok(fill_up(&mut drafts, scale, tokens, &mut world.dice)?.then_some(drafts))
}

/// Measures what a draft could say as well; tokens of what it says already, and of that.
fn measure(draft: &mut Draft, scale: &Scale<'_>) -> Result<(usize, usize)> {
    let stated = scale.text(&compose(std::slice::from_ref(draft)).text)?;
    let mut optional = 0;
    for sentence in draft.sentences.iter_mut().filter(|s| !s.chosen) {
        sentence.tokens = scale.sentence(&sentence.text)?;
        optional += sentence.tokens;
    }
    Ok((stated, optional))
}

/// Facts which would lead to a gold fact by another way, and so are said in no distractor.
fn shortcuts(fact: Fact) -> Vec<Fact> {
    let people = match fact.what {
        // Who knows one parent and that parent's spouse knows the other.
        "father" | "mother" | "sibling" => vec![fact.of, fact.with],
        _ => vec![],
    };
    let parents = |person: world::Id| ["father", "mother"].map(|what| Fact::new(person, what));
    people.into_iter().flat_map(parents).collect()
}

/// The finished record, if its evidence holds what it must.
fn finish(
    options: &Options,
    index: usize,
    question: &Question,
    drafts: &[Draft],
) -> Option<Map<String, Value>> {
    let titles: HashSet<_> = drafts.iter().map(|draft| &draft.title).collect();
    if titles.len() < drafts.len() {
        return None;
    }
    let context = compose(drafts);
    let mut evidence = Vec::new();
    for (thing, fact) in &question.gold {
        let span = context.only_place(*thing, *fact)?;
        evidence.push([span.start, span.end]);
    }
    Some(columns(json!({
        "input": question.text,
        "context": context.text,
        "answers": [question.answer],
        "length": context.text.split_whitespace().count(),
        "dataset": "wikimqa-style",
        "language": "en",
        "all_classes": null,
        "_id": format!("wikimqa-style-{}-{index:04}", options.seed),
        "type": question.kind,
        "evidence": evidence,
    })))
}
