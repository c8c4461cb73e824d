//! Growing a context of passages until the message has the size asked for.

use std::ops::Range;

use super::passage::Draft;
use super::world::{Fact, Id};
use crate::dataset::dice::Dice;
use crate::dataset::scale::Scale;
use crate::error::Result;

/// A context, and where each sentence stands in it.
pub(super) struct Composed {
    pub(super) text: String,
    sentences: Vec<(Id, Vec<Fact>, Range<usize>)>,
}

impl Composed {
    /// The characters of the one sentence that says `fact` in the passage of `thing`.
    ///
    /// `None` if the context says it nowhere, elsewhere or more than once.
    pub(super) fn only_place(&self, thing: Id, fact: Fact) -> Option<Range<usize>> {
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

/// Adds sentences to the drafts until the message has at most `tokens` and at least 98 % of them; false
/// if the sentences do not suffice.
pub(super) fn fill_up(
    drafts: &mut [Draft],
    scale: &Scale<'_>,
    tokens: usize,
    dice: &mut Dice,
) -> Result<bool> {
    let enough = tokens - tokens / 50;
    // Draft and place of each sentence that could still be added.
    let mut open = Vec::new();
    for (draft, passage) in drafts.iter().enumerate() {
        let places = 0..passage.sentences.len();
        let unchosen = places.filter(|&place| !passage.sentences[place].chosen);
        open.extend(unchosen.map(|place| (draft, place)));
    }
    let mut added = Vec::new();
    let mut size = scale.message(compose(drafts).text)?;
    // Each round corrects what adding up sentences misjudged; the rounds converge within a few tokens.
    for _ in 0..100 {
        while let Some(place) = next_sentence(&open, drafts, tokens.saturating_sub(size), dice) {
            let (draft, place) = open.swap_remove(place);
            let sentence = &mut drafts[draft].sentences[place];
            sentence.chosen = true;
            size += sentence.tokens;
            added.push((draft, place));
        }
        size = scale.message(compose(drafts).text)?;
        if (enough..=tokens).contains(&size) {
            return Ok(true);
        }
        if size < enough && next_sentence(&open, drafts, tokens - size, dice).is_none() {
            return Ok(false);
        }
        while size > tokens {
            let Some((draft, place)) = added.pop() else {
                return Ok(false);
            };
            drafts[draft].sentences[place].chosen = false;
            size = scale.message(compose(drafts).text)?;
        }
    }
    Ok(false)
}

/// A sentence of at most `left` tokens, from a passage with an appetite if possible.
fn next_sentence(
    open: &[(usize, usize)],
    drafts: &[Draft],
    left: usize,
    dice: &mut Dice,
) -> Option<usize> {
    let tokens = |at: usize| {
        let (draft, place) = open[at];
        drafts[draft].sentences[place].tokens
    };
    // A few tries find a sentence at once while there is room; the scan is for the last gap.
    for _ in 0..8 {
        let at = dice.below(open.len());
        let (draft, _) = open.get(at)?;
        let hungry = dice.below(5) < drafts[*draft].appetite;
        if tokens(at) <= left && hungry {
            return Some(at);
        }
    }
    let fits = (0..open.len()).filter(|&at| tokens(at) <= left);
    fits.max_by_key(|&at| tokens(at))
}
