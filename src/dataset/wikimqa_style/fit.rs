//! Growing a context of passages until the message has the size asked for.

use std::ops::Range;

use serde_json::{Map, Value};

use super::passage::Draft;
use super::world::{Fact, Thing};
use crate::dataset::dice::Dice;
use crate::dataset::record::{Kind, Record};
use crate::dataset::template::Template;
use crate::error::{Error, Result};

/// Measures messages with the caller's tokenizer.
pub(super) struct Scale<'a> {
    count: &'a dyn Fn(&str) -> Result<usize>,
    template: Template,
    question: String,
    /// Tokens that the finished message may have.
    pub(super) tokens: usize,
}

impl<'a> Scale<'a> {
    pub(super) fn new(
        count: &'a dyn Fn(&str) -> Result<usize>,
        question: &str,
        tokens: usize,
    ) -> Self {
        let template = Template::default_for(Kind::LongBench);
        Self {
            count,
            template,
            question: question.to_owned(),
            tokens,
        }
    }

    /// Tokens of the whole message about `drafts`.
    pub(super) fn message(&self, drafts: &[Draft]) -> Result<usize> {
        let columns: Map<String, Value> = Map::from_iter([
            ("input".to_owned(), Value::from(self.question.as_str())),
            ("context".to_owned(), Value::from(compose(drafts).text)),
            ("answers".to_owned(), Value::Array(vec![])),
        ]);
        let record = Record::new(columns, 0)
            .map_err(|problem| Error::invalid("a generated record", "not valid", problem))?;
        (self.count)(&self.template.render(&record)?.text)
    }

    /// Tokens that a draft's chosen sentences and title add.
    pub(super) fn passage(&self, draft: &Draft) -> Result<usize> {
        (self.count)(&compose(std::slice::from_ref(draft)).text)
    }

    /// Tokens that `sentence` adds behind another one.
    fn sentence(&self, sentence: &str) -> Result<usize> {
        let alone = (self.count)("So it was.")?;
        Ok((self.count)(&format!("So it was. {sentence}"))?.saturating_sub(alone))
    }

    /// Tokens that a draft's optional sentences would add.
    pub(super) fn optional(&self, draft: &Draft) -> Result<usize> {
        let open = draft.sentences.iter().filter(|sentence| !sentence.chosen);
        open.map(|sentence| self.sentence(&sentence.text)).sum()
    }
}

/// A context, and where each sentence stands in it.
pub(super) struct Composed {
    pub(super) text: String,
    sentences: Vec<(Thing, Vec<Fact>, Range<usize>)>,
}

impl Composed {
    /// The characters of the one sentence that says `fact` in the passage of `thing`.
    ///
    /// `None` if the context says it nowhere, elsewhere or more than once.
    pub(super) fn only_place(&self, thing: Thing, fact: Fact) -> Option<Range<usize>> {
        let mut places = self
            .sentences
            .iter()
            .filter(|(_, facts, _)| facts.contains(&fact));
        let (at, _, span) = places.next()?;
        (*at == thing && places.next().is_none()).then(|| span.clone())
    }
}

/// The context that `drafts` make with their chosen sentences, in LongBench's form.
pub(super) fn compose(drafts: &[Draft]) -> Composed {
    let mut composed = Composed {
        text: String::new(),
        sentences: vec![],
    };
    let mut characters = 0;
    let mut write = |text: &mut String, piece: &str| {
        text.push_str(piece);
        let start = characters;
        characters += piece.chars().count();
        start..characters
    };
    for (index, draft) in drafts.iter().enumerate() {
        let break_before = if index == 0 { "" } else { "\n" };
        let head = format!("{break_before}Passage {}:\n{}\n", index + 1, draft.title);
        write(&mut composed.text, &head);
        let chosen = draft.sentences.iter().filter(|sentence| sentence.chosen);
        for (place, sentence) in chosen.enumerate() {
            if place > 0 {
                write(&mut composed.text, " ");
            }
            let span = write(&mut composed.text, &sentence.text);
            composed
                .sentences
                .push((draft.thing, sentence.facts.clone(), span));
        }
    }
    composed
}

/// Adds sentences to the drafts until the message has at most the tokens asked for and at least
/// 98 % of them; false if the sentences do not suffice.
pub(super) fn fill_up(drafts: &mut [Draft], scale: &Scale<'_>, dice: &mut Dice) -> Result<bool> {
    let enough = scale.tokens - scale.tokens / 50;
    let mut open = open_sentences(drafts, scale)?;
    let mut added = Vec::new();
    let mut size = scale.message(drafts)?;
    // Each round corrects what adding up sentences misjudged; the rounds converge within a few tokens.
    for _ in 0..100 {
        while let Some(place) =
            next_sentence(&open, drafts, scale.tokens.saturating_sub(size), dice)
        {
            let sentence = open.swap_remove(place);
            drafts[sentence.draft].sentences[sentence.place].chosen = true;
            size += sentence.tokens;
            added.push(sentence);
        }
        size = scale.message(drafts)?;
        if (enough..=scale.tokens).contains(&size) {
            return Ok(true);
        }
        if size < enough && next_sentence(&open, drafts, scale.tokens - size, dice).is_none() {
            return Ok(false);
        }
        while size > scale.tokens {
            let Some(last) = added.pop() else {
                return Ok(false);
            };
            drafts[last.draft].sentences[last.place].chosen = false;
            size = scale.message(drafts)?;
        }
    }
    Ok(false)
}

/// A sentence that could still be added.
struct Open {
    draft: usize,
    place: usize,
    tokens: usize,
}

fn open_sentences(drafts: &[Draft], scale: &Scale<'_>) -> Result<Vec<Open>> {
    let mut open = Vec::new();
    for (draft, passage) in drafts.iter().enumerate() {
        for (place, sentence) in passage.sentences.iter().enumerate() {
            if !sentence.chosen {
                open.push(Open {
                    draft,
                    place,
                    tokens: scale.sentence(&sentence.text)?,
                });
            }
        }
    }
    Ok(open)
}

/// A sentence of at most `left` tokens, from a passage with an appetite if possible.
fn next_sentence(open: &[Open], drafts: &[Draft], left: usize, dice: &mut Dice) -> Option<usize> {
    // A few tries find a sentence at once while there is room; the scan is for the last gap.
    for _ in 0..8 {
        let place = dice.below(open.len());
        let sentence = open.get(place)?;
        let hungry = dice.below(5) < drafts[sentence.draft].appetite;
        if sentence.tokens <= left && hungry {
            return Some(place);
        }
    }
    let fits = (0..open.len()).filter(|&place| open[place].tokens <= left);
    fits.max_by_key(|&place| open[place].tokens)
}
