//! Budgets of the shipped profile: what the optimal strategies promise, and traps of the field.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kvprof::budget::interchange::{
    BudgetCurve, layer_ratio_plan, layer_ratios, plan_curve, write_layer_ratios,
};
use kvprof::budget::{
    ALLOCATORS, Budget, BudgetPlan, Floor, Granularity, Measures, Prediction, Predictor,
    Provenance, Request, longest_prompt, profile_digest,
};
use kvprof::profile::{Needs, Profile, Query};
use serde_json::{Value, json};

/// Sinks and window of the field's usual settings.
const FLOOR: (usize, usize) = (4, 32);

const BUDGETS: [f64; 4] = [64.0, 128.0, 256.0, 512.0];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/smollm2-135m-wikimqa-style-2k")
}

static PROFILE: LazyLock<Profile> = LazyLock::new(|| Profile::load(&folder()).unwrap());

static MEASURES: LazyLock<Measures> = LazyLock::new(|| {
    Measures::of_profile(&PROFILE, &Needs::all(&PROFILE.meta.settings.measures)).unwrap()
});

fn request(budget: f64, granularity: Granularity) -> Request<'static> {
    let tokens = longest_prompt(&PROFILE).unwrap();
    let budget = Budget::TokensPerHead(budget);
    Request::of_measures(&MEASURES, budget, Floor::of(FLOOR.0, FLOOR.1), tokens).by(granularity)
}

fn plan(strategy: &str, parameters: Value, request: &Request<'_>) -> BudgetPlan {
    BudgetPlan::allocate(strategy, parameters, request, Provenance::default()).unwrap()
}

/// Every strategy's plan, where it has one of this granularity.
fn plans(request: &Request<'_>) -> Vec<BudgetPlan> {
    let made = ALLOCATORS.iter().filter_map(|entry| {
        let made = BudgetPlan::allocate(entry.name, json!({}), request, Provenance::default());
        match made {
            Err(kvprof::error::Error::Unsupported { what, .. }) => {
                assert_eq!(what, "granularity");
                None
            }
            other => Some(other.unwrap()),
        }
    });
    made.collect()
}

static PREDICTORS: LazyLock<[Predictor; 2]> = LazyLock::new(|| {
    let tokens = longest_prompt(&PROFILE).unwrap();
    [Query::Last, Query::Pooled].map(|query| Predictor::new(&PROFILE, query, tokens).unwrap())
});

fn predict(plan: &BudgetPlan, query: Query) -> Prediction {
    let predictor = &PREDICTORS[usize::from(query == Query::Pooled)];
    predictor.predict(&plan.tokens).unwrap()
}

#[test]
fn no_strategy_keeps_more_mass_than_the_mass_optimal_one() {
    for (budget, query) in BUDGETS
        .iter()
        .flat_map(|&b| [(b, Query::Last), (b, Query::Pooled)])
    {
        let mut best = Vec::new();
        for granularity in Granularity::ALL {
            let request = request(budget, granularity);
            let mass = |plan: &BudgetPlan| predict(plan, query).mean_mass();
            let optimal = plan("mass-optimal", json!({"query": query.name()}), &request);
            let optimal_mass = mass(&optimal);
            for plan in &plans(&request) {
                println!(
                    "{budget} {query:?} {granularity:?} {}: mass {:.6} (best {optimal_mass:.6})",
                    plan.strategy,
                    mass(plan)
                );
                // The other query's optimum is another plan, and no better.
                let same = plan.strategy == "mass-optimal" && query == Query::Pooled;
                assert!(
                    mass(plan) < optimal_mass || same,
                    "{} at {budget}",
                    plan.strategy
                );
                assert_eq!(
                    plan.tokens == optimal.tokens,
                    same,
                    "{} at {budget}",
                    plan.strategy
                );
            }
            best.push(optimal_mass);
        }
        assert!(best[1] >= best[0], "heads that may differ are no worse");
    }
}

#[test]
fn no_strategy_changes_outputs_less_than_the_output_optimal_one() {
    for budget in BUDGETS {
        let request = request(budget, Granularity::Layer);
        for (measure, loss) in [
            (
                "cosine",
                Prediction::mean_cosine_loss as fn(&Prediction) -> Option<f64>,
            ),
            ("relative-l2", Prediction::mean_relative_l2),
        ] {
            for query in ["pooled", "last"] {
                let parameters = json!({"measure": measure, "query": query});
                let of = |plan: &BudgetPlan| loss(&predict(plan, query.parse().unwrap())).unwrap();
                let optimal = of(&plan("output-optimal", parameters, &request));
                for plan in plans(&request) {
                    println!(
                        "{budget} {measure} {query} {}: {:.6} (best {optimal:.6})",
                        plan.strategy,
                        of(&plan)
                    );
                    assert!(of(&plan) >= optimal - 1e-12, "{} {measure}", plan.strategy);
                    assert!(of(&plan) > optimal || plan.strategy == "output-optimal");
                }
            }
        }
    }
}

#[test]
fn budgets_driven_by_lmba_differ_between_layers() {
    // Scores whose window slots are padded with their maximum give every layer the same minimum budget.
    for strategy in ["proportional", "zigzag"] {
        for budget in BUDGETS {
            let plan = plan(strategy, json!({}), &request(budget, Granularity::Layer));
            let layers: Vec<usize> = plan.tokens.iter().map(|layer| layer[0]).collect();
            let (least, most) = (layers.iter().min().unwrap(), layers.iter().max().unwrap());
            assert!(*most > 4 * least, "{strategy} {budget}: {layers:?}");
            let mut distinct = layers.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() > 10, "{strategy} {budget}: {layers:?}");
        }
    }
}

#[test]
fn zigzag_is_the_published_formula_to_the_token() {
    let request = request(128.0, Granularity::Layer);
    let zigzag = plan("zigzag", json!({"floor": 40}), &request);
    let lmba = PROFILE.layer_grid("lmba_pooled_90_of_t").unwrap();
    let mean = |l: usize| lmba.iter().map(|prompt| prompt[l]).sum::<f64>();
    let sum: f64 = (0..30).map(mean).sum();
    for (l, layer) in zigzag.tokens.iter().enumerate() {
        let want = 40.0 + (128.0 - 40.0) * 30.0 * mean(l) / sum;
        layer
            .iter()
            .for_each(|&b| assert!((b as f64 - want).abs() < 1.0, "layer {l}: {b} {want}"));
    }
}

/// Writes the files that `scripts/check_interchange.py` reads with numpy and kvpress.
#[test]
fn interchange_files_give_the_same_plans_again() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interchange");
    let source = Provenance {
        source: Some("profiles/smollm2-135m-wikimqa-style-2k".into()),
        source_sha256: Some(profile_digest(&folder()).unwrap()),
        ..Provenance::default()
    };
    // 123.4 leaves tokens over: layers whose heads differ by one.
    let layers = request(123.4, Granularity::Layer);
    let tokens = layers.tokens;
    for strategy in ["uniform", "zigzag", "pyramid", "mass-optimal"] {
        let plan = BudgetPlan::allocate(strategy, json!({}), &layers, source.clone()).unwrap();
        plan.write(&out.join(format!("{strategy}.plan.json")))
            .unwrap();
        let ratios = layer_ratios(&plan.tokens, tokens).unwrap();
        write_layer_ratios(&out.join(format!("{strategy}.ratios.json")), &ratios).unwrap();
        let back = layer_ratio_plan(&ratios, &layers, source.clone()).unwrap();
        for (kept, meant) in back.tokens.iter().zip(&plan.tokens) {
            assert_eq!(kept.iter().max(), meant.iter().min());
        }
    }
    let heads = request(128.0, Granularity::Head);
    let plan = BudgetPlan::allocate("mass-optimal", json!({}), &heads, source.clone()).unwrap();
    plan.write(&out.join("heads.plan.json")).unwrap();
    let curve = plan_curve(&plan, None, tokens).unwrap().curve;
    curve.write(&out.join("heads.npy")).unwrap();
    let curve = BudgetCurve::read(&out.join("heads.npy")).unwrap();
    let share = Request {
        budget: "10%".parse().unwrap(),
        ..heads
    };
    let of_share = curve.plan(90, &share, source).unwrap();
    let fitted = BudgetPlan {
        budget: share.budget,
        ..plan
    }
    .tokens_at(tokens)
    .unwrap();
    assert_eq!(of_share.tokens, fitted);
}
