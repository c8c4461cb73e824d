//! Every named method with every residency decodes on every family, within its budget.

use kvprof::budget::{Budget, Floor};
use kvprof::eval::{Case, QuerySource, Sweep};
use kvprof::method::{METHODS, Method, RESIDENCIES, observe};
use kvprof::model::Model;
use kvprof::registry;
use serde_json::Value;

use crate::caches::{bounded, cuts_to_target};
use crate::family_models::{each, prompt};
use crate::{FLOOR, T, window};

/// The most rows of a KV head while decoding.
const BOUND: usize = 14;

/// Tokens of every KV head after the cut.
const BUDGET: usize = 12;

/// Methods that are tried with every residency.
const WITH_RESIDENCIES: [&str; 3] = ["full", "ada-kv", "zigzag"];

/// Parameters of recall for prompts as short as these.
const RECALL: &str = "sinks=2,tokens_per_cluster=4,every=3,new=2,full_layers=1";

fn methods() -> Vec<Method> {
    let parsed = METHODS.iter().map(|m| (m, Method::parse(m.name).unwrap()));
    // Two levels of precision have no bound of rows: see the tests of levels.
    let of_rows = parsed.filter(|(_, method)| method.residency.holds_as().is_none());
    // Contexts as short as these have no room to read a prompt again behind a request to do so.
    let of_rows = of_rows.filter(|(_, method)| !method.reads_again(FLOOR.window));
    let named = of_rows.map(|(m, method)| {
        if method.residency.recalls() {
            format!("full+{}({RECALL})", method.residency_name)
        } else {
            m.name.to_owned()
        }
    });
    let mut names: Vec<String> = named.collect();
    for residency in RESIDENCIES.iter().filter(|rule| rule.name != "keep") {
        let rule = registry::build("residency", RESIDENCIES, residency.name, Value::Null).unwrap();
        if rule.holds_as().is_some() {
            continue;
        }
        let parameters = if rule.recalls() {
            format!("budget={BOUND},{RECALL}")
        } else {
            let every = if rule.has_own_floor() { 2 } else { 1 };
            let bound = bounded(residency.name, BOUND, every);
            let fields = bound.as_object().unwrap().iter();
            let fields: Vec<String> = fields
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            fields.join(",")
        };
        let name = |method| format!("{method}+{}({parameters})", residency.name);
        names.extend(WITH_RESIDENCIES.map(name));
    }
    Method::parse_list(&names.join(",")).unwrap()
}

fn case() -> Case {
    Case {
        id: "tiny".into(),
        ids: prompt(T),
        answers: vec!["a".into(), "b".into()],
        question_tokens: 0,
        wants_all: false,
        answer_ids: vec![vec![3, 5, 7], vec![200, 11]],
        evidence: vec![0, 1, T as u32 - 1],
        length: None,
        depth: None,
        needle: None,
    }
}

fn span(model: &Model, layer: usize) -> usize {
    model.decoder.config().span(layer, T)
}

#[test]
fn a_sweep_serves_every_method_within_its_budget() {
    let methods = methods();
    each(|name, model| {
        let sweep = Sweep {
            model,
            methods: &methods,
            budgets: &[Budget::TokensPerHead(BUDGET as f64).into()],
            sinks: FLOOR.sinks,
            window: FLOOR.window,
            whole_windows: false,
            max_new_tokens: 8,
            observed_from: QuerySource::Context,
        };
        let outcome = sweep.run(&case(), &mut || ()).unwrap();
        let config = model.decoder.config();
        let layers = 0..config.num_hidden_layers();
        let cells = layers.len() * config.num_key_value_heads;
        let row = config.head_dim * 2 * 4;
        let spans: usize = layers.clone().map(|l| span(model, l)).sum();
        let full = spans * config.num_key_value_heads * row;
        assert_eq!(outcome.full_bytes, full, "{name}");
        for trial in &outcome.rows {
            let method = &methods[trial.method];
            let what = format!("{name}, {}", method.name);
            let scores = trial.scores.as_ref();
            let scores = scores.unwrap_or_else(|why| panic!("{what}: {why}"));
            assert!(scores.kl.is_finite() && scores.nll.is_finite(), "{what}");
            let is_kept = method.residency_name == "keep";
            match (&method.cut, is_kept) {
                (Some(_), true) => {
                    assert_eq!(scores.budget_tokens, BUDGET as f64, "{what}");
                    assert_eq!(scores.kv_bytes, BUDGET * cells * row, "{what}");
                }
                (None, true) => {
                    let mean = spans as f64 / layers.len() as f64;
                    assert_eq!(scores.budget_tokens, mean, "{what}");
                    assert_eq!((scores.kv_bytes, scores.kl), (full, 0.0), "{what}");
                    // The last of the prompt is seen by every layer, the first by those without a window.
                    for (l, share) in scores.evidence.iter().enumerate() {
                        let want = if window(model, l).is_some() {
                            1.0 / 3.0
                        } else {
                            1.0
                        };
                        assert_eq!(*share, want, "{what}");
                    }
                }
                _ if method.residency.recalls() => {
                    let chooses = |l: usize| l > 0 && window(model, l).is_none();
                    let any = layers.clone().any(chooses);
                    assert_eq!(scores.offloaded_bytes > 0, any, "{what}");
                    assert_eq!(trial.recall.len(), trial.held.steps, "{what}");
                    // What was generated comes on top of the bound until it is clustered.
                    let most = layers.clone().map(|l| {
                        let all = window(model, l).unwrap_or(T + 8);
                        if chooses(l) { BOUND + 3 } else { all }
                    });
                    assert!(
                        trial.held.peak <= most.max().unwrap(),
                        "{what}: {:?}",
                        trial.held
                    );
                }
                _ if cuts_to_target(&method.residency_name) => {
                    // The first cut comes with the first step; until then the prompt is as it was left.
                    assert!(trial.held.peak <= T + 1, "{what}: {:?}", trial.held);
                    assert!(trial.held.mean() < T as f64, "{what}: {:?}", trial.held);
                    assert!(scores.kv_bytes <= full, "{what}");
                }
                _ => {
                    assert!(trial.recall.is_empty(), "{what}");
                    assert!(trial.held.peak <= BOUND, "{what}: {:?}", trial.held);
                    assert!(scores.kv_bytes < BOUND * cells * row, "{what}");
                }
            }
        }
    });
}

#[test]
fn windows_that_are_kept_whole_are_no_part_of_the_budget() {
    let methods = methods();
    let floor = Floor {
        whole_windows: true,
        ..FLOOR
    };
    each(|name, model| {
        let windows = (0..model.decoder.config().num_hidden_layers()).map(|l| window(model, l));
        if model.decoder.config().windows().is_empty() {
            return;
        }
        let all_windowed = windows.clone().all(|window| window.is_some());
        let observed = observe(model, &prompt(T), 8, &methods, floor).unwrap();
        for method in methods.iter().filter(|method| method.cut.is_some()) {
            let cut = method.cut.as_ref().unwrap();
            if cut.ranking.name == "oracle" {
                continue; // It looks at an answer that is not there.
            }
            let what = format!("{name}, {}", method.name);
            let kept = observed.kept(method, Some(Budget::TokensPerHead(BUDGET as f64).into()));
            if all_windowed {
                let said = kept.unwrap_err().to_string();
                assert!(
                    said.contains("none is left for the budget"),
                    "{what}: {said}"
                );
                continue;
            }
            let kept = kept.unwrap();
            let (mut spent, mut heads) = (0, 0);
            for (l, (layer, window)) in kept.iter().zip(windows.clone()).enumerate() {
                if window.is_some() {
                    let whole = layer.iter().all(|slots| slots.len() == span(model, l));
                    assert!(whole, "{what}: layer {l}");
                } else {
                    spent += layer.iter().map(Vec::len).sum::<usize>();
                    heads += layer.len();
                }
            }
            assert_eq!(spent, BUDGET * heads, "{what}");
            let mut live = observed
                .cut(
                    method,
                    &kept,
                    Some(Budget::TokensPerHead(BUDGET as f64).into()),
                    8,
                )
                .unwrap();
            for id in [3, 5, 7, 11, 13] {
                live.step(&model.decoder, id).unwrap();
            }
            for (l, heads) in live.cache().lengths().iter().enumerate() {
                let window = window(model, l);
                let most = window.unwrap_or(BOUND.max(BUDGET + 5) + T);
                assert!(heads.iter().all(|rows| *rows <= most), "{what}: layer {l}");
            }
        }
    });
}
