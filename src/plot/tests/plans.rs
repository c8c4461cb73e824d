//! The chart of plans names what differs between them, and what they share.

use serde_json::json;

use super::*;
use crate::budget::{Budget, BudgetPlan, Granularity};

#[test]
fn budgets_name_strategies_and_heads() {
    let sample = Sample::default();
    let even = sample.plan("uniform", json!({}), Granularity::Layer);
    let pyramid = sample.plan("pyramid", json!({}), Granularity::Layer);
    let figure = drawn(
        "budgets",
        &[even.clone(), pyramid],
        &ChartOptions::default(),
    );
    shows(
        &figure,
        &[
            "Layer",
            "Tokens per KV head (log scale)",
            "uniform",
            "pyramid",
            "by layer",
            "100",
        ],
    );
    let absent = |word: &str| !words(&figure.svg).iter().any(|w| w.contains(word));
    assert!(absent("KV heads") && absent("uniform budget"));
    let both = [even, sample.plan_by_need()];
    let words_of_heads = ["by-need, by head", "min–max of KV heads", "10"];
    shows(
        &drawn("budgets", &both, &ChartOptions::default()),
        &words_of_heads,
    );
    let relative = ChartOptions {
        relative: true,
        ..ChartOptions::default()
    };
    shows(
        &drawn("budgets", &both, &relative),
        &["Budget (% of T, log scale)"],
    );
}

/// Plans of every kind: a third of them by head, budgets of their own where `several` says so.
fn plans(count: usize, several: bool) -> Vec<BudgetPlan> {
    let sample = Sample::default();
    let plan = |i: usize| {
        let granularity = match i % 3 {
            2 => Granularity::Head,
            _ => Granularity::Layer,
        };
        let parameters = json!({"beta": 2 + i});
        let mut plan = sample.plan("pyramid", parameters, Granularity::Layer);
        plan.granularity = granularity;
        if several {
            plan.budget = Budget::TokensPerHead(128.0 + i as f64);
        }
        plan
    };
    (0..count).map(plan).collect()
}

#[test]
fn what_plans_share_is_said_once() {
    for count in [1, 2, 4, 5, 9] {
        for width in [COLUMN, PAGE] {
            let options = ChartOptions {
                width,
                ..ChartOptions::default()
            };
            let figure = drawn("budgets", &plans(count, false), &options);
            let words = words(&figure.svg);
            let times = |part: &str| words.iter().filter(|w| w.contains(part)).count();
            let shared = [
                "sample-1b",
                "T = 2,053",
                "B = 128",
                "2 sinks, window 2",
                "pyramid",
            ];
            for fact in shared {
                assert_eq!(times(fact), 1, "{fact} among {count}: {words:?}");
            }
            let own = drawn("budgets", &plans(count, true), &options);
            let own = self::words(&own.svg);
            for i in 0..count {
                let budget = format!("B = {}", 128 + i);
                assert_eq!(own.iter().filter(|w| w.contains(&budget)).count(), 1);
            }
        }
    }
}

#[test]
fn no_two_plans_have_one_name() {
    let twin = Sample::default().plan("uniform", json!({}), Granularity::Layer);
    for count in [2, 4, 7] {
        let same = vec![twin.clone(); count];
        let words = words(&drawn("budgets", &same, &ChartOptions::default()).svg);
        for number in 1..=count {
            let name = format!("plan {number}");
            assert_eq!(words.iter().filter(|w| **w == name).count(), 1, "{words:?}");
        }
    }
}

#[test]
fn more_than_four_plans_have_a_panel_each() {
    let four = drawn("budgets", &plans(4, true), &ChartOptions::default());
    let five = drawn("budgets", &plans(5, true), &ChartOptions::default());
    let has = |figure: &Figure, word: &str| words(&figure.svg).iter().any(|w| w == word);
    assert!(!has(&four, "the plan named") && has(&five, "the plan named"));
    assert!(has(&five, "uniform budget") && png_info(&five).1 > png_info(&four).1);
    // In panels of their own all have the first pen.
    let second = "#D55E00";
    assert!(four.svg.contains(second) && !five.svg.contains(second));
}

#[test]
fn the_axis_says_whether_it_is_logarithmic_and_holds_every_budget() {
    let even = Sample::default().plan("uniform", json!({}), Granularity::Layer);
    for (spread, log) in [(9, false), (10, true), (40, true)] {
        let mut plan = even.clone();
        (plan.tokens[0], plan.tokens[1]) = (vec![20; 2], vec![20 * spread; 2]);
        for relative in [false, true] {
            let options = ChartOptions {
                relative,
                ..ChartOptions::default()
            };
            let words = words(&drawn("budgets", &[plan.clone()], &options).svg);
            let says = words.iter().any(|w| w.contains("log scale"));
            assert_eq!(says, log, "{words:?}");
            let numbers = words
                .iter()
                .filter_map(|w| w.replace(',', "").parse::<f64>().ok());
            let factor = if relative { 100.0 / 2053.0 } else { 1.0 };
            let top = (20 * spread) as f64 * factor;
            assert!(numbers.clone().any(|n| n >= top), "{top} among {words:?}");
        }
    }
    let mut none = even;
    none.tokens[0] = vec![0; 2];
    let options = ChartOptions {
        log: true,
        ..ChartOptions::default()
    };
    let refused = draw("budgets", &[none], &options, "").unwrap_err();
    assert!(refused.to_string().contains("leave out --log"), "{refused}");
}
