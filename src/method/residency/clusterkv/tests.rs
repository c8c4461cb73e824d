use serde_json::json;

use super::*;

fn rule(parameters: Value) -> ClusterKv {
    parse(parameters).unwrap()
}

#[test]
fn a_prompt_has_its_eightieth_part_of_clusters() {
    let rule = ClusterKv::default();
    for (tokens, clusters) in [
        (0, 1),
        (39, 1),
        (119, 1),
        (120, 2),
        (199, 2),
        (200, 3),
        (2038, 25),
    ] {
        assert_eq!(rule.clusters(tokens), clusters, "{tokens}");
    }
    let odd = ClusterKv {
        tokens_per_cluster: 3,
        ..rule
    };
    assert_eq!(
        [4, 5, 7, 8].map(|tokens| odd.clusters(tokens)),
        [1, 2, 2, 3]
    );
}

#[test]
fn the_own_budget_comes_before_that_of_the_run() {
    let spent = Some(CacheBudget::Tokens(Budget::TokensPerHead(64.0)));
    let rows = |parameters: Value, spent| {
        let budget = rule(parameters).spent(spent).unwrap().tokens();
        budget.map(|budget| budget.per_head(1000) as usize)
    };
    assert_eq!(rows(json!({}), spent), Some(64));
    assert_eq!(rows(json!({"budget": 200}), spent), Some(200));
    assert_eq!(rows(json!({"budget": "12%"}), None), Some(120));
    assert_eq!(rows(json!({}), Some(CacheBudget::Bytes(5e6))), None);
    assert!(rule(json!({})).spends_budget() && !rule(json!({"budget": 200})).spends_budget());
    for parameters in [
        json!({}),
        json!({"budget": 64, "new": 3}),
        json!({"budget": "12.5%"}),
    ] {
        let one = rule(parameters);
        assert_eq!(rule(one.parameters()), one);
    }
}

#[test]
fn what_leaves_nothing_to_recall_is_refused_with_the_way_out() {
    let floor = Floor::of(4, 32);
    let check = |parameters: Value, spent: Option<f64>| {
        let spent = spent.map(|tokens| CacheBudget::Tokens(Budget::TokensPerHead(tokens)));
        rule(parameters)
            .check(1000, &floor, spent)
            .map_err(|e| e.to_string())
    };
    check(json!({}), Some(17.0)).unwrap();
    check(json!({"budget": "2%"}), None).unwrap();
    check(json!({"budget": 4, "sinks": 3}), None).unwrap();
    for (parameters, spent, part) in [
        (json!({}), None, "clusterkv(budget=256)"),
        (json!({}), Some(16.0), "the 16 sinks"),
        (json!({"budget": "1.6%"}), None, "16 tokens of a KV head"),
        (json!({"budget": 8, "sinks": 8}), None, "lower sinks"),
        (json!({"every": 0}), Some(64.0), "clustered together"),
        (json!({"new": 0}), Some(64.0), "clusters of generated"),
        (
            json!({"tokens_per_cluster": 0}),
            Some(64.0),
            "tokens per cluster",
        ),
        (json!({"iterations": 0}), Some(64.0), "iterations"),
    ] {
        let said = check(parameters, spent).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
    for wrong in [
        json!({"budget": "many"}),
        json!({"budget": -3}),
        json!({"budget": 0}),
        json!({"bugdet": 3}),
    ] {
        assert!(parse::<ClusterKv>(wrong).is_err());
    }
}
