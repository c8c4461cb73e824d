//! Sentences from patterns: slots, alternatives and the right article.

use std::collections::HashSet;

use super::dice::Dice;

/// Draws patterns so that none repeats within a context before its list is used up.
#[derive(Debug, Default)]
pub(super) struct Deck {
    spent: HashSet<&'static str>,
}

impl Deck {
    /// A pattern of `list` not drawn yet; all but those of `here` are fresh again once all were drawn.
    pub(super) fn draw(
        &mut self,
        dice: &mut Dice,
        list: &[&'static str],
        here: &[&'static str],
    ) -> Option<&'static str> {
        let unused = |spent: &HashSet<&str>| -> Vec<&'static str> {
            list.iter()
                .copied()
                .filter(|p| !spent.contains(p) && !here.contains(p))
                .collect()
        };
        let mut fresh = unused(&self.spent);
        if fresh.is_empty() {
            for pattern in list {
                self.spent.remove(pattern);
            }
            fresh = unused(&self.spent);
        }
        let pattern = dice.pick(&fresh)?;
        self.spent.insert(pattern);
        Some(pattern)
    }
}

#[cfg(test)]
impl Deck {
    pub(super) fn has_spent(&self, pattern: &str) -> bool {
        self.spent.contains(pattern)
    }
}

/// A sentence from a pattern; slots that `value` does not know stay as they are.
///
/// `{name}` is a slot, `[one|two]` a choice (not nested, slots allowed inside), `a~` the indefinite
/// article that fits the next word. The first letter becomes a capital.
pub(super) fn fill(
    dice: &mut Dice,
    pattern: &str,
    value: &dyn Fn(&str) -> Option<String>,
) -> String {
    let chosen = replace_between(pattern, ['[', ']'], |choices| {
        let choices: Vec<_> = choices.split('|').collect();
        dice.pick(&choices).unwrap_or_default().to_owned()
    });
    capitalised(&articles(&fill_slots(&chosen, value)))
}

/// `text` with its slots filled.
pub(super) fn fill_slots(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    replace_between(text, ['{', '}'], |name| {
        value(name).unwrap_or_else(|| format!("{{{name}}}"))
    })
}

/// The names of the slots of a pattern.
pub(super) fn slots(pattern: &str) -> impl Iterator<Item = &str> {
    let after = pattern.split('{').skip(1);
    after.filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// `text` with every stretch between two marks, and the marks, replaced.
fn replace_between(
    text: &str,
    [open, close]: [char; 2],
    mut by: impl FnMut(&str) -> String,
) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        let (inner, after) = after.split_once(close).unwrap_or((after, ""));
        result += before;
        result += &by(inner);
        rest = after;
    }
    result + rest
}

/// `text` with its first letter in upper case.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// `n` with commas between its thousands.
pub(super) fn thousands(n: i32) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn articles(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("a~ ") {
        result += before;
        result += if starts_with_vowel_sound(after) {
            "an "
        } else {
            "a "
        };
        rest = after;
    }
    result + rest
}

fn starts_with_vowel_sound(text: &str) -> bool {
    let lower = text.to_lowercase();
    let consonant_sound = ["uni", "eu", "one-", "one ", "u-", "us"];
    let number = ["8", "11", "18"].iter().any(|n| lower.starts_with(n));
    number
        || lower.starts_with(['a', 'e', 'i', 'o', 'u'])
            && !consonant_sound.iter().any(|start| lower.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_choices_and_articles() {
        let mut dice = Dice::new(1, 0);
        let slots = |name: &str| match name {
            "x" => Some("orange".to_owned()),
            "year" => Some("1894".to_owned()),
            _ => None,
        };
        assert_eq!(
            fill(&mut dice, "a~ {x} and a~ pear.", &slots),
            "An orange and a pear."
        );
        assert_eq!(
            fill(&mut dice, "it is a~ {year} tale", &slots),
            "It is an 1894 tale"
        );
        let both: HashSet<_> = (0..20)
            .map(|_| fill(&mut dice, "[red|a~ {x}] end", &slots))
            .collect();
        assert_eq!(
            both,
            HashSet::from(["Red end".to_owned(), "An orange end".to_owned()])
        );
        assert_eq!(fill(&mut dice, "no {y}", &slots), "No {y}");
        assert_eq!(
            super::slots("{x} [and|{year}]").collect::<Vec<_>>(),
            ["x", "year"]
        );
        assert!(!starts_with_vowel_sound("university") && !starts_with_vowel_sound("1934"));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [7, 999, 1000, 1234567].map(thousands),
            ["7", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_deck_repeats_only_when_used_up() {
        let (mut dice, mut deck) = (Dice::new(2, 0), Deck::default());
        let list = ["a", "b", "c"];
        let first: HashSet<_> = (0..3)
            .filter_map(|_| deck.draw(&mut dice, &list, &[]))
            .collect();
        assert_eq!(first.len(), 3);
        assert_eq!(deck.draw(&mut dice, &list, &["a", "c"]), Some("b"));
        assert_eq!(deck.draw(&mut dice, &list, &list), None);
    }
}
