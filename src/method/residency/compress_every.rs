//! Compression while decoding: every so many steps a KV head is cut to so many rows, and grows until the next cut.

use std::sync::Arc;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::eviction::{Bound, EvictionOptions};
use super::judgement::{CrowdedHead, Judgement, finite, mean_rows};
use super::{DecodeBudget, FirstCache, ResidencyRule};
use crate::budget::{Budget, BudgetPlan, CacheBudget, Floor};
use crate::error::{Error, Result};
use crate::model::residency::Residency;
use crate::registry::{self, Entry, described, parse};
use crate::select::{LayerObservation, Needs, SCORERS, Scorer, WindowRows};

/// Every so many steps, a KV head is cut to its best rows by a scorer; between two cuts it grows.
///
/// Paper: none: kvpress's `DecodingPress`. Differs: sinks and window of the method stay, which `sinks=0,window=0` leaves out;
/// a scorer sees one KV head, so that `tova` and `chunkkv` choose for each by itself; it looks from queries as they were,
/// the last of the prompt among them, where kvpress turns all of them to the last position and forgets them after each
/// cut; neighbours are those by position, where kvpress leaves rows in the order of their scores. As there, the prompt is left alone until the first cut: `target` bounds what is left by a cut, not the rows
/// between.
///
/// Units: tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CompressEvery {
    /// Rows of a KV head after each cut.
    target: DecodeBudget,
    /// Steps from one cut to the next.
    every: usize,
    /// The rule that ranks tokens, by its name in [`SCORERS`].
    scorer: String,
    /// Its parameters.
    scorer_parameters: Value,
    /// First tokens of the text that never leave; those of the method if absent.
    sinks: Option<usize>,
    /// Newest tokens that do not leave, and from which scorers look; those of the method if absent.
    window: Option<usize>,
}

impl Default for CompressEvery {
    fn default() -> Self {
        Self {
            target: DecodeBudget::Alike(Budget::TokensPerHead(2048.0)),
            every: 512,
            scorer: "snapkv".into(),
            scorer_parameters: json!({}),
            sinks: None,
            window: None,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "compress-every",
    paper: "kvpress (DecodingPress)",
    about: "every 512 steps a KV head is cut to 2,048 rows by any scorer that keys, values and the newest queries are \
            enough for",
    differs: "sinks and window of the method stay; a scorer sees one KV head, and queries at their true positions",
    build: |p| {
        let options = parse::<CompressEvery>(p)?;
        let built = Compression::of(options);
        built
            .map(|rule| Box::new(rule) as Box<dyn ResidencyRule>)
            .map_err(serde::de::Error::custom)
    },
};

/// Scorers that keys, values and queries are not enough for although they ask for nothing else.
const OF_WHOLE_PROMPTS: [(&str, &str); 2] = [
    (
        "leverage",
        "it turns keys back by their places in a prompt that is whole",
    ),
    (
        "random",
        "it would draw the same places at every cut: evict-random draws anew",
    ),
];

/// With its scorer.
#[derive(Debug)]
struct Compression {
    options: CompressEvery,
    scorer: Arc<dyn Scorer>,
}

impl Compression {
    /// Refuses scorers that look at what nobody has while decoding.
    fn of(mut options: CompressEvery) -> Result<Self> {
        let (name, parameters) = (&options.scorer, options.scorer_parameters.clone());
        let scorer = registry::build("scorer", SCORERS, name, parameters)?;
        let needs = scorer.needs(1);
        let unknown = Needs {
            window: 0,
            window_rows: 0,
            keys: false,
            values: false,
            ..needs
        };
        let other = OF_WHOLE_PROMPTS.iter().find(|(other, _)| other == name);
        let reason = match other {
            Some((_, reason)) => Some(*reason),
            None if unknown != Needs::default() => {
                Some("it looks at more than keys, values and the newest queries")
            }
            None => None,
        };
        if let Some(reason) = reason {
            let bound = format!("{reason}; choose another, such as snapkv, tova, knorm or keydiff");
            return Err(Error::invalid("scorer while decoding", name, bound));
        }
        options.scorer_parameters = scorer.parameters();
        Ok(Self {
            options,
            scorer: Arc::from(scorer),
        })
    }

    fn eviction(&self) -> EvictionOptions {
        EvictionOptions {
            sinks: self.options.sinks,
            window: self.options.window,
            bound: Bound::AfterEviction,
            ..EvictionOptions::of(&self.options.target, self.options.every)
        }
    }

    fn rule(&self, floor: &Floor) -> Scored {
        Scored {
            scorer: Arc::clone(&self.scorer),
            window: self.options.window.unwrap_or(floor.window),
        }
    }
}

impl ResidencyRule for Compression {
    fn parameters(&self) -> Value {
        described(&self.options)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn looks_back(&self, floor: &Floor) -> usize {
        self.rule(floor).looks_back()
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.options.target.plan()
    }

    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.eviction().check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        let rule = Box::new(self.rule(&first.floor));
        self.eviction().start_judging(first, rule)
    }
}

/// What a scorer of prompts says of a KV head as if its tokens were one.
#[derive(Debug)]
struct Scored {
    scorer: Arc<dyn Scorer>,
    window: usize,
}

impl Judgement for Scored {
    fn looks_back(&self) -> usize {
        let needs = self.scorer.needs(self.window);
        needs.window.max(needs.window_rows)
    }

    fn worth(&self, head: &CrowdedHead<'_>) -> Result<Vec<f64>> {
        let needs = self.scorer.needs(self.window);
        let (tokens, keys, device) = (head.tokens(), [head.keys()?], Device::Cpu);
        let values = if needs.values {
            vec![head.values()?]
        } else {
            Vec::new()
        };
        // More queries than tokens would look from before the text.
        let count = |most: usize| head.queries(most).min(tokens);
        let rows = |most: usize| head.rows(&keys[0], count(most), tokens);
        let mean = if needs.window > 0 {
            let rows = rows(needs.window)?;
            Some(mean_rows(&rows, count(needs.window), tokens)?)
        } else {
            None
        };
        let each = if needs.window_rows > 0 {
            rows(needs.window_rows)?
        } else {
            Vec::new()
        };
        let held = count(needs.window_rows);
        let of_window = WindowRows::new(&each, held, tokens, held);
        let observation = LayerObservation {
            window: tokens - head.prefix(),
            window_mean: mean.as_ref(),
            window_rows: (needs.window_rows > 0).then_some(of_window),
            keys: needs.keys.then_some(&keys),
            values: needs.values.then_some(&values),
            ..LayerObservation::of(tokens, head.group(keys[0].dim(1)?), 1, &device)
        };
        let scores = self.scorer.score(&observation)?.to_rows()?.concat();
        finite(scores, ENTRY.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::crowded;
    use super::*;

    fn built(parameters: Value) -> Result<Box<dyn ResidencyRule>> {
        registry::build("residency", &[ENTRY], "compress-every", parameters)
    }

    #[test]
    fn scorers_that_nobody_can_serve_while_decoding_are_refused() {
        for scorer in [
            "h2o",
            "value-norm",
            "expected-attention",
            "criticalkv",
            "defensivekv",
            "leverage",
            "random",
            "oracle",
        ] {
            let said = built(json!({"scorer": scorer})).unwrap_err().to_string();
            assert!(said.contains("choose another"), "{scorer}: {said}");
        }
        let said = built(json!({"scorer": "nobody"})).unwrap_err().to_string();
        assert!(said.contains("snapkv"), "{said}");
        let rule = built(json!({"scorer_parameters": {"kernel": 3}})).unwrap();
        assert_eq!(rule.parameters()["scorer_parameters"]["pooling"], "max");
        assert_eq!(rule.parameters()["target"], 2048.0);
    }

    #[test]
    fn every_other_scorer_judges_a_head() {
        let keys: Vec<f32> = (0..24).map(|i| ((i * 7) % 11) as f32 / 5.0 - 1.0).collect();
        let served = SCORERS.iter().filter_map(|scorer| {
            let rule = Compression::of(CompressEvery {
                scorer: scorer.name.into(),
                ..CompressEvery::default()
            });
            Some((scorer.name, rule.ok()?))
        });
        let mut names = Vec::new();
        for (name, rule) in served {
            let rule = rule.rule(&Floor::of(0, 3));
            let queries = vec![&[0.5f32; 4][..]; rule.looks_back()];
            let worth = crowded(&keys, &keys, &queries, (0, 3), 2, |head| {
                rule.worth(head).unwrap()
            });
            assert_eq!(worth.len(), 12, "{name}");
            names.push(name);
        }
        let must = ["snapkv", "tova", "knorm", "keydiff", "streaming", "dropkv"];
        assert!(must.iter().all(|name| names.contains(name)), "{names:?}");
    }

    #[test]
    fn a_scorer_sees_the_newest_queries_rows_over_all_that_is_held() {
        let rule = |scorer: &str, window| {
            let options = CompressEvery {
                scorer: scorer.into(),
                window: Some(window),
                ..CompressEvery::default()
            };
            Compression::of(options).unwrap().rule(&Floor::of(0, 0))
        };
        let keys = [0.0, 3f32.ln(), 0.0, 0.0];
        // Two queries of one head: the first sees three tokens, the second all four.
        let queries: [&[f32]; 2] = [&[0.0], &[1.0]];
        let of = |scorer, window, queries: &[&[f32]]| {
            crowded(&keys, &keys, queries, (0, window), 1, |head| {
                rule(scorer, window).worth(head).unwrap()
            })
        };
        let close = |got: Vec<f64>, want: [f64; 4]| {
            let mut pairs = got.iter().zip(want);
            assert!(pairs.all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} {want:?}");
        };
        close(
            of("tova", 1, &queries[1..]),
            [1.0, 3.0, 1.0, 1.0].map(|x| x / 6.0),
        );
        let mean = [1.0 / 3.0 + 1.0 / 6.0, 1.0 / 3.0 + 0.5].map(|x| x / 2.0);
        // The window of two is no part of the pooling, whose kernel covers both others.
        close(of("snapkv", 2, &queries), [mean[1], mean[1], 0.0, 0.0]);
        close(of("knorm", 0, &[]), [0.0, -f64::from(3f32.ln()), 0.0, 0.0]);
    }
}
