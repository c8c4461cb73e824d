//! Totals of the allocators that read the prompt itself, whatever its scores are.

use proptest::prelude::*;
use serde_json::json;

use super::{
    Budget, BudgetPlan, Floor, Geometry, Measures, PROMPT_ALLOCATORS, Provenance, Request,
    TokenScores, allocator,
};
use crate::profile::{LayerNumber, MeasureOptions, TokenMeasure};

/// A prompt as its prefill shows it, and what is asked of it.
#[derive(Clone, Debug)]
struct Prompt {
    tokens: usize,
    kv_heads: usize,
    windows: Vec<Option<usize>>,
    /// Three numbers of every token of every KV head: the scorer's, entropy, variance.
    numbers: Vec<Vec<Vec<[f64; 3]>>>,
    cosines: Vec<f64>,
    floor: Floor,
    per_head: usize,
}

/// Scores as they come: ties, zeros, and numbers far apart and below zero.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        (0u8..4).prop_map(f64::from),
        -1e3..1e3f64,
        0.0..1e-12f64
    ]
}

fn token() -> impl Strategy<Value = [f64; 3]> {
    [number(), number(), number()].prop_map(|[score, h, v]| [score, h.abs(), v.abs()])
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let size = (1usize..6, 1usize..3, 6usize..40);
    size.prop_flat_map(|(layers, kv_heads, tokens)| {
        let window = prop::option::of(5usize..50);
        (
            prop::collection::vec(window, layers),
            prop::collection::vec(
                prop::collection::vec(prop::collection::vec(token(), tokens), kv_heads),
                layers,
            ),
            prop::collection::vec(prop_oneof![Just(0.5), -1.0..1.0f64], layers),
            (0usize..3, 2usize..4, any::<bool>(), 0usize..50),
        )
            .prop_map(
                move |(windows, numbers, cosines, (sinks, window, whole_windows, more))| {
                    let all_windows = windows.iter().all(Option::is_some);
                    let floor = Floor {
                        // Where every layer has a window, none would be left to take part.
                        whole_windows: whole_windows && !all_windows,
                        ..Floor::of(sinks, window)
                    };
                    let per_head = floor.tokens + more;
                    Prompt {
                        tokens,
                        kv_heads,
                        windows,
                        numbers,
                        cosines,
                        floor,
                        per_head,
                    }
                },
            )
    })
}

impl Prompt {
    fn geometry(&self) -> Geometry {
        Geometry {
            model: "sample".into(),
            model_sha256: String::new(),
            layers: self.windows.len(),
            heads: 2 * self.kv_heads,
            kv_heads: self.kv_heads,
            head_dim: 8,
            windows: self.windows.clone(),
        }
    }

    fn scores(&self, which: usize) -> TokenScores {
        let of_head = |head: &Vec<[f64; 3]>| head.iter().map(|token| token[which]).collect();
        let layers = self.numbers.iter();
        let layers = layers.map(|heads| heads.iter().map(of_head).collect());
        let firsts = self.windows.iter();
        let firsts = firsts.map(|w| w.map_or(0, |w| self.tokens.saturating_sub(w)));
        TokenScores::new(layers.collect(), firsts.collect()).unwrap()
    }

    fn measures(&self) -> Measures {
        let options = MeasureOptions::default();
        Measures::of_prompt(self.geometry(), self.tokens, &[], &options)
            .with_scores(self.scores(0))
            .with_token_measure(TokenMeasure::RowEntropy, self.scores(1))
            .with_token_measure(TokenMeasure::RowVariance, self.scores(2))
            .with_numbers(LayerNumber::ResidualCosine, vec![self.cosines.clone()])
    }

    /// The most tokens of a layer's KV heads.
    fn most(&self, layer: usize) -> usize {
        self.windows[layer].map_or(self.tokens, |window| window.min(self.tokens))
    }

    fn takes_part(&self, layer: usize) -> bool {
        !self.floor.whole_windows || self.windows[layer].is_none()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn allocators_that_read_the_prompt_spend_to_the_token(prompt in prompt()) {
        let measures = prompt.measures();
        let layers = prompt.windows.len();
        let budget = Budget::TokensPerHead(prompt.per_head as f64);
        let request = Request::of_measures(&measures, budget, prompt.floor, prompt.tokens);
        let taking: Vec<usize> = (0..layers).filter(|l| prompt.takes_part(*l)).collect();
        let room: usize = taking.iter().map(|l| prompt.most(*l)).sum();
        let total = (prompt.per_head * taking.len()).min(room) * prompt.kv_heads;
        for entry in PROMPT_ALLOCATORS {
            let rule = allocator(entry.name, json!({})).unwrap();
            let targets = request.ask(&*rule).unwrap();
            let provenance = Provenance::default();
            let plan = BudgetPlan::of_targets(entry.name, json!({}), &request, &targets, provenance);
            let kept = plan.unwrap().tokens;
            let of_layer = |l: &usize| kept[*l].iter().sum::<usize>();
            let spent: usize = taking.iter().map(of_layer).sum();
            prop_assert_eq!(spent, total, "{}", entry.name);
            for (layer, heads) in kept.iter().enumerate() {
                let most = prompt.most(layer);
                let least = if prompt.takes_part(layer) { prompt.floor.tokens.min(most) } else { most };
                prop_assert!(heads.iter().all(|n| (least..=most).contains(n)), "{} {:?}", entry.name, kept);
            }
        }
    }
}
