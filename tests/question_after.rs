//! Questions that come after the cut: the full cache answers as ever, and one cut serves them all.
#![allow(clippy::unwrap_used)]

mod real_model;

use std::path::Path;

use kvprof::budget::{Budget, CacheBudget};
use kvprof::dataset::{Kind, Protocol, Record, Template, read_jsonl};
use kvprof::eval::{Case, Outcome, QuerySource, Reader, Scores, Sweep, Trial, contexts};
use kvprof::method::Method;
use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::registry;
use kvprof::select::{SCORERS, ScoringProbe};
use real_model::model;
use serde_json::json;

/// Two contexts, the first with two questions.
fn records() -> Vec<Record> {
    let story = |name: &str, place: &str| {
        let filler = "The harbour is quiet and the boats lie still in the morning. ".repeat(3);
        format!(
            "{filler}{name} keeps the lamp of {place}. {filler}The ferry to {place} leaves at nine.\n"
        )
    };
    let lines = [
        (
            "a1",
            story("Orla", "Tavi"),
            "Who keeps the lamp of Tavi?",
            "Orla",
        ),
        (
            "a2",
            story("Orla", "Tavi"),
            "When does the ferry to Tavi leave?",
            "at nine",
        ),
        (
            "b1",
            story("Mirrow", "Senn"),
            "Who keeps the lamp of Senn?",
            "Mirrow",
        ),
    ];
    let lines = lines.map(|(id, context, input, answer)| {
        let end = context.find(" the lamp of").unwrap();
        let start = context[..end].rfind(". ").unwrap() + 2;
        serde_json::json!({
            "_id": id, "context": context, "input": input, "answers": [answer],
            "evidence": [[start, end]],
        })
        .to_string()
    });
    let lines = lines.join("\n");
    let data = read_jsonl(Path::new("lamps.jsonl"), lines.as_bytes());
    data.unwrap().records
}

fn cases(protocol: Protocol, raw: bool, limit: Option<usize>) -> Vec<Case> {
    let model = model();
    let reader = Reader {
        tokenizer: &model.tokenizer,
        chat: model.chat.as_ref().filter(|_| !raw),
        config: model.decoder.config(),
    };
    let template = Template::default_for(Kind::LongBench);
    let records = records();
    let cases = records
        .iter()
        .map(|r| Case::of(r, &template, &reader, limit, protocol));
    cases.collect::<Result<_, _>>().unwrap()
}

fn sweep<'a>(methods: &'a [Method], budgets: &'a [CacheBudget]) -> Sweep<'a> {
    Sweep {
        model: model(),
        methods,
        budgets,
        sinks: 4,
        window: 16,
        whole_windows: false,
        max_new_tokens: 8,
        observed_from: QuerySource::Context,
    }
}

fn alone(sweep: &Sweep<'_>, case: &Case) -> Outcome {
    sweep.run(case, &mut || ()).unwrap()
}

#[test]
fn the_context_ends_before_the_first_token_of_what_follows() {
    let model = model();
    for raw in [false, true] {
        for (known, after) in cases(Protocol::QuestionKnown, raw, None).iter().zip(cases(
            Protocol::QuestionAfter,
            raw,
            None,
        )) {
            assert_eq!((known.question_tokens, &known.ids), (0, &after.ids));
            let [context, rest] =
                [after.context(), after.question()].map(|ids| model.tokenizer.decode(ids).unwrap());
            // "." and the line's end may be one token, which then belongs to what follows.
            assert!(context.trim_end().ends_with("leaves at nine."), "{context}");
            assert!(rest.contains("That was the text.") && rest.contains("Question:"));
            assert!(!context.contains("That was"), "{context}");
            assert_eq!(known.evidence, after.evidence);
            assert!(!after.evidence.is_empty());
        }
    }
    let shared = contexts(&cases(Protocol::QuestionAfter, false, None), true);
    assert_eq!(shared, [vec![0, 1], vec![2]]);
    // What is cut in the middle is the context; the question stays whole.
    let cut = cases(Protocol::QuestionAfter, false, Some(150)).remove(0);
    assert!(cut.ids.len() <= 150);
    let rest = model.tokenizer.decode(cut.question()).unwrap();
    assert!(rest.contains("Who keeps the lamp of Tavi?"));
}

#[test]
fn a_prompt_without_an_end_of_its_context_is_refused_with_the_way_out() {
    let model = model();
    let reader = Reader {
        tokenizer: &model.tokenizer,
        chat: model.chat.as_ref(),
        config: model.decoder.config(),
    };
    let refused = |line: &str, limit: Option<usize>| {
        let data = read_jsonl(Path::new("plain.jsonl"), line.as_bytes()).unwrap();
        let template = Template::default_for(data.kind);
        let record = &data.records[0];
        let after = Protocol::QuestionAfter;
        let problem = Case::of(record, &template, &reader, limit, after).unwrap_err();
        assert!(Case::of(record, &template, &reader, limit, Protocol::QuestionKnown).is_ok());
        problem.to_string()
    };
    let problem = refused(r#"{"prompt": "Tell me of ferries."}"#, None);
    assert!(problem.contains("context_end"), "{problem}");
    let problem = refused(r#"{"ids": [1, 2, 3]}"#, None);
    assert!(problem.contains("context_tokens"), "{problem}");
    let long = "word ".repeat(300);
    let line = format!(r#"{{"input": "Why?", "context": "{long}", "answers": ["x"]}}"#);
    let problem = refused(&line, Some(60));
    assert!(problem.contains("--max-prompt-tokens"), "{problem}");
}

#[test]
fn the_full_cache_answers_the_same_under_both_protocols() {
    let methods = Method::parse_list("full,snapkv").unwrap();
    let budgets = ["100%".parse().unwrap()];
    let sweep = sweep(&methods, &budgets);
    let known = cases(Protocol::QuestionKnown, false, None);
    let after = cases(Protocol::QuestionAfter, false, None);
    for (known, after) in known.iter().zip(&after) {
        let [known, after] = [known, after].map(|case| alone(&sweep, case).rows);
        let of = |trial: &Trial| trial.scores.clone().unwrap();
        let (full, other) = (of(&known[0]), of(&after[0]));
        assert_eq!(full.answer, other.answer);
        // Sums over keys come in other runs; float32 rounding is all that may differ.
        assert!(
            (full.nll - other.nll).abs() < 1e-4,
            "{} {}",
            full.nll,
            other.nll
        );
        // A cut that keeps every token is the full cache to the bit.
        let whole = of(&after[1]);
        assert_eq!((whole.kl, whole.top1), (0.0, 1.0));
        assert_eq!((whole.answer, whole.nll), (other.answer, other.nll));
    }
}

#[test]
fn one_cut_serves_every_question_as_a_cut_of_its_own() {
    let list = "full,snapkv,snapkv+evict-h2o(budget=64),full+cache(q8_0),snapkv+cache(q4),clusterkv,leankv";
    let methods = Method::parse_list(list).unwrap();
    let budgets = [Budget::TokensPerHead(64.0).into()];
    let sweep = sweep(&methods, &budgets);
    let cases = cases(Protocol::QuestionAfter, false, None);
    let both = sweep.run_together(&[&cases[0], &cases[1]], &mut || ());
    let both = both.unwrap();
    for (together, case) in both.iter().zip(&cases) {
        let alone = alone(&sweep, case);
        assert_eq!(together.rows.len(), sweep.configurations().len());
        for (one, other) in together.rows.iter().zip(&alone.rows) {
            let name = &methods[one.method].name;
            let (one_scores, other_scores) = (one.scores.as_ref(), other.scores.as_ref());
            let (a, b) = (one_scores.unwrap(), other_scores.unwrap());
            assert_eq!(a, b, "{name}, {}", case.id);
            assert_eq!(one.held, other.held, "{name}");
            assert_eq!(one.recall, other.recall, "{name}");
        }
    }
    let problem = sweep.run_together(&[&cases[0], &cases[2]], &mut || ());
    assert!(
        problem
            .unwrap_err()
            .to_string()
            .contains("several contexts")
    );
}

#[test]
fn the_first_token_of_an_answer_is_the_cut_caches_own() {
    // No cut can change what is said first where the question was prefilled with its context.
    let methods = Method::parse_list("full,streaming").unwrap();
    let budgets = [Budget::TokensPerHead(20.0).into()];
    let sweep = Sweep {
        max_new_tokens: 1,
        ..sweep(&methods, &budgets)
    };
    for after in cases(Protocol::QuestionAfter, false, None) {
        // An answer of one token is as likely as the first token is.
        let after = Case {
            answer_ids: vec![vec![after.answer_ids[0][0]]],
            ..after
        };
        let known = Case {
            question_tokens: 0,
            ..after.clone()
        };
        let of = |case: &Case| {
            let rows = alone(&sweep, case).rows;
            let scores = rows.into_iter().map(|trial| trial.scores.unwrap());
            scores.collect::<Vec<_>>()
        };
        let (known, after) = (of(&known), of(&after));
        assert_eq!(known[0].nll, known[1].nll);
        assert_eq!(known[0].answer, known[1].answer);
        assert!((known[0].nll - after[0].nll).abs() < 1e-4);
        assert!((after[0].nll - after[1].nll).abs() > 1e-3);
        assert!(after[1].kl > 0.0);
        assert_eq!(after[1].budget_tokens, 20.0);
    }
}

#[test]
fn a_question_behind_the_context_is_looked_from_as_a_window_would() {
    let model = model();
    let case = cases(Protocol::QuestionAfter, false, None).remove(0);
    let (context, question) = (case.context(), case.question());
    let none = json!({"pooling": "none"});
    for (scorer, window) in [
        ("snapkv", question.len()),
        ("snapkv", 5),
        ("tova", 1),
        ("cake", 7),
    ] {
        let parameters = if scorer == "snapkv" {
            none.clone()
        } else {
            json!({})
        };
        let scorer = registry::build("scorer", SCORERS, scorer, parameters).unwrap();
        // Selection's own window is what a scorer takes for its number of rows.
        let scorers = || vec![(&*scorer, window)];
        let mut whole = ScoringProbe::new(scorers());
        let decoder = &model.decoder;
        let mut cache = decoder.new_cache(case.ids.len()).unwrap();
        let prefilled = decoder.prefill(&case.ids, &mut cache, PREFILL_RUN, &mut whole);
        prefilled.unwrap();
        let mut behind = ScoringProbe::behind(context.len(), scorers());
        let mut cache = decoder.new_cache(case.ids.len()).unwrap();
        let prefilled = decoder.prefill(context, &mut cache, PREFILL_RUN, &mut NoProbe);
        prefilled.unwrap();
        let fed = decoder.continue_with(question, &mut cache, &mut behind);
        fed.unwrap();
        let (whole, behind) = (whole.finish().remove(0), behind.finish().remove(0));
        assert_eq!(whole.len(), behind.len());
        // What pooling spreads, and what stays anyway, is at the end of both.
        let compared = context.len() - window - 8;
        for (whole, behind) in whole.iter().zip(&behind) {
            for (a, b) in whole
                .to_rows()
                .unwrap()
                .iter()
                .zip(behind.to_rows().unwrap())
            {
                assert_eq!(b.len(), context.len());
                let off = a.iter().zip(&b).take(compared).map(|(a, b)| (a - b).abs());
                let largest = a.iter().fold(0.0, |most: f64, a| most.max(a.abs()));
                let off = off.fold(0.0, f64::max);
                assert!(
                    off <= 1e-4 * largest.max(1e-3),
                    "{scorer:?}, window {window}: {off}"
                );
            }
        }
    }
}

#[test]
fn scorers_may_look_from_another_question_or_from_the_one_to_come() {
    let methods = Method::parse_list("full,snapkv,knorm").unwrap();
    let budgets = [Budget::TokensPerHead(40.0).into()];
    let ids = model().tokenizer.encode("\n\nWho keeps the lamp?").unwrap();
    let dummy = QuerySource::Dummy {
        text: "Who keeps the lamp?".into(),
        ids,
    };
    let cases = cases(Protocol::QuestionAfter, false, None);
    let of = |observed_from: &QuerySource| {
        let sweep = Sweep {
            observed_from: observed_from.clone(),
            ..sweep(&methods, &budgets)
        };
        let rows = alone(&sweep, &cases[0]).rows;
        rows.into_iter()
            .map(|trial| trial.scores.unwrap())
            .collect::<Vec<_>>()
    };
    let (context, dummy) = (of(&QuerySource::Context), of(&dummy));
    let question = of(&QuerySource::Question);
    // The full cache and what looks from nowhere are as they were; snapkv keeps other tokens.
    for other in [&dummy, &question] {
        assert_eq!(other[0], context[0]);
        assert_eq!(other[2], context[2]);
        assert_ne!(other[1].kl, context[1].kl);
    }
    assert_ne!(dummy[1].kl, question[1].kl);
    // Rows of the very question hold its evidence at least as well as those of the context's end.
    let held = |scores: &Scores| scores.evidence.iter().sum::<f64>();
    assert!(held(&question[1]) >= held(&context[1]));
    let sweep = Sweep {
        observed_from: QuerySource::Question,
        ..sweep(&methods, &budgets)
    };
    assert!(!sweep.serves_questions_together());
}
