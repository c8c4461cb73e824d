//! What every allocator must keep, for any profile, geometry, budget and prompt length.
#![allow(clippy::unwrap_used)]

mod made_up_profile;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use kvprof::budget::{
    ALLOCATORS, Allocator, Budget, BudgetPlan, Floor, Granularity, Measures, Provenance, Request,
};
use kvprof::error::Error;
use kvprof::profile::{Crossing, MeasureOptions, Needs, Profile, Query};
use kvprof::registry;
use made_up_profile::Maker;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

/// Profiles below this index are small.
const SMALL: usize = 48;

/// Layers, query heads per KV head, KV heads and prompt lengths of the larger profiles.
const LARGE: [(usize, usize, usize, &[usize]); 5] = [
    (32, 1, 8, &[300]),
    (32, 2, 8, &[200, 256]),
    (16, 4, 4, &[700]),
    (4, 2, 2, &[3000]),
    (2, 1, 8, &[2500, 1800]),
];

/// Every geometry from one layer of one head to a few layers of grouped heads, on prompts of any length; then
/// models of today's depth, and prompts of a few thousand tokens.
static PROFILES: LazyLock<Vec<Measures>> = LazyLock::new(|| {
    let small = (0..SMALL).map(|s| {
        let maker = Maker::new(s as u64, 1 + s % 5, 1 + s % 3, 1 + s % 4, false);
        maker.profile(&[3 + s * 2, 5 + (s * 7) % 90, 40][..1 + s % 3])
    });
    let large = LARGE
        .iter()
        .enumerate()
        .map(|(i, &(layers, group, heads, prompts))| {
            Maker::new(1000 + i as u64, layers, group, heads, false).profile(prompts)
        });
    let all = small.chain(large);
    all.map(|profile| everything(&profile)).collect()
});

/// All that an allocator can read of a profile.
fn everything(profile: &Profile) -> Measures {
    Measures::of_profile(profile, &Needs::all(&profile.meta.settings.measures)).unwrap()
}

/// A plan, or `None` for a granularity that the strategy does not have.
fn allocate(strategy: &str, request: &Request<'_>) -> Option<Result<BudgetPlan, Error>> {
    let plan = BudgetPlan::allocate(strategy, json!({}), request, Provenance::default());
    let lacks = |e: &Error| matches!(e, Error::Unsupported { what, .. } if *what == "granularity");
    (!plan.as_ref().is_err_and(lacks)).then_some(plan)
}

fn check(plan: &BudgetPlan, request: &Request<'_>) -> Result<(), TestCaseError> {
    let flat = plan.tokens.concat();
    let total = flat.iter().sum::<usize>();
    prop_assert_eq!(total, request.total(), "{}", plan.strategy);
    let bounds = request.lowest()..=request.tokens;
    prop_assert!(flat.iter().all(|b| bounds.contains(b)), "{}", plan.strategy);
    if request.granularity == Granularity::Layer {
        for layer in &plan.tokens {
            let spread = layer.iter().max().unwrap() - layer.iter().min().unwrap();
            prop_assert!(spread <= 1, "{}: {:?}", plan.strategy, layer);
        }
    }
    let text = serde_json::to_string(plan).unwrap();
    let back = BudgetPlan::parse(Path::new("plan.json"), &text);
    prop_assert_eq!(&back.unwrap(), plan);
    // Its own parameters give the plan again.
    let again = BudgetPlan::allocate(
        &plan.strategy,
        plan.parameters.clone(),
        request,
        Provenance::default(),
    );
    prop_assert_eq!(&again.unwrap(), plan);
    Ok(())
}

/// Targets of an optimal strategy are whole: the fit must give exactly them.
fn check_targets(allocator: &dyn Allocator, request: &Request<'_>, plan: &BudgetPlan) {
    let targets = allocator.targets(request).unwrap();
    let kept: Vec<f64> = plan.tokens.concat().iter().map(|&b| b as f64).collect();
    assert_eq!(targets.tokens, kept, "{}", plan.strategy);
}

/// B_min as the zigzags have it, as a parameter of theirs.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Default,
    Tokens(f64),
    Percent(u32),
}

impl Bound {
    fn parameter(self) -> Value {
        match self {
            Self::Default => Value::Null,
            Self::Tokens(tokens) => json!(tokens),
            Self::Percent(percent) => json!(format!("{percent}%")),
        }
    }

    /// Whether a budget of `b` does not hold it, or sinks and window do not fit under it.
    fn refuses(self, b: f64, floor: &Floor, tokens: usize) -> bool {
        let reserved = floor.tokens as f64;
        let bound = match self {
            Self::Default => (0.2 * b).max(reserved + 1.0),
            Self::Tokens(tokens) => tokens,
            Self::Percent(percent) => f64::from(percent) / 100.0 * b,
        };
        bound < reserved || bound.min(tokens as f64) > b
    }
}

/// A request and a strategy's parameters.
#[derive(Clone, Debug)]
struct Case {
    profile: usize,
    strategy: &'static str,
    parameters: Value,
    bound: Bound,
    granularity: Granularity,
    budget: Budget,
    floor: Floor,
    /// Of the longest prompt in the profile, or of a longer one where the strategy serves it.
    tokens: usize,
}

impl Case {
    fn request(&self) -> Request<'static> {
        let profile = &PROFILES[self.profile];
        Request::of_measures(profile, self.budget, self.floor, self.tokens).by(self.granularity)
    }

    /// Whether the strategy must refuse the budget.
    fn is_below(&self) -> bool {
        let request = self.request();
        let lowest = self.floor.tokens.min(self.tokens);
        let below_floor = request.total() < lowest * request.geometry.cells();
        let zigzag = self.strategy.starts_with("zigzag");
        below_floor
            || zigzag
                && self
                    .bound
                    .refuses(request.per_head(), &self.floor, self.tokens)
    }
}

fn bounds() -> impl Strategy<Value = Bound> {
    prop_oneof![
        Just(Bound::Default),
        (0u32..160).prop_map(|quarters| Bound::Tokens(f64::from(quarters) / 4.0)),
        (0u32..=100).prop_map(Bound::Percent),
    ]
}

/// Parameters of every strategy, of which each takes its own.
fn parameters() -> impl Strategy<Value = (Bound, Map<String, Value>)> {
    let (queries, crossings) = (
        Query::ALL.map(Query::name),
        Crossing::ALL.map(Crossing::name),
    );
    (
        bounds(),
        prop_oneof![Just(1.0f64), 1.0f64..4.0, 4.0f64..100.0],
        prop::sample::select(queries.to_vec()),
        prop::sample::select(crossings.to_vec()),
        prop::sample::select(vec!["cosine", "relative-l2"]),
        any::<bool>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(bound, beta, query, crossing, measure, raw, threshold)| {
            let fields = json!({
                "floor": bound.parameter(), "beta": beta, "query": query, "crossing": crossing,
                "measure": measure, "raw": raw, "threshold": threshold.index(1000),
            });
            (bound, fields.as_object().unwrap().clone())
        })
}

/// What a strategy takes of the drawn parameters.
fn taken(strategy: &str, mut drawn: Map<String, Value>) -> Value {
    let options = MeasureOptions::default();
    let names: &[&str] = match strategy {
        "proportional" => &["query", "threshold"],
        "zigzag" => &["query", "threshold", "floor"],
        "zigzag-lmbo" => &["query", "threshold", "crossing", "raw", "floor"],
        "pyramid" => &["beta"],
        "mass-optimal" => &["query"],
        "output-optimal" => &["query", "measure", "raw"],
        _ => &[],
    };
    let of_outputs = strategy == "zigzag-lmbo" || strategy.ends_with("-optimal");
    if of_outputs && drawn["query"] == "rows" {
        drawn["query"] = json!("last");
    }
    let thresholds = match of_outputs {
        true => options.output_thresholds,
        false => options.thresholds,
    };
    let index = drawn["threshold"].as_u64().unwrap() as usize;
    drawn["threshold"] = json!(thresholds[index % thresholds.len()]);
    drawn.retain(|name, _| names.contains(&name.as_str()));
    Value::Object(drawn)
}

/// Budgets in tokens, whole or not, and as shares of the prompt.
fn budgets() -> impl Strategy<Value = Budget> {
    prop_oneof![
        (1.0f64..120.0).prop_map(Budget::TokensPerHead),
        (1u32..600).prop_map(|b| Budget::TokensPerHead(f64::from(b))),
        (0.001f64..=1.0).prop_map(Budget::RetainedFraction),
        (1u32..=100).prop_map(|percent| format!("{percent}%").parse().unwrap()),
    ]
}

fn floors() -> impl Strategy<Value = Floor> {
    (
        0usize..4,
        0usize..9,
        prop_oneof![2 => Just(0), 1 => 0usize..20],
    )
        .prop_map(|(sinks, window, more)| Floor {
            whole_windows: false,
            tokens: sinks + window + more,
            sinks,
            window,
        })
}

fn cases() -> impl Strategy<Value = Case> {
    let profile = prop_oneof![10 => 0..SMALL, 1 => SMALL..SMALL + LARGE.len()];
    let strategy = prop::sample::select(
        ALLOCATORS
            .iter()
            .map(|entry| entry.name)
            .collect::<Vec<_>>(),
    );
    let length = prop::option::of((any::<prop::sample::Index>(), any::<bool>()));
    let of_strategy = (strategy, parameters(), any::<bool>());
    (profile, of_strategy, budgets(), floors(), length).prop_map(
        |(profile, (strategy, (bound, drawn), by_head), budget, floor, length)| {
            let longest = PROFILES[profile].longest_prompt().unwrap();
            let beyond = !strategy.ends_with("-optimal");
            let tokens = length.map_or(longest, |(index, longer)| match beyond && longer {
                true => 1 + index.index(2 * longest),
                false => 1 + index.index(longest),
            });
            let by_head = by_head && BY_HEAD.contains(&strategy);
            Case {
                profile,
                strategy,
                parameters: taken(strategy, drawn),
                bound,
                granularity: Granularity::ALL[usize::from(by_head)],
                budget,
                floor,
                tokens,
            }
        },
    )
}

/// One case; whether there is a plan of it.
fn check_case(case: &Case) -> Result<bool, TestCaseError> {
    let request = case.request();
    let parameters = case.parameters.clone();
    let allocator = registry::build("strategy", ALLOCATORS, case.strategy, parameters.clone());
    let allocator = allocator.unwrap();
    let looked = allocator.check_budget(&request);
    prop_assert_eq!(looked.is_err(), case.is_below(), "{:?}", looked);
    match (
        BudgetPlan::allocate(case.strategy, parameters, &request, Provenance::default()),
        looked,
    ) {
        (Ok(plan), Ok(())) => {
            check(&plan, &request)?;
            if case.strategy.ends_with("-optimal") {
                check_targets(&*allocator, &request, &plan);
            }
            Ok(true)
        }
        (Err(error), Err(expected)) => {
            let text = error.to_string();
            let both = text.contains("budget is") && text.contains("the floor is");
            prop_assert!(both || text.contains("floor of the strategy is"), "{text}");
            prop_assert_eq!(text, expected.to_string());
            Ok(false)
        }
        (made, looked) => {
            let problem = format!("{:?}, but {looked:?} before", made.map(|plan| plan.tokens));
            Err(TestCaseError::fail(problem))
        }
    }
}

#[test]
fn every_strategy_spends_every_budget_to_the_token() {
    // Plans, and refused budgets, of every strategy on small and on large profiles.
    let counts = Mutex::new(BTreeMap::<(&str, bool), [usize; 2]>::new());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1_450 * ALLOCATORS.len() as u32)
    };
    let run = TestRunner::new(config).run(&cases(), |case| {
        let made = check_case(&case)?;
        let key = (case.strategy, case.profile >= SMALL);
        counts.lock().unwrap().entry(key).or_default()[usize::from(!made)] += 1;
        Ok(())
    });
    run.unwrap();
    let counts = counts.into_inner().unwrap();
    println!("{counts:#?}");
    for entry in ALLOCATORS {
        let [plans, refused] = counts[&(entry.name, false)];
        let enough = plans > 700 && refused > 100;
        assert!(enough, "{}: {plans}, {refused}", entry.name);
        assert!(counts[&(entry.name, true)][0] > 30, "{}", entry.name);
    }
}

/// Strategies that have a variant by head.
const BY_HEAD: [&str; 3] = ["proportional", "zigzag", "mass-optimal"];

#[test]
fn strategies_without_a_variant_by_head_say_so_before_anything_is_measured() {
    let measured = MeasureOptions::default();
    let request = Case {
        profile: 7,
        strategy: "uniform",
        parameters: json!({}),
        bound: Bound::Default,
        granularity: Granularity::Head,
        budget: Budget::TokensPerHead(10.0),
        floor: Floor::of(1, 2),
        tokens: PROFILES[7].longest_prompt().unwrap(),
    }
    .request();
    for entry in ALLOCATORS {
        let allocator = (entry.build)(json!({})).unwrap();
        let by_head = BY_HEAD.contains(&entry.name);
        let checked = allocator.check(Granularity::Head, &measured);
        assert_eq!(checked.is_ok(), by_head, "{}", entry.name);
        assert!(allocator.check(Granularity::Layer, &measured).is_ok());
        assert_eq!(
            allocate(entry.name, &request).is_some(),
            by_head,
            "{}",
            entry.name
        );
    }
}

#[test]
fn an_optimum_is_for_prompts_that_were_measured() {
    let profile = &PROFILES[7];
    let longest = profile.longest_prompt().unwrap();
    for entry in ALLOCATORS {
        for (tokens, known) in [
            (longest, true),
            (longest + 1, !entry.name.ends_with("-optimal")),
        ] {
            let budget = Budget::RetainedFraction(0.5);
            let request = Request::of_measures(profile, budget, Floor::of(1, 2), tokens);
            let made = allocate(entry.name, &request).unwrap();
            assert_eq!(made.is_ok(), known, "{} at {tokens}", entry.name);
            if let Err(error) = made {
                let text = error.to_string();
                assert!(text.contains(&format!("is {tokens} tokens")), "{text}");
                assert!(text.contains(&format!("has {longest} tokens")), "{text}");
            }
        }
    }
}

#[test]
fn a_flat_profile_gives_flat_plans() {
    let profile = everything(&Maker::new(0, 4, 2, 3, true).profile(&[80, 80]));
    let flat = |name: &str| !name.starts_with("pyramid");
    for entry in ALLOCATORS.iter().filter(|entry| flat(entry.name)) {
        for granularity in Granularity::ALL {
            for budget in [12.0, 12.5, 40.0, 77.0] {
                let budget = Budget::TokensPerHead(budget);
                let request =
                    Request::of_measures(&profile, budget, Floor::of(2, 4), 80).by(granularity);
                let Some(plan) = allocate(entry.name, &request) else {
                    continue;
                };
                let flat = plan.unwrap().tokens.concat();
                let (least, most) = (flat.iter().min().unwrap(), flat.iter().max().unwrap());
                assert!(
                    most - least <= 1,
                    "{} {granularity:?}: {flat:?}",
                    entry.name
                );
            }
        }
    }
}

#[test]
fn static_strategies_need_no_profile_and_the_others_say_so() {
    let profile = &PROFILES[7];
    let geometry = profile.geometry().clone();
    let budget = Budget::TokensPerHead(20.0);
    let request = Request::of_model(geometry, budget, Floor::of(2, 4), 50);
    for entry in ALLOCATORS {
        let made = allocate(entry.name, &request).unwrap();
        match entry.name {
            "uniform" | "pyramid" | "pyramid-infer" => assert!(made.is_ok()),
            _ => assert!(made.unwrap_err().to_string().contains("--profile")),
        }
    }
}

#[test]
fn every_strategy_says_where_it_comes_from() {
    for entry in ALLOCATORS {
        let cited = ["arXiv:", "house definition"];
        assert!(
            cited.iter().any(|c| entry.paper.contains(c)),
            "{}",
            entry.name
        );
        assert!(
            !entry.about.is_empty() && entry.about.len() < 100,
            "{}",
            entry.name
        );
        let differs = entry.differs;
        assert!(!differs.is_empty() && differs.len() < 120, "{differs}");
        let unknown = registry::build("strategy", ALLOCATORS, entry.name, json!({"no-such": 1}));
        let text = unknown.unwrap_err().to_string();
        assert!(
            text.contains("no-such") && text.contains(entry.name),
            "{text}"
        );
    }
}
