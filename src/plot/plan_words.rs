//! What a figure says of budget plans: what all share stands above it once, and each is called by what tells it from
//! the others.

use super::figure::{Words, number};
use crate::budget::{Budget, BudgetPlan};
use serde_json::Value;

/// The words for several plans.
#[derive(Debug, PartialEq)]
pub(super) struct PlanWords {
    /// What all plans have in common.
    pub(super) shared: Vec<Words>,
    /// What tells every plan from the others; those that look alike get their number in the order given, which is that
    /// of the figure's provenance.
    pub(super) names: Vec<Words>,
}

impl PlanWords {
    /// The words for `plans`; a lone one is called by its strategy.
    pub(super) fn of(plans: &[&BudgetPlan]) -> Self {
        let parts: [fn(&BudgetPlan) -> String; 7] = [
            strategy,
            model,
            length,
            by,
            budget,
            always_kept,
            over_layers,
        ];
        let differs = |part: fn(&BudgetPlan) -> String| {
            let mut pairs = plans.windows(2);
            pairs.any(|pair| part(pair[0]) != part(pair[1]))
        };
        let alone = plans.len() == 1;
        let names_plan = |place: usize| differs(parts[place]) || (alone && place == 0);
        let (own, shared): (Vec<usize>, Vec<usize>) =
            (0..parts.len()).partition(|&place| names_plan(place));
        let bare: Vec<String> = (plans.iter())
            .map(|plan| joined(own.iter().map(|&place| parts[place](plan))))
            .collect();
        let name = |(i, plan): (usize, &&BudgetPlan)| {
            let twins = (0..plans.len()).filter(|&j| j != i && bare[j] == bare[i]);
            let others: Vec<Vec<String>> = twins.map(|j| settings(plans[j])).collect();
            let own = settings(plan).into_iter();
            let telling = own.filter(|s| others.iter().any(|other| !other.contains(s)));
            let name = joined([bare[i].clone()].into_iter().chain(telling));
            Words::from(name).or_number(format!("plan {}", i + 1))
        };
        let facts = plans.first().into_iter().flat_map(|plan| {
            let facts = shared.iter().map(|&place| parts[place](plan));
            let facts = facts.filter(|fact| !fact.is_empty());
            facts
                .map(|fact| with_unit(plan, fact).into())
                .collect::<Vec<_>>()
        });
        Self {
            shared: facts.collect(),
            names: plans.iter().enumerate().map(name).collect(),
        }
    }
}

fn joined(words: impl IntoIterator<Item = String>) -> String {
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(", ")
}

fn strategy(plan: &BudgetPlan) -> String {
    plan.strategy.clone()
}

fn budget(plan: &BudgetPlan) -> String {
    match plan.budget {
        // A total that another tool's file gives has a mean with many decimals.
        Budget::TokensPerHead(b) => format!("B = {}", number((b * 10.0).round() / 10.0)),
        // Layers with a window hold less than T.
        share @ Budget::RetainedFraction(_) if has_windows(plan) => {
            format!("B = {share} of the full cache")
        }
        share @ Budget::RetainedFraction(_) => format!("B = {share} of T"),
    }
}

/// `fact` of a plan; its budget in tokens gets the unit that names have no room for.
fn with_unit(plan: &BudgetPlan, fact: String) -> String {
    match plan.budget {
        Budget::TokensPerHead(_) if fact == budget(plan) => format!("{fact} tokens per KV head"),
        _ => fact,
    }
}

fn by(plan: &BudgetPlan) -> String {
    format!("by {}", plan.granularity.name())
}

fn model(plan: &BudgetPlan) -> String {
    plan.geometry.model.clone()
}

fn length(plan: &BudgetPlan) -> String {
    format!("T = {}", number(plan.reference_tokens as f64))
}

fn always_kept(plan: &BudgetPlan) -> String {
    let sinks = match plan.sinks {
        1 => "1 sink".to_owned(),
        n => format!("{} sinks", number(n as f64)),
    };
    format!("{sinks}, window {}", number(plan.window as f64))
}

fn has_windows(plan: &BudgetPlan) -> bool {
    plan.geometry.windows.iter().any(Option::is_some)
}

/// Which layers of a model with windows share the budget; "" for a model without.
fn over_layers(plan: &BudgetPlan) -> String {
    let layers = if !has_windows(plan) {
        ""
    } else if plan.whole_windows {
        "over global layers"
    } else {
        "over all layers"
    };
    layers.to_owned()
}

/// Scalar parameters as `name value`, and the floor where the strategy names none.
fn settings(plan: &BudgetPlan) -> Vec<String> {
    let fields = plan.parameters.as_object().into_iter().flatten();
    let scalar = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some(format!("{name} {text}")),
        Value::Number(n) => Some(format!("{name} {}", number(n.as_f64()?))),
        Value::Bool(on) => Some(format!("{name} {on}")),
        _ => None,
    };
    let mut settings: Vec<String> = fields.filter_map(scalar).collect();
    if !settings.iter().any(|s| s.starts_with("floor ")) {
        settings.push(format!("floor {}", plan.floor));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Granularity;
    use crate::plot::figure::text_width;
    use crate::plot::tests::sample::Sample;
    use serde_json::json;

    const WIDE: i32 = 1_000_000;

    fn of(plans: &[BudgetPlan]) -> PlanWords {
        PlanWords::of(&plans.iter().collect::<Vec<_>>())
    }

    fn words(plans: &[BudgetPlan]) -> (Vec<String>, Vec<String>) {
        let words = of(plans);
        let shared = words.shared.iter().map(|fact| fact.within(WIDE));
        (Words::told_apart(&words.names, WIDE), shared.collect())
    }

    fn plan(strategy: &str, parameters: Value, granularity: Granularity) -> BudgetPlan {
        Sample::default().plan(strategy, parameters, granularity)
    }

    #[test]
    fn names_say_what_differs_and_no_more() {
        let one = plan("pyramid", json!({}), Granularity::Layer);
        let (names, shared) = words(std::slice::from_ref(&one));
        assert_eq!(names, ["pyramid"]);
        let all = [
            "sample-1b",
            "T = 2,053",
            "by layer",
            "B = 128 tokens per KV head",
            "2 sinks, window 2",
        ];
        assert_eq!(shared, all);
        let even = plan("uniform", json!({}), Granularity::Layer);
        let steep = plan("pyramid", json!({"beta": 2}), Granularity::Layer);
        let (names, shared) = words(&[one.clone(), steep.clone(), even]);
        assert_eq!(names, ["pyramid, beta 20", "pyramid, beta 2", "uniform"]);
        assert_eq!(shared, all);
        let (names, shared) = words(&[one.clone(), steep]);
        assert_eq!(names, ["beta 20", "beta 2"]);
        assert_eq!(shared[0], "pyramid");
        let mut heads = plan("uniform", json!({}), Granularity::Layer);
        heads.granularity = Granularity::Head;
        let (names, shared) = words(&[one, heads.clone()]);
        assert_eq!(names, ["pyramid, by layer", "uniform, by head"]);
        assert!(!shared.iter().any(|fact| fact.starts_with("by ")));
        assert_eq!(words(std::slice::from_ref(&heads)).1[2], "by head");
        let mut more = heads.clone();
        (more.sinks, more.budget) = (1, Budget::RetainedFraction(0.1));
        let (names, shared) = words(&[heads, more]);
        assert_eq!(
            names,
            [
                "B = 128, 2 sinks, window 2",
                "B = 10% of T, 1 sink, window 2"
            ]
        );
        assert_eq!(shared, ["uniform", "sample-1b", "T = 2,053", "by head"]);
    }

    #[test]
    fn models_and_lengths_are_named_where_they_differ() {
        let plan = |model, tokens: Vec<u32>| {
            let sample = Sample {
                model,
                tokens,
                ..Sample::default()
            };
            sample.plan("uniform", json!({}), Granularity::Layer)
        };
        let (names, _) = words(&[plan("a-1b", vec![2000]), plan("b-1b", vec![4000])]);
        assert_eq!(names, ["a-1b, T = 2,000", "b-1b, T = 4,000"]);
    }

    #[test]
    fn plans_that_nothing_tells_apart_are_numbered() {
        let even = plan("uniform", json!({}), Granularity::Layer);
        let steep = plan("pyramid", json!({"beta": 2}), Granularity::Layer);
        let twins = [even.clone(), steep, even.clone()];
        assert_eq!(
            words(&twins).0,
            ["uniform, plan 1", "pyramid", "uniform, plan 3"]
        );
        assert_eq!(words(&[even.clone(), even]).0, ["plan 1", "plan 2"]);
        let long = |beta: f64| plan("pyramid", json!({ "beta": beta }), Granularity::Layer);
        let words = of(&[long(10.10001), long(10.20001)]);
        let names = |shown: &str| Words::told_apart(&words.names, text_width(shown));
        assert_eq!(names("beta 10.10001 is whole")[1], "beta 10.20001");
        // Cut to one and the same name, and with no room for any.
        assert_eq!(names("beta…0001"), ["b…, plan 1", "b…, plan 2"]);
        assert_eq!(names(""), ["plan 1", "plan 2"]);
    }
}
