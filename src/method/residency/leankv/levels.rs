//! At which level the prompt's tokens are held.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{FirstCache, LeanKv};
use crate::error::{Error, Result};
use crate::model::cache::{LevelSlots, TokenBits};

/// Bits of keys and of values, written `k8v4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LevelBits {
    pub keys: TokenBits,
    pub values: TokenBits,
}

impl LevelBits {
    const fn of(keys: TokenBits, values: TokenBits) -> Self {
        Self { keys, values }
    }

    pub const K8V4: Self = Self::of(TokenBits::EIGHT, TokenBits::FOUR);
    pub const K4V2: Self = Self::of(TokenBits::FOUR, TokenBits::TWO);
}

impl fmt::Display for LevelBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}v{}", self.keys.count(), self.values.count())
    }
}

impl FromStr for LevelBits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let pair = text
            .trim()
            .strip_prefix('k')
            .and_then(|rest| rest.split_once('v'));
        let bits = |count: &str| TokenBits::of(count.parse().ok()?);
        pair.and_then(|(keys, values)| Some(Self::of(bits(keys)?, bits(values)?)))
            .ok_or_else(|| {
                let bound = "bits of keys and values are written k8v4; there are 16, 8, 4 and 2";
                Error::invalid("level of leankv", format!("'{text}'"), bound)
            })
    }
}

impl TryFrom<String> for LevelBits {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LevelBits> for String {
    fn from(bits: LevelBits) -> Self {
        bits.to_string()
    }
}

/// What is known of a prompt's tokens when their levels are chosen.
pub struct Prompt<'a> {
    rule: &'a LeanKv,
    first: &'a FirstCache<'a>,
}

/// The levels of a prompt's tokens under thresholds that were multiplied by `scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLevels {
    pub scale: f64,
    /// `[layer][kv_head]`.
    pub kept: Vec<Vec<LevelSlots>>,
}

/// Halvings of the range of scales: more than float64 tells apart.
const HALVINGS: usize = 80;

impl<'a> Prompt<'a> {
    /// Errors: [`Error::Invalid`] where the prompt's tokens were not scored.
    pub fn of(rule: &'a LeanKv, first: &'a FirstCache<'a>) -> Result<Self> {
        let scored = |l: usize, h: usize| {
            let scores = first.prompt_scores.get(l).and_then(|layer| layer.get(h));
            scores.is_some_and(|scores| scores.len() == first.prompt_tokens)
        };
        let mut layers = first.kept.iter().enumerate();
        if layers.all(|(l, heads)| (0..heads.len()).all(|h| scored(l, h))) {
            return Ok(Self { rule, first });
        }
        let bound = "every token of the prompt needs one";
        Err(Error::invalid(
            "scores for leankv",
            first.prompt_scores.len(),
            bound,
        ))
    }

    /// Levels under the rule's thresholds times `scale`.
    pub fn levels(&self, scale: f64) -> PromptLevels {
        let layers = self.first.kept.iter().enumerate();
        let kept = layers.map(|(l, heads)| {
            let heads = heads.iter().enumerate();
            heads
                .map(|(h, slots)| self.head(slots, &self.first.prompt_scores[l][h], scale))
                .collect()
        });
        PromptLevels {
            scale,
            kept: kept.collect(),
        }
    }

    fn head(&self, slots: &[u32], scores: &[f64], scale: f64) -> LevelSlots {
        let tokens = self.first.prompt_tokens;
        let [prune, demote] =
            [self.rule.prune, self.rule.demote].map(|x| x * scale / tokens as f64);
        let mut kept = LevelSlots::default();
        for &slot in slots {
            let score = scores[slot as usize];
            let is_new = slot as usize + self.rule.window >= tokens;
            if is_new || score >= demote {
                kept.high.push(slot);
            } else if score >= prune {
                kept.low.push(slot);
            }
        }
        kept
    }

    /// Levels under the lowest thresholds whose cache takes at most `limit` bytes.
    ///
    /// Errors: [`Error::Invalid`] where the newest tokens alone take more.
    pub fn levels_within(&self, limit: usize) -> Result<PromptLevels> {
        let width = self.first.head_dim;
        let [high, low] = [&self.rule.high, &self.rule.low]
            .map(|bits| bits.keys.bytes(width) + bits.values.bytes(width));
        let bytes = |levels: &PromptLevels| -> usize {
            let heads = levels.kept.iter().flatten();
            heads
                .map(|head| head.high.len() * high + head.low.len() * low)
                .sum()
        };
        let unscaled = self.levels(0.0);
        if bytes(&unscaled) <= limit {
            return Ok(unscaled);
        }
        // Above it even a token of all attention leaves.
        let smallest = if self.rule.prune > 0.0 {
            self.rule.prune
        } else {
            self.rule.demote
        };
        let mut high = 2.0 * self.first.prompt_tokens as f64 / smallest;
        let mut found = self.levels(high);
        if bytes(&found) > limit {
            let bound = format!(
                "under the highest thresholds the cache takes {} (the newest {} tokens stay, and nothing leaves at \
                 prune=0): allow more, or lower leankv(window=...)",
                bytes(&found),
                self.rule.window
            );
            return Err(Error::invalid("budget of leankv in bytes", limit, bound));
        }
        let mut low = 0.0;
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            let levels = self.levels(middle);
            if bytes(&levels) <= limit {
                (high, found) = (middle, levels);
            } else {
                low = middle;
            }
        }
        Ok(found)
    }
}
