use super::*;
use crate::budget::sample::Sample;
use crate::table::Rows;
use serde_json::json;

const TYPES: [&str; 3] = ["f16", "q8(residual=0)", "q2(residual=0)"];

/// Relative L2 of every type in every layer: the second layer cannot bear two bits.
const ERRORS: [[f64; 3]; 3] = [[0.0, 0.01, 0.1], [0.0, 0.02, 0.9], [0.001, 0.005, 0.05]];

/// The sample with errors of types that two prompts have apart by a tenth.
fn profile() -> Profile {
    let sample = Sample {
        prompts: vec![(100, vec![10.0, 30.0, 60.0]), (100, vec![10.0, 30.0, 60.0])],
        ..Sample::default()
    };
    let mut profile = sample.profile();
    let types = TYPES.map(|name| name.parse().unwrap());
    profile.meta.settings.measures.quantise = types.to_vec();
    let mut rows = Rows::default();
    for (prompt, way) in [(0, 0.9), (1, 1.1)] {
        for (layer, errors) in ERRORS.iter().enumerate() {
            for (name, error) in types.iter().zip(errors) {
                rows.count("prompt", prompt);
                rows.count("layer", layer);
                rows.text("cache", &name.to_string());
                rows.number("l2_pooled", error * way);
            }
        }
    }
    profile.quantisation = Some(rows.finish());
    profile
}

fn plan(profile: &Profile, floor: Floor, bytes: usize) -> Result<BudgetPlan> {
    BitsAndTokens::default().plan(profile, floor, 100, bytes, Provenance::default())
}

fn bytes_of(plan: &BudgetPlan) -> usize {
    plan.layer_bytes(Representation::FLOAT32).iter().sum()
}

/// Σ e² straight from the sample's curves: the L2 error falls evenly to 0 at 58, 20 and 10 tokens.
fn error_of(plan: &BudgetPlan) -> f64 {
    let layer = |l: usize| {
        let lost = 1.0 - (plan.tokens[l][0] as f64 / [58.0, 20.0, 10.0][l]).min(1.0);
        let place = TYPES
            .iter()
            .position(|t| *t == plan.held_as[l][0].to_string());
        lost * lost + ERRORS[l][place.unwrap()].powi(2)
    };
    (0..3).map(layer).sum()
}

#[test]
fn more_bytes_never_err_more_and_no_head_is_below_the_floor() {
    let (profile, floor) = (profile(), Floor::of(2, 3));
    let mut before = f64::INFINITY;
    for bytes in (0..20_000).step_by(37) {
        let Ok(plan) = plan(&profile, floor, bytes) else {
            assert_eq!(before, f64::INFINITY, "{bytes}");
            continue;
        };
        assert!(bytes_of(&plan) <= bytes, "{bytes}");
        assert!(plan.tokens.iter().flatten().all(|&tokens| tokens >= 5));
        let error = error_of(&plan);
        assert!(error <= before + 1e-12, "{bytes}: {error} after {before}");
        before = error;
        let text = serde_json::to_string(&plan).unwrap();
        let read = BudgetPlan::parse(std::path::Path::new("plan.json"), &text).unwrap();
        assert_eq!(read, plan);
    }
    assert!(before < 2e-6, "{before}");
}

#[test]
fn a_layer_that_cannot_bear_few_bits_keeps_more_of_them() {
    let (profile, floor) = (profile(), Floor::of(0, 1));
    let plan = plan(&profile, floor, 3_200).unwrap();
    let bits = |l: usize| plan.held_as[l][0].bytes_per_token(8);
    assert!(bits(1) > bits(0), "{:?}", plan.held_as);
    assert_eq!(plan.strategy, "bits-and-tokens");
    assert_eq!(plan.parameters, json!({"types": TYPES}));
    let lost = plan.tokens.iter().zip([58.0, 20.0, 10.0]);
    let lost: Vec<_> = lost
        .map(|(heads, need)| Some(1.0 - (heads[0] as f64 / need).min(1.0)))
        .collect();
    let told = super::super::error_with_types(&profile, &plan, &lost)
        .unwrap()
        .unwrap();
    let by_hand: f64 = (0..3)
        .map(|l| {
            let place = TYPES
                .iter()
                .position(|t| *t == plan.held_as[l][0].to_string());
            lost[l].unwrap().hypot(ERRORS[l][place.unwrap()])
        })
        .sum();
    assert!((told - by_hand / 3.0).abs() < 1e-12);
}

#[test]
fn layers_that_are_kept_whole_choose_their_type_alone() {
    let mut profile = profile();
    profile.meta.model.windows = vec![Some(16), None, None];
    let floor = Floor {
        whole_windows: true,
        ..Floor::of(0, 1)
    };
    let plan = plan(&profile, floor, 5_000).unwrap();
    assert_eq!(plan.tokens[0], [16, 16]);
    assert!(bytes_of(&plan) <= 5_000 && plan.whole_windows);
    let narrow = Floor::of(0, 17);
    assert!(
        self::plan(&profile, narrow, 5_000).is_err(),
        "above the window"
    );
}

#[test]
fn what_is_not_measured_or_cannot_be_held_is_refused_with_the_way_out() {
    let (whole, floor) = (profile(), Floor::of(0, 4));
    let said = plan(&Sample::default().profile(), floor, 9_000).unwrap_err();
    assert!(said.to_string().contains("--quantise"), "{said}");
    let rule: BitsAndTokens = parse(json!({"types": "f16;q4"})).unwrap();
    let said = rule.plan(&whole, floor, 100, 9_000, Provenance::default());
    let said = said.unwrap_err().to_string();
    assert!(
        said.contains("'q4'") && said.contains("q2(residual=0)"),
        "{said}"
    );
    assert!(parse::<BitsAndTokens>(json!({"types": ["q8", "q3"]})).is_err());
    let rule: BitsAndTokens = parse(json!({"types": ["f16"]})).unwrap();
    let least = 6 * 4 * 2 * 2 * 8;
    let few = rule.plan(&whole, floor, 100, least - 1, Provenance::default());
    let few = few.unwrap_err().to_string();
    assert!(few.contains(&format!("takes {least}")), "{few}");
    assert!(
        rule.plan(&whole, floor, 100, least, Provenance::default())
            .is_ok()
    );
    let long = rule.plan(&whole, floor, 101, 9_000, Provenance::default());
    assert!(
        long.unwrap_err()
            .to_string()
            .contains("longest prompt has 100")
    );
}
