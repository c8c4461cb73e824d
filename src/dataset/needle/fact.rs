//! The needle: one sentence that no other sentence resembles, and the question that asks for it.

use super::prose::Prose;
use crate::dataset::dice::Dice;

/// Names before they repeat.
pub(super) const NAMES: u64 = 20 * 13 * 11;

/// Coprime to [`NAMES`], so that consecutive seeds get different names in all three parts.
const STRIDE: u64 = 1_747;

/// Stream of the dice that no haystack uses.
const STREAM: u64 = u64::MAX;

/// A needle with its question and answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) sentence: String,
    pub(super) question: String,
    pub(super) answer: String,
}

impl Fact {
    /// The needle of `seed`; [`NAMES`] seeds in a row have different names.
    pub(super) fn of_seed(prose: &Prose, seed: u64) -> Self {
        let place = ((seed % NAMES) * STRIDE % NAMES) as usize;
        let part = |words: &[&'static str], place: usize| words[place % words.len()];
        let (first, rest) = (part(&prose.first, place), place / prose.first.len());
        let (second, rest) = (part(&prose.second, rest), rest / prose.second.len());
        let name = format!("{first}{second} {}", part(&prose.holders, rest));
        // Five digits without a leading zero, which a reader may rightly leave out.
        let answer = (10_000 + Dice::new(seed, STREAM).below(90_000)).to_string();
        let sentence = prose.sentence.replace("{name}", &name);
        Self {
            sentence: sentence.replace("{code}", &answer),
            question: prose.question.replace("{name}", &name),
            answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seeds_have_needles_of_their_own() {
        let prose = Prose::load().unwrap();
        let parts = [&prose.first, &prose.second, &prose.holders].map(Vec::len);
        assert_eq!(parts, [20, 13, 11]);
        let facts: Vec<Fact> = (0..NAMES).map(|seed| Fact::of_seed(prose, seed)).collect();
        let questions: HashSet<_> = facts.iter().map(|fact| &fact.question).collect();
        assert_eq!(questions.len() as u64, NAMES);
        let first_codes: HashSet<_> = facts[..100].iter().map(|fact| &fact.answer).collect();
        assert_eq!(first_codes.len(), 100);
        for fact in &facts {
            assert!(fact.answer.len() == 5 && fact.sentence.contains(&fact.answer));
            assert!(!fact.question.contains(&fact.answer));
        }
        assert_eq!(Fact::of_seed(prose, 3), facts[3]);
    }
}
