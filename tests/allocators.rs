//! What every allocator must keep, for any profile, geometry, budget and prompt length.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::LazyLock;

use kvprof::budget::{
    ALLOCATORS, Budget, BudgetPlan, Floor, Granularity, Provenance, Request, longest_prompt,
};
use kvprof::error::Error;
use kvprof::profile::{
    HeadMeasures, LayerMeasures, MeasureOptions, Meta, MinimumBudgets, OutputCurve, OutputCurves,
    Profile, PromptLabel, Ranked, SCHEMA, budget_grid, prompt_tables,
};
use kvprof::registry;
use kvprof::table::Table;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;

/// A made-up model's attention, measured as a real one's is.
struct Maker {
    random: ChaCha8Rng,
    options: MeasureOptions,
    layers: usize,
    group: usize,
    kv_heads: usize,
    /// Every layer, head and prompt the same.
    flat: bool,
}

impl Maker {
    fn new(seed: u64, layers: usize, group: usize, kv_heads: usize, flat: bool) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            options: MeasureOptions::default(),
            layers,
            group,
            kv_heads,
            flat,
        }
    }

    fn uniform(&mut self) -> f64 {
        f64::from(self.random.next_u32()) / f64::from(u32::MAX)
    }

    /// A vector between flat and peaked.
    fn ranked(&mut self, tokens: usize) -> Ranked {
        let power = if self.flat { 3.0 } else { self.uniform() * 8.0 };
        let weights: Vec<f64> = (0..tokens)
            .map(|i| {
                let x = if self.flat {
                    (i as f64 + 1.0) / tokens as f64
                } else {
                    self.uniform()
                };
                x.powf(power) + 1e-6
            })
            .collect();
        Ranked::new(&weights)
    }

    fn budgets(&self, ranked: &Ranked) -> MinimumBudgets {
        let at = |t: &f64| ranked.minimum_budget(*t) as u32;
        let counts: Vec<u32> = self.options.thresholds.iter().map(at).collect();
        MinimumBudgets {
            rows: counts.iter().map(|&c| f64::from(c)).collect(),
            last: counts.clone(),
            pooled: counts,
        }
    }

    fn head(&mut self, tokens: usize) -> HeadMeasures {
        let ranked = self.ranked(tokens);
        let mass: Vec<f64> = budget_grid(tokens)
            .iter()
            .map(|&b| ranked.retained_mass(b))
            .collect();
        HeadMeasures {
            budgets: self.budgets(&ranked),
            entropy: 1.0,
            sink_mass: 0.1,
            window_mass: 0.1,
            mass_last: mass.clone(),
            mass_pooled: mass,
        }
    }

    fn output(&mut self, tokens: usize) -> OutputCurves {
        let ranked = self.ranked(tokens);
        // Rises like a mass, with dips.
        let cosine: Vec<f64> = (1..=tokens)
            .map(|b| {
                let dip = if self.flat { 0.0 } else { 0.2 * self.uniform() };
                let left = 1.0 - b as f64 / tokens as f64;
                ranked.retained_mass(b) - dip * left
            })
            .collect();
        let curve = OutputCurve {
            budgets: (1..=tokens as u32).collect(),
            relative_l2: cosine.iter().map(|c| (1.0 - c).max(0.0).sqrt()).collect(),
            cosine,
        };
        OutputCurves {
            renormalised: curve.clone(),
            raw: curve,
            norm: 1.0,
        }
    }

    fn layer(&mut self, tokens: usize) -> LayerMeasures {
        let heads = self.group * self.kv_heads;
        LayerMeasures {
            heads: (0..heads).map(|_| self.head(tokens)).collect(),
            kv_heads: (0..self.kv_heads)
                .map(|_| {
                    let ranked = self.ranked(tokens);
                    self.budgets(&ranked)
                })
                .collect(),
            output_last: self.output(tokens),
            output_pooled: self.output(tokens),
        }
    }

    fn profile(mut self, prompts: &[usize]) -> Profile {
        let mut tables: [Table; 4] = Default::default();
        for (index, &tokens) in prompts.iter().enumerate() {
            let layers: Vec<LayerMeasures> = (0..self.layers).map(|_| self.layer(tokens)).collect();
            let label = PromptLabel {
                index,
                id: format!("p{index}"),
                tokens,
            };
            let parts = prompt_tables(&label, &layers, &self.options);
            for (table, part) in tables.iter_mut().zip(parts) {
                table.append(part).unwrap();
            }
        }
        let meta = self.meta(prompts.len());
        let [heads, kv_heads, layers, curves] = tables;
        Profile {
            meta,
            heads,
            kv_heads,
            layers,
            curves,
        }
    }

    fn meta(&self, prompts: usize) -> Meta {
        Meta {
            schema: SCHEMA,
            kvprof: "0".into(),
            command: "kvprof profile".into(),
            model: "made-up".into(),
            model_source: "made-up".into(),
            model_sha256: "ab".into(),
            architecture: "llama".into(),
            num_layers: self.layers,
            num_heads: self.group * self.kv_heads,
            num_kv_heads: self.kv_heads,
            head_dim: 8,
            dataset: "made-up".into(),
            dataset_sha256: "cd".into(),
            template: "raw".into(),
            prompts,
            prompts_sha256: "0".into(),
            max_prompt_tokens: None,
            window: Some(32),
            thresholds: self.options.thresholds.clone(),
            output_thresholds: self.options.output_thresholds.clone(),
            device: "Cpu".into(),
            dtype: "f32".into(),
            seed: 0,
        }
    }
}

/// Every geometry from one layer of one head to a few layers of grouped heads, on prompts of any length.
static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let made = (0..48).map(|seed| {
        let s = seed as usize;
        let maker = Maker::new(seed, 1 + s % 5, 1 + s % 3, 1 + s % 4, false);
        maker.profile(&[3 + s * 2, 5 + (s * 7) % 90, 40][..1 + s % 3])
    });
    made.collect()
});

/// A plan, or `None` for a granularity that the strategy does not have.
fn allocate(strategy: &str, request: &Request<'_>) -> Option<Result<BudgetPlan, Error>> {
    match BudgetPlan::allocate(strategy, json!({}), request, Provenance::default()) {
        Err(Error::Unsupported {
            what: "granularity",
            ..
        }) => None,
        other => Some(other),
    }
}

fn check(plan: &BudgetPlan, request: &Request<'_>) -> Result<(), TestCaseError> {
    let flat = plan.tokens.concat();
    prop_assert_eq!(
        flat.iter().sum::<usize>(),
        request.total(),
        "{}",
        plan.strategy
    );
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
fn check_targets(strategy: &str, request: &Request<'_>, plan: &BudgetPlan) {
    let allocator = registry::build("strategy", ALLOCATORS, strategy, json!({})).unwrap();
    let targets = allocator.targets(request).unwrap();
    let kept: Vec<f64> = plan.tokens.concat().iter().map(|&b| b as f64).collect();
    assert_eq!(targets.tokens, kept, "{strategy}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_strategy_spends_every_budget_to_the_token(
        profile in 0usize..48,
        strategy in 0usize..ALLOCATORS.len(),
        by_head in any::<bool>(),
        amount in 1.0f64..120.0,
        fraction in any::<bool>(),
        sinks in 0usize..3,
        window in 0usize..8,
        tokens in prop::option::of(1usize..200),
    ) {
        let profile = &PROFILES[profile];
        let tokens = tokens.unwrap_or_else(|| longest_prompt(profile).unwrap());
        let budget = if fraction {
            Budget::RetainedFraction(amount / 120.0)
        } else {
            Budget::TokensPerHead(amount)
        };
        let granularity = Granularity::ALL[usize::from(by_head)];
        let request = Request::of_profile(profile, budget, Floor::of(sinks, window), tokens)
            .by(granularity);
        let entry = &ALLOCATORS[strategy];
        match allocate(entry.name, &request) {
            None => prop_assert!(by_head, "{}", entry.name),
            Some(Ok(plan)) => {
                check(&plan, &request)?;
                if entry.name.ends_with("-optimal") {
                    check_targets(entry.name, &request, &plan);
                }
            }
            Some(Err(error)) => {
                // Only a budget below a floor may be refused, and the message has both.
                let text = error.to_string();
                prop_assert!(text.contains("budget is") && text.contains("the floor is"), "{text}");
                let bound = request.lowest() as f64 + 1.0;
                let room = request.total() as f64 / request.geometry.cells() as f64;
                prop_assert!(room < bound, "{}: {text}", entry.name);
            }
        }
    }
}

#[test]
fn a_flat_profile_gives_flat_plans() {
    let profile = Maker::new(0, 4, 2, 3, true).profile(&[80, 80]);
    for entry in ALLOCATORS.iter().filter(|entry| entry.name != "pyramid") {
        for granularity in Granularity::ALL {
            for budget in [12.0, 12.5, 40.0, 77.0] {
                let budget = Budget::TokensPerHead(budget);
                let request =
                    Request::of_profile(&profile, budget, Floor::of(2, 4), 80).by(granularity);
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
    let geometry = kvprof::budget::Geometry::of(&profile.meta);
    let budget = Budget::TokensPerHead(20.0);
    let request = Request::of_model(geometry, budget, Floor::of(2, 4), 50);
    for entry in ALLOCATORS {
        let made = allocate(entry.name, &request).unwrap();
        match entry.name {
            "uniform" | "pyramid" => assert!(made.is_ok()),
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
        let unknown = registry::build("strategy", ALLOCATORS, entry.name, json!({"no-such": 1}));
        let text = unknown.unwrap_err().to_string();
        assert!(
            text.contains("no-such") && text.contains(entry.name),
            "{text}"
        );
    }
}
