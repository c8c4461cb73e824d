//! Plans of every strategy for every family: what layers can use, to the token.

use std::path::Path;

use kvprof::budget::{
    ALLOCATORS, Budget, BudgetPlan, Floor, Geometry, Granularity, Measures, Provenance, Request,
};
use kvprof::error::Error;
use kvprof::model::Model;
use kvprof::profile::{MeasureOptions, Profiler};
use serde_json::json;

use crate::family_models::{each, prompt};
use crate::{FLOOR, T};

/// Measures of a prompt of T tokens.
pub fn measures(model: &Model) -> Measures {
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let decoder = &model.decoder;
    let mut cache = decoder.new_cache(T).unwrap();
    decoder
        .prefill(&prompt(T), &mut cache, 16, &mut profiler)
        .unwrap();
    Measures::of_prompt(Geometry::of_model(model), T, &profiler.finish(), &options)
}

/// Tokens that a budget is of, over KV heads that take part, by the definition.
fn expected_total(geometry: &Geometry, whole: bool, budget: Budget, tokens: usize) -> usize {
    let window = |l: usize| geometry.windows.get(l).copied().flatten();
    let parts = (0..geometry.layers).filter(|l| !(whole && window(*l).is_some()));
    let spans: Vec<usize> = parts
        .map(|l| window(l).map_or(tokens, |w| w.min(tokens)))
        .collect();
    let (heads, most) = (
        geometry.kv_heads,
        spans.iter().sum::<usize>() * geometry.kv_heads,
    );
    let total = match budget {
        Budget::TokensPerHead(b) => (b * (spans.len() * heads) as f64).floor() as usize,
        Budget::RetainedFraction(f) => (f * most as f64).floor() as usize,
    };
    total.min(most)
}

fn check_tokens(plan: &BudgetPlan, budgets: &[Vec<usize>], tokens: usize, what: &str) {
    let geometry = &plan.geometry;
    let mut spent = 0;
    for (l, heads) in budgets.iter().enumerate() {
        let window = geometry.windows.get(l).copied().flatten();
        let span = window.map_or(tokens, |w| w.min(tokens));
        assert_eq!(heads.len(), geometry.kv_heads, "{what}");
        if plan.whole_windows && window.is_some() {
            assert!(
                heads.iter().all(|b| *b == span),
                "{what}: layer {l} {heads:?}"
            );
            continue;
        }
        spent += heads.iter().sum::<usize>();
        let lowest = plan.floor.min(span);
        let within = heads.iter().all(|b| (lowest..=span).contains(b));
        assert!(within, "{what}: layer {l} {heads:?} of {span}");
        // At other lengths a share that a token left over has made larger grows with the rest.
        if plan.granularity == Granularity::Layer && tokens == plan.reference_tokens {
            let (least, most) = (heads.iter().min().unwrap(), heads.iter().max().unwrap());
            assert!(most - least <= 1, "{what}: {heads:?}");
        }
    }
    let total = expected_total(geometry, plan.whole_windows, plan.budget, tokens);
    assert_eq!(spent, total, "{what}");
}

#[test]
fn plans_spend_their_total_on_what_layers_can_use() {
    each(|name, model| {
        let measures = measures(model);
        let geometry = measures.geometry();
        let all_windowed = geometry.global_layers().is_empty();
        let mut made = 0;
        for entry in ALLOCATORS {
            for granularity in Granularity::ALL {
                for whole_windows in [false, true] {
                    for budget in BUDGETS {
                        let floor = Floor {
                            whole_windows,
                            ..FLOOR
                        };
                        let what = format!(
                            "{name}, {} by {granularity:?}, whole {whole_windows}, {budget:?}",
                            entry.name
                        );
                        let request = Request::of_measures(&measures, budget, floor, T);
                        let request = request.by(granularity);
                        let made_by = Provenance::default();
                        let plan = BudgetPlan::allocate(entry.name, json!({}), &request, made_by);
                        let plan = match plan {
                            Err(Error::Unsupported { .. }) if granularity == Granularity::Head => {
                                continue;
                            }
                            Err(e) if whole_windows && all_windowed => {
                                assert!(e.to_string().contains("none is left"), "{what}: {e}");
                                continue;
                            }
                            plan => plan.unwrap_or_else(|e| panic!("{what}: {e}")),
                        };
                        check_plan(&plan, &what);
                        made += 1;
                    }
                }
            }
        }
        assert!(made >= 7 * BUDGETS.len(), "{name}: {made}");
    });
}

const BUDGETS: [Budget; 5] = [
    Budget::TokensPerHead(8.0),
    Budget::TokensPerHead(11.3),
    Budget::TokensPerHead(1000.0),
    Budget::RetainedFraction(0.45),
    Budget::RetainedFraction(1.0),
];

fn check_plan(plan: &BudgetPlan, what: &str) {
    check_tokens(plan, &plan.tokens, T, what);
    let total = expected_total(&plan.geometry, plan.whole_windows, plan.budget, T);
    assert_eq!(plan.spent(), total, "{what}");
    for tokens in [5, 17, 20, 60, 300] {
        match plan.tokens_at(tokens) {
            Ok(budgets) => check_tokens(plan, &budgets, tokens, &format!("{what}, at {tokens}")),
            Err(e) => {
                let is_share = matches!(plan.budget, Budget::RetainedFraction(f) if f < 1.0);
                assert!(is_share && tokens < T, "{what}, at {tokens}: {e}");
            }
        }
    }
    let text = serde_json::to_string(plan).unwrap();
    let back = BudgetPlan::parse(Path::new("plan.json"), &text).unwrap();
    assert_eq!(&back, plan, "{what}");
    assert!(plan.check_geometry(&plan.geometry).is_ok());
    check_refusals(plan, what);
}

/// A model that differs in its windows alone is another model.
fn check_refusals(plan: &BudgetPlan, what: &str) {
    let windows = &plan.geometry.windows;
    let mut others = vec![vec![Some(7); plan.geometry.layers]];
    if !windows.is_empty() {
        others.push(Vec::new());
        let wider = windows.iter().map(|w| w.map(|w| w + 1));
        others.push(wider.collect());
    }
    for windows in others {
        let other = Geometry {
            windows,
            ..plan.geometry.clone()
        };
        let said = plan.check_geometry(&other).unwrap_err().to_string();
        assert!(said.contains("with a window of"), "{what}: {said}");
    }
    // A plan that gives a layer more than it sees contradicts itself.
    let mut lying = serde_json::to_value(plan).unwrap();
    lying["tokens"][0][0] = json!(plan.geometry.span(0, T) + 1);
    let said = BudgetPlan::parse(Path::new("plan.json"), &lying.to_string());
    assert!(said.is_err(), "{what}");
}
