//! The haystack: sentences that never repeat, as many as a prompt of a given length holds.

use std::collections::{BTreeMap, HashSet};

use super::prose::Prose;
use crate::dataset::dice::Dice;
use crate::dataset::scale::Scale;
use crate::dataset::text::{Deck, fill};
use crate::error::{Error, Result};

/// Fewest sentences, so that a tenth of the depth is a sentence at least.
pub(super) const LEAST: usize = 10;

/// Tokens that a prompt may lack of its length before another last sentence is looked for.
const NEAR: usize = 2;

/// Sentences beyond the haystack that may stand in for its last ones.
const SPARE: usize = 120;

/// Last sentences that may be replaced.
const REPLACED: usize = 4;

/// Haystacks that are measured for one that fits better.
const TRIALS: usize = 16;

/// Draws in a row that only give sentences which were said already.
const DRAWS: usize = 1_000;

/// A sentence of the haystack.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    text: String,
    /// Whether it begins a paragraph.
    opens: bool,
    /// Tokens that it adds behind another sentence.
    tokens: usize,
}

/// All sentences of a seed in their order, written as they are needed.
pub(super) struct Writer {
    prose: &'static Prose,
    needle: String,
    dice: Dice,
    deck: Deck,
    said: HashSet<String>,
    scene: &'static [&'static str],
    /// Sentences that the paragraph still gets.
    left: usize,
    written: Vec<Sentence>,
    /// Haystacks by the tokens of their prompts, since every depth asks for the same.
    fitted: BTreeMap<usize, Vec<Sentence>>,
}

impl Writer {
    pub(super) fn new(prose: &'static Prose, seed: u64, needle: &str) -> Self {
        Self {
            prose,
            needle: needle.to_owned(),
            dice: Dice::new(seed, 0),
            deck: Deck::default(),
            said: HashSet::new(),
            scene: &[],
            left: 0,
            written: Vec::new(),
            fitted: BTreeMap::new(),
        }
    }

    /// The first sentences whose message about the needle, at half depth, has at most `tokens` tokens and
    /// almost as many; `None` where that leaves fewer than [`LEAST`].
    pub(super) fn haystack(
        &mut self,
        tokens: usize,
        scale: &Scale<'_>,
    ) -> Result<Option<Vec<Sentence>>> {
        if let Some(haystack) = self.fitted.get(&tokens) {
            return Ok(Some(haystack.clone()));
        }
        let haystack = self.fit(tokens, scale)?;
        if let Some(haystack) = &haystack {
            self.fitted.insert(tokens, haystack.clone());
        }
        Ok(haystack)
    }

    fn fit(&mut self, tokens: usize, scale: &Scale<'_>) -> Result<Option<Vec<Sentence>>> {
        let mut count = self.estimate(tokens, scale)?;
        let mut size = self.size(&self.written[..count], HALF, scale)?;
        while size > tokens && count > LEAST {
            count -= 1;
            size = self.size(&self.written[..count], HALF, scale)?;
        }
        if size > tokens {
            return Ok(None);
        }
        loop {
            self.write(count + 1, scale)?;
            let longer = self.size(&self.written[..=count], HALF, scale)?;
            if longer > tokens {
                break;
            }
            (count, size) = (count + 1, longer);
        }
        self.write(count + SPARE, scale)?;
        self.refined(count, tokens, tokens - size, scale).map(Some)
    }

    /// Tokens of the whole prompt with the needle at `depth`.
    pub(super) fn size(
        &self,
        haystack: &[Sentence],
        depth: f64,
        scale: &Scale<'_>,
    ) -> Result<usize> {
        scale.message(hide(&self.needle, haystack, depth).text)
    }

    /// Tokens of the shortest prompt there is.
    pub(super) fn shortest(&mut self, depth: f64, scale: &Scale<'_>) -> Result<usize> {
        self.write(LEAST, scale)?;
        self.size(&self.written[..LEAST], depth, scale)
    }

    /// How many sentences come near the length when their tokens are added up.
    fn estimate(&mut self, tokens: usize, scale: &Scale<'_>) -> Result<usize> {
        self.write(LEAST, scale)?;
        let mut sum = self.size(&[], HALF, scale)?;
        let mut count = 0;
        loop {
            self.write(count + 1, scale)?;
            sum += self.written[count].tokens;
            if sum > tokens {
                return Ok(count.max(LEAST));
            }
            count += 1;
        }
    }

    /// The first `count` sentences, with another one added or taken for one of the last where that
    /// fills the `gap` better.
    fn refined(
        &self,
        count: usize,
        tokens: usize,
        gap: usize,
        scale: &Scale<'_>,
    ) -> Result<Vec<Sentence>> {
        let (first, spare) = self.written.split_at(count);
        let mut best = (gap, first.to_vec());
        if gap <= NEAR {
            return Ok(best.1);
        }
        // What each change would leave of the gap, if tokens of sentences simply added up.
        let mut changes: Vec<(usize, usize, &Sentence)> = Vec::new();
        for other in spare {
            for place in count.saturating_sub(REPLACED)..=count {
                let room = gap + first.get(place).map_or(0, |s| s.tokens);
                if let Some(rest) = room.checked_sub(other.tokens).filter(|r| *r < gap) {
                    changes.push((rest, place, other));
                }
            }
        }
        changes.sort_by_key(|(rest, ..)| *rest);
        for (_, place, other) in changes.into_iter().take(TRIALS) {
            let mut changed = first.to_vec();
            let opens = first.get(place).is_some_and(|replaced| replaced.opens);
            let sentence = Sentence {
                opens,
                ..other.clone()
            };
            changed.splice(place..(place + 1).min(count), [sentence]);
            let size = self.size(&changed, HALF, scale)?;
            if let Some(rest) = tokens.checked_sub(size).filter(|r| *r < best.0) {
                best = (rest, changed);
                if rest <= NEAR {
                    break;
                }
            }
        }
        Ok(best.1)
    }

    /// Writes until there are `count` sentences.
    fn write(&mut self, count: usize, scale: &Scale<'_>) -> Result<()> {
        while self.written.len() < count {
            let (text, opens) = self.next()?;
            let tokens = scale.sentence(&text)?;
            self.written.push(Sentence {
                text,
                opens,
                tokens,
            });
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(String, bool)> {
        let opens = self.left == 0;
        if opens {
            let scene = self.dice.below(self.prose.scenes.len());
            self.scene = self.prose.scenes.get(scene).map_or(&[], Vec::as_slice);
            self.left = 3 + self.dice.below(4);
        }
        self.left -= 1;
        for _ in 0..DRAWS {
            let Some(pattern) = self.deck.draw(&mut self.dice, self.scene, &[]) else {
                break;
            };
            let who = self.dice.word(&self.prose.who);
            let when = self.dice.word(&self.prose.when);
            let text = fill(&mut self.dice, pattern, &|slot| match slot {
                "who" => Some(who.to_owned()),
                "when" => Some(when.to_owned()),
                _ => None,
            });
            if self.said.insert(text.clone()) {
                return Ok((text, opens));
            }
        }
        Err(Error::invalid(
            "haystack",
            format!("{} sentences long", self.written.len()),
            "there is no more text that does not repeat: take a smaller length",
        ))
    }
}

/// The depth at which haystacks are measured.
const HALF: f64 = 50.0;

/// A haystack with the needle in it.
pub(super) struct Hidden {
    pub(super) text: String,
    /// Characters from the needle's start to its end.
    pub(super) needle: std::ops::Range<usize>,
}

/// Puts the needle between two sentences, where the characters before it are nearest to `depth` per cent.
pub(super) fn hide(needle: &str, sentences: &[Sentence], depth: f64) -> Hidden {
    let place = nearest_place(sentences, depth);
    let mut hidden = Hidden {
        text: String::new(),
        needle: 0..0,
    };
    for (index, sentence) in sentences.iter().enumerate() {
        if index == place {
            hidden.push_needle(needle);
        }
        // A needle at the start is followed within its paragraph, as it is preceded elsewhere.
        if !hidden.text.is_empty() {
            let breaks = sentence.opens && index > 0;
            hidden.text.push(if breaks { '\n' } else { ' ' });
        }
        hidden.text.push_str(&sentence.text);
    }
    if place >= sentences.len() {
        hidden.push_needle(needle);
    }
    hidden
}

impl Hidden {
    fn push_needle(&mut self, needle: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.chars().count();
        self.text.push_str(needle);
        self.needle = start..start + needle.chars().count();
    }
}

/// The sentence before which the needle stands; the number of sentences for the end.
fn nearest_place(sentences: &[Sentence], depth: f64) -> usize {
    let ends: Vec<usize> = sentences
        .iter()
        .scan(0, |sum, sentence| {
            *sum += sentence.text.chars().count() + 1;
            Some(*sum)
        })
        .collect();
    let wanted = ends.last().copied().unwrap_or(0) as f64 * depth / 100.0;
    let distance = |place: usize| {
        let before = place.checked_sub(1).map_or(0, |last| ends[last]);
        (before as f64 - wanted).abs()
    };
    let places = 0..=sentences.len();
    places
        .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(texts: &[&str]) -> Vec<Sentence> {
        let sentence = |(index, text): (usize, &&str)| Sentence {
            text: (*text).to_owned(),
            opens: index % 2 == 0,
            tokens: 1,
        };
        texts.iter().enumerate().map(sentence).collect()
    }

    #[test]
    fn a_needle_stands_between_the_nearest_sentences() {
        let hay = sentences(&["Aaa.", "Bbb.", "Ccc.", "Ddd."]);
        let at = |depth| {
            let hidden = hide("Né.", &hay, depth);
            let needle: String = (hidden.text.chars())
                .skip(hidden.needle.start)
                .take(hidden.needle.len())
                .collect();
            assert_eq!(needle, "Né.");
            hidden.text
        };
        assert_eq!(at(0.0), "Né. Aaa. Bbb.\nCcc. Ddd.");
        assert_eq!(at(12.0), at(0.0));
        assert_eq!(at(13.0), "Aaa. Né. Bbb.\nCcc. Ddd.");
        assert_eq!(at(50.0), "Aaa. Bbb. Né.\nCcc. Ddd.");
        assert_eq!(at(100.0), "Aaa. Bbb.\nCcc. Ddd. Né.");
        assert_eq!(hide("Né.", &[], 70.0).text, "Né.");
    }

    #[test]
    fn sentences_differ_and_hold_nothing_like_a_code() {
        let mut writer = Writer::new(Prose::load().unwrap(), 1, "");
        let mut seen = HashSet::new();
        let mut opening = 0;
        for _ in 0..6_000 {
            let (text, opens) = writer.next().unwrap();
            opening += usize::from(opens);
            assert!(
                !text.contains(|c: char| c.is_ascii_digit() || "{}[]|~".contains(c)),
                "{text}"
            );
            assert!(!text.contains("code") && !text.contains("  "), "{text}");
            assert!(
                text.ends_with('.') && text.starts_with(char::is_uppercase),
                "{text}"
            );
            assert!(seen.insert(text));
        }
        assert!((1_000..=2_000).contains(&opening), "{opening} paragraphs");
    }

    #[test]
    fn text_ends_some_day_with_an_error() {
        let mut writer = Writer::new(Prose::load().unwrap(), 0, "");
        writer.scene = &["{who} slept.", "{who} woke."];
        writer.left = usize::MAX;
        let ending = (0..).find_map(|_| writer.next().err()).unwrap().to_string();
        assert!(ending.contains("does not repeat"), "{ending}");
        assert_eq!(writer.said.len(), 2 * writer.prose.who.len());
    }
}
