//! What a method from a plan holds where the plan says so, and what cannot be asked of both.
#![allow(clippy::unwrap_used)]

use kvprof::budget::{Budget, BudgetPlan, Floor, Geometry, Provenance, Request};
use kvprof::method::{Allocation, Cut, Method, RESIDENCIES, Ranking};
use kvprof::model::cache::Representations;
use kvprof::registry;
use kvprof::select::SCORERS;
use serde_json::{Value, json};

fn geometry() -> Geometry {
    Geometry {
        model: "made up".into(),
        model_sha256: String::new(),
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 80,
        windows: Vec::new(),
    }
}

fn plan(held_as: &str) -> BudgetPlan {
    let budget = Budget::TokensPerHead(16.0);
    let request = Request::of_model(geometry(), budget, Floor::of(2, 4), 40);
    let plan = BudgetPlan::allocate("uniform", json!({}), &request, Provenance::default());
    plan.unwrap().all_held_as(held_as.parse().unwrap())
}

fn method(plan: BudgetPlan) -> Method {
    let ranking = Ranking {
        name: "snapkv".into(),
        scorer: registry::build("scorer", SCORERS, "snapkv", Value::Null).unwrap(),
        split: "per-head".parse().unwrap(),
    };
    let allocation = Allocation::Plan(Box::new(plan));
    let cut = Cut {
        allocation,
        ranking,
    };
    Method::of_cut("of a plan", Some(cut))
}

/// The method with another residency.
fn living(method: Method, name: &str, parameters: Value) -> Method {
    Method {
        residency_name: name.into(),
        residency: registry::build("residency", RESIDENCIES, name, parameters).unwrap(),
        ..method
    }
}

fn said(method: &Method) -> String {
    method.check().unwrap_err().to_string()
}

#[test]
fn a_method_holds_what_its_plan_says() {
    let of_plan = method(plan("k=q8,v=q4"));
    of_plan.check().unwrap();
    of_plan.check_geometry(&geometry()).unwrap();
    let types = "k=q8,v=q4".parse().unwrap();
    assert_eq!(of_plan.held_as(), Some(Representations::Alike(types)));
    assert_eq!(of_plan.described()["cache"], "k=q8,v=q4");
    let mut mixed = plan("q8");
    mixed.held_as[1][0] = "q2".parse().unwrap();
    let mixed = method(mixed);
    assert_eq!(mixed.described()["cache"], "by KV head");
    let mut silent = plan("q8");
    silent.held_as.clear();
    let silent = method(silent);
    assert!(silent.held_as().is_none() && silent.described().get("cache").is_none());
}

#[test]
fn types_are_said_once_and_where_they_are_read() {
    let twice = Method {
        representation: Some("bf16".parse().unwrap()),
        ..method(plan("q8"))
    };
    assert!(said(&twice).contains("take a plan without held_as"));
    let own = living(method(plan("bf16")), "leankv", json!({}));
    assert!(said(&own).contains("leankv says by itself what it holds: take a plan"));
    // A bound while decoding reads tokens alone.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    plan("bf16").write(&path).unwrap();
    let mut silent = plan("q8");
    silent.held_as.clear();
    let bounded = living(method(silent), "evict-h2o", json!({"budget": path}));
    assert!(said(&bounded).contains("the tokens of a plan alone"));
}

#[test]
fn types_that_residency_or_heads_cannot_have_are_refused() {
    let evicted = |held_as: &str| living(method(plan(held_as)), "evict-tova", json!({}));
    assert!(said(&evicted("q8")).contains("takes tokens one by one"));
    let mut one = plan("bf16");
    one.held_as[1][1] = "q4".parse().unwrap();
    assert!(said(&living(method(one), "evict-tova", json!({}))).contains("one by one"));
    evicted("bf16").check().unwrap();
    // Heads of 80 are no blocks of 32.
    let blocks = method(plan("q8_0"));
    let refused = blocks.check_geometry(&geometry()).unwrap_err().to_string();
    assert!(refused.contains("head dimension is 80"), "{refused}");
}
