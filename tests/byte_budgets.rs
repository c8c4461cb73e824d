//! Budgets in bytes on the real model: fewer tokens, fewer bits and fewer resident rows for the same amount.
#![allow(clippy::unwrap_used)]

mod real_model;

use kvprof::budget::{CacheBudget, Floor};
use kvprof::eval::{Case, Outcome, QuerySource, Sweep};
use kvprof::method::{Method, observe};
use real_model::{model, prompt_ids};

/// Tokens to feed; any will do.
fn text(tokens: usize) -> Vec<u32> {
    (0..tokens)
        .map(|i| ((i * 37 + 11) % 900 + 30) as u32)
        .collect()
}

fn swept(methods: &str, budgets: &[&str]) -> Outcome {
    let methods = Method::parse_list(methods).unwrap();
    let budgets: Vec<CacheBudget> = budgets.iter().map(|b| b.parse().unwrap()).collect();
    let ids = prompt_ids("synth512");
    let sweep = Sweep {
        whole_windows: false,
        model: model(),
        methods: &methods,
        budgets: &budgets,
        sinks: 4,
        window: 32,
        max_new_tokens: 12,
        observed_from: QuerySource::Context,
    };
    let case = Case {
        id: "synth512".into(),
        ids,
        answers: Vec::new(),
        question_tokens: 0,
        wants_all: false,
        answer_ids: vec![vec![314, 260, 2811]],
        evidence: Vec::new(),
        length: None,
        depth: None,
        needle: None,
    };
    sweep.run(&case, &mut || ()).unwrap()
}

/// Fewer tokens, fewer bits and fewer resident rows all come close to the same bytes, and none above.
#[test]
fn budgets_in_bytes_are_kept_by_every_kind_of_method() {
    let methods = "full,snapkv,zigzag:head+snapkv,ada-kv+cache(f16),snapkv+cache(q4),snapkv+cache(q8_0),\
                   clusterkv,leankv,snapkv+evict-h2o(budget=kept)";
    let budgets = ["30%bytes", "8MB"];
    let outcome = swept(methods, &budgets);
    let full = outcome.full_bytes;
    let mut rows = outcome.rows.iter();
    assert_eq!(rows.next().unwrap().scores.as_ref().unwrap().kv_bytes, full);
    for method in Method::parse_list(methods).unwrap().iter().skip(1) {
        for limit in [full * 3 / 10, 8_000_000] {
            let scores = rows.next().unwrap().scores.as_ref().unwrap();
            let share = scores.kv_bytes as f64 / limit as f64;
            // A token of all KV heads takes less than 1 % of these limits; groups of 32 tokens of a head, more.
            let whole = scores.budget_tokens >= 511.0;
            assert!(
                share <= 1.0 && (share > 0.98 || whole),
                "{} at {limit}: {share}",
                method.name
            );
            assert!(scores.kl.is_finite() && scores.kl >= -1e-9);
        }
    }
    // In tokens, thresholds are scaled to the bytes of as many tokens.
    let in_tokens = swept("full,leankv", &["64"]);
    let scores = in_tokens.rows[1].scores.as_ref().unwrap();
    let limit = full / 512 * 64;
    assert!(
        scores.kv_bytes <= limit && scores.kv_bytes as f64 > 0.98 * limit as f64,
        "{}",
        scores.kv_bytes
    );
    let none = swept("full,snapkv", &["10kB"]);
    let said = none.rows[1].scores.as_ref().unwrap_err();
    assert!(
        said.contains("10000") && said.contains("fewer bits"),
        "{said}"
    );
}

/// Where everything fits, nothing is lost.
#[test]
fn a_budget_of_all_bytes_is_the_full_cache() {
    let methods = "full,snapkv,clusterkv,full+leankv(high=k16v16,low=k16v16)";
    let outcome = swept(methods, &["100%bytes", "100%"]);
    let whole = |row: usize| outcome.rows[row].scores.as_ref().unwrap();
    for row in [1, 2, 3, 4] {
        assert!(whole(row).kl.abs() < 1e-6, "{row}: {}", whole(row).kl);
        assert_eq!(whole(row).answer, whole(0).answer);
        assert_eq!(whole(row).kv_bytes, outcome.full_bytes);
    }
    for row in [5, 6] {
        assert!(whole(row).kl < 1e-4, "{row}: {}", whole(row).kl);
        assert_eq!(whole(row).kv_bytes * 2, outcome.full_bytes);
    }
}

/// With thresholds of 0 and 16 bits nothing is pruned, demoted or coded.
#[test]
fn two_levels_of_sixteen_bits_are_the_float16_cache() {
    let outcome = swept(
        "full+cache(f16),full+leankv(fixed=true,prune=0,demote=0,high=k16v16,low=k8v8)",
        &["64"],
    );
    let [half, levels] = [0, 1].map(|row| outcome.rows[row].scores.as_ref().unwrap());
    assert_eq!(half.kv_bytes, levels.kv_bytes);
    assert_eq!(half.answer, levels.answer);
    // One is fed at once, the other step by step: sums come in another order.
    assert!((half.kl - levels.kl).abs() < 1e-5 && (half.nll - levels.nll).abs() < 1e-5);
    let bits = |spelled: &str| {
        let method = Method::parse(spelled).unwrap();
        let methods = [method];
        let ids = &prompt_ids("synth512")[..200];
        let observed = observe(model(), ids, 8, &methods, Floor::of(4, 32)).unwrap();
        let kept = observed.cache.slots_in_sight();
        let mut live = observed.cut(&methods[0], &kept, None, 8).unwrap();
        let ids = text(12);
        let rows = ids.iter().map(|&id| {
            live.step(&model().decoder, id)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(
        bits("full+cache(f16)"),
        bits("full+leankv(fixed=true,prune=0,demote=0,high=k16v16,low=k8v8)")
    );
}
