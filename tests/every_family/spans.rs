//! Fitting shares to whole tokens where layers see windows of any size.

use kvprof::budget::{Budget, Floor, Geometry, fit};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    shares: Vec<Vec<f64>>,
    windows: Vec<Option<usize>>,
    budget: Budget,
    floor: Floor,
    tokens: usize,
}

impl Case {
    fn geometry(&self) -> Geometry {
        Geometry {
            model: "made-up".into(),
            model_sha256: String::new(),
            layers: self.shares.len(),
            heads: self.shares[0].len(),
            kv_heads: self.shares[0].len(),
            head_dim: 8,
            windows: self.windows.clone(),
        }
    }

    fn span(&self, layer: usize) -> usize {
        self.windows[layer].map_or(self.tokens, |window| window.min(self.tokens))
    }

    fn takes_part(&self, layer: usize) -> bool {
        self.windows[layer].is_none() || !self.floor.whole_windows
    }
}

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![6 => 0.01f64..100.0, 2 => Just(0.0), 1 => 1e-200f64..1e-100]
}

fn case() -> impl Strategy<Value = Case> {
    (1usize..9, 1usize..5, 1usize..600).prop_flat_map(|(layers, heads, tokens)| {
        let shares = prop::collection::vec(prop::collection::vec(share(), heads), layers);
        let window = prop_oneof![
            2 => Just(None),
            3 => (1usize..700).prop_map(Some),
            1 => Just(Some(1 << 30)),
        ];
        let windows = prop::collection::vec(window, layers);
        let budget = prop_oneof![
            (1.0f64..900.0).prop_map(Budget::TokensPerHead),
            (0.0001f64..1.0).prop_map(Budget::RetainedFraction),
        ];
        let floor = (0usize..5, 0usize..20, 0usize..9, any::<bool>());
        (shares, windows, budget, floor).prop_map(move |(shares, windows, budget, floor)| {
            let (sinks, window, more, whole_windows) = floor;
            Case {
                shares,
                windows,
                budget,
                floor: Floor {
                    tokens: sinks + window + more,
                    sinks,
                    window,
                    whole_windows,
                },
                tokens,
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_takes_part_is_spent_to_the_token_within_its_spans(case in case()) {
        let layers = case.shares.len();
        let heads = case.shares[0].len();
        let parts: Vec<usize> = (0..layers).filter(|l| case.takes_part(*l)).collect();
        let most: usize = parts.iter().map(|l| case.span(*l) * heads).sum();
        let lowest: usize = parts.iter().map(|l| case.span(*l).min(case.floor.tokens) * heads).sum();
        let total = case.budget.total(parts.len() * heads, most);
        let room = case.geometry().room(case.floor.whole_windows, case.tokens);
        let Ok(kept) = fit(&case.shares, case.budget, &case.floor, room) else {
            prop_assert!(total < lowest);
            return Ok(());
        };
        let spent: usize = parts.iter().flat_map(|l| &kept[*l]).sum();
        prop_assert_eq!(spent, total);
        for (l, kept) in kept.iter().enumerate() {
            let span = case.span(l);
            prop_assert_eq!(kept.len(), heads);
            if case.takes_part(l) {
                let floor = case.floor.tokens.min(span);
                prop_assert!(kept.iter().all(|b| (floor..=span).contains(b)));
            } else {
                prop_assert!(kept.iter().all(|b| *b == span));
            }
        }
        // A larger share gives no fewer tokens above the floor, unless its layer can use no more.
        let above = |l: usize, h: usize| kept[l][h] - case.floor.tokens.min(case.span(l));
        for &a in &parts {
            for &b in &parts {
                for (i, j) in (0..heads).flat_map(|i| (0..heads).map(move |j| (i, j))) {
                    let (more, less) = (case.shares[a][i], case.shares[b][j]);
                    let is_full = kept[a][i] == case.span(a);
                    if more > less && !is_full {
                        prop_assert!(above(a, i) + 1 >= above(b, j));
                    }
                    if more > 1.001 * less && more > 0.009 && !is_full {
                        prop_assert!(above(a, i) >= above(b, j) || more - less < 1e-2);
                    }
                }
            }
        }
    }

    #[test]
    fn windows_that_no_prompt_reaches_change_nothing(case in case(), whole_windows in Just(false)) {
        let plain = Case { windows: vec![None; case.shares.len()], ..case.clone() };
        let wide = Case { windows: vec![Some(case.tokens); case.shares.len()], ..case };
        let [plain, wide] = [plain, wide].map(|case| {
            let floor = Floor { whole_windows, ..case.floor };
            let room = case.geometry().room(whole_windows, case.tokens);
            fit(&case.shares, case.budget, &floor, room).ok()
        });
        prop_assert_eq!(plain, wide);
    }
}
