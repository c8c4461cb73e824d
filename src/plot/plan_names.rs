//! What a figure calls budget plans: strategy and budget, and whatever else tells them apart.

use super::axis::number;
use crate::budget::{Budget, BudgetPlan, Granularity};
use serde_json::Value;

/// A name for every plan: strategy, budget, and what tells it from the others.
pub(super) fn plan_names(plans: &[BudgetPlan]) -> Vec<String> {
    let differ = |part: fn(&BudgetPlan) -> String| {
        plans
            .windows(2)
            .any(|pair| part(&pair[0]) != part(&pair[1]))
    };
    let mut parts: Vec<fn(&BudgetPlan) -> String> = vec![|p| p.strategy.clone(), budget];
    if plans.len() == 1 {
        parts.push(by_head);
    }
    for part in [by_head, model, length] {
        parts.extend(differ(part).then_some(part));
    }
    let bare: Vec<String> = plans
        .iter()
        .map(|plan| joined(parts.iter().map(|part| part(plan))))
        .collect();
    let name = |(i, plan): (usize, &BudgetPlan)| {
        let twins = (0..plans.len()).filter(|&j| j != i && bare[j] == bare[i]);
        let others: Vec<Vec<String>> = twins.map(|j| settings(&plans[j])).collect();
        let own = settings(plan).into_iter();
        let telling = own.filter(|s| others.iter().any(|other| !other.contains(s)));
        joined([bare[i].clone()].into_iter().chain(telling))
    };
    plans.iter().enumerate().map(name).collect()
}

fn joined(words: impl IntoIterator<Item = String>) -> String {
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(", ")
}

fn budget(plan: &BudgetPlan) -> String {
    match plan.budget {
        // A total that another tool's file gives has a mean with many decimals.
        Budget::TokensPerHead(b) => format!("B = {}", number((b * 10.0).round() / 10.0)),
        share @ Budget::RetainedFraction(_) => format!("B = {share} of T"),
    }
}

fn by_head(plan: &BudgetPlan) -> String {
    match plan.granularity {
        Granularity::Layer => String::new(),
        Granularity::Head => "by head".to_owned(),
    }
}

fn model(plan: &BudgetPlan) -> String {
    plan.geometry.model.clone()
}

fn length(plan: &BudgetPlan) -> String {
    format!("T = {}", number(plan.reference_tokens as f64))
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
    use crate::plot::sample::Sample;
    use serde_json::json;

    #[test]
    fn names_say_what_differs_and_no_more() {
        let sample = Sample::default();
        let one = sample.plan("pyramid", json!({}), Granularity::Layer);
        assert_eq!(plan_names(std::slice::from_ref(&one)), ["pyramid, B = 128"]);
        let steep = sample.plan("pyramid", json!({"beta": 2}), Granularity::Layer);
        let even = sample.plan("uniform", json!({}), Granularity::Layer);
        assert_eq!(
            plan_names(&[one.clone(), steep, even]),
            [
                "pyramid, B = 128, beta 20",
                "pyramid, B = 128, beta 2",
                "uniform, B = 128"
            ]
        );
        let even = sample.plan("uniform", json!({}), Granularity::Layer);
        let heads = BudgetPlan {
            granularity: Granularity::Head,
            ..even
        };
        assert_eq!(
            plan_names(&[one, heads.clone()]),
            ["pyramid, B = 128", "uniform, B = 128, by head"]
        );
        assert_eq!(plan_names(&[heads]), ["uniform, B = 128, by head"]);
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
        assert_eq!(
            plan_names(&[plan("a-1b", vec![2000]), plan("b-1b", vec![4000])]),
            [
                "uniform, B = 128, a-1b, T = 2,000",
                "uniform, B = 128, b-1b, T = 4,000"
            ]
        );
    }
}
