//! The needle: one sentence that no other sentence resembles, and the question that asks for it.

use crate::dataset::dice::Dice;

/// First halves of the names of places.
const FIRST: &[&str] = &[
    "Har", "Win", "Ash", "Bram", "Cal", "Dun", "Elm", "Fair", "Glen", "Hol", "Kirk", "Lang", "Mar",
    "Nor", "Oak", "Pen", "Red", "Stan", "Thorn", "Wes",
];

/// Second halves.
const SECOND: &[&str] = &[
    "low", "ford", "bury", "combe", "dale", "field", "ham", "ley", "mere", "stead", "ton", "wick",
    "worth",
];

/// What has a pass code.
const HOLDERS: &[&str] = &[
    "archive",
    "vault",
    "museum",
    "observatory",
    "laboratory",
    "bank",
    "warehouse",
    "library",
    "station",
    "hospital",
    "brewery",
];

/// Names before they repeat.
pub(super) const NAMES: u64 = (FIRST.len() * SECOND.len() * HOLDERS.len()) as u64;

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
    pub(super) fn of_seed(seed: u64) -> Self {
        let place = ((seed % NAMES) * STRIDE % NAMES) as usize;
        let (first, rest) = (place % FIRST.len(), place / FIRST.len());
        let (second, holder) = (rest % SECOND.len(), rest / SECOND.len());
        let name = format!("{}{} {}", FIRST[first], SECOND[second], HOLDERS[holder]);
        // Five digits without a leading zero, which a reader may rightly leave out.
        let answer = (10_000 + Dice::new(seed, STREAM).below(90_000)).to_string();
        Self {
            sentence: format!("The pass code of the {name} is {answer}."),
            question: format!("What is the pass code of the {name}?"),
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
        let facts: Vec<Fact> = (0..NAMES).map(Fact::of_seed).collect();
        let questions: HashSet<_> = facts.iter().map(|fact| &fact.question).collect();
        assert_eq!(questions.len() as u64, NAMES);
        let first_codes: HashSet<_> = facts[..100].iter().map(|fact| &fact.answer).collect();
        assert_eq!(first_codes.len(), 100);
        for fact in &facts {
            assert!(fact.answer.len() == 5 && fact.sentence.contains(&fact.answer));
            assert!(!fact.question.contains(&fact.answer));
        }
        assert_eq!(Fact::of_seed(3), facts[3]);
    }
}
