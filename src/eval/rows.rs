//! The columns of an evaluation's tables, filled from the outcome of one prompt.

use super::case::Case;
use super::clusters::CLUSTER;
use super::comparison::FULL;
use super::outcome::{Outcome, Scores, Trial};
use crate::budget::CacheBudget;
use crate::method::Method;
use crate::table::{Column, Rows, Table};

/// One prompt of a run, as its tables name it.
#[derive(Clone, Copy, Debug)]
pub struct PromptPlace {
    /// Its number in the run.
    pub index: usize,
    /// Number of the first prompt that asks about the same context, where several are put to one cut.
    pub first_of_context: usize,
}

/// The tables of one prompt, in the order of [`super::RESULT_TABLES`]; the last one where a method recalls.
pub fn outcome_tables(
    place: PromptPlace,
    case: &Case,
    outcome: &Outcome,
    methods: &[Method],
    budgets: &[CacheBudget],
) -> Vec<Table> {
    let [mut results, mut timings, mut residency] = [(); 3].map(|()| Rows::default());
    let (mut evidence, mut recall) = (evidence_columns(), recall_columns());
    for trial in &outcome.rows {
        let method = &methods[trial.method];
        let budget = (trial.budget).map_or(FULL.to_owned(), |b| budgets[b].to_string());
        let keys = |rows: &mut Rows| {
            rows.count("prompt", place.index);
            rows.text("method", &method.name);
            rows.text("budget", &budget);
        };
        keys(&mut results);
        about_prompt(&mut results, place, case);
        let [strategy, scorer, split] = axes(method);
        results.text("strategy", &strategy);
        results.text("scorer", &scorer);
        results.text("split", &split);
        results_of(&mut results, case, trial, outcome);
        for (layer, share) in evidence_shares(trial).iter().enumerate() {
            keys(&mut evidence);
            evidence.count("layer", layer);
            evidence.number("evidence", *share);
        }
        keys(&mut timings);
        timings.number("prefill_s", outcome.prefill_s + trial.replay_s);
        timings.number("cut_s", trial.cut_s);
        timings.count("decode_steps", trial.decode_steps);
        timings.number("decode_s", trial.decode_s);
        keys(&mut residency);
        residency.text("residency", &method.residency_name);
        residency_of(&mut residency, trial);
        for (step, measured) in trial.recall.iter().enumerate() {
            keys(&mut recall);
            recall.text("prompt_id", &case.id);
            recall.count("step", step);
            recall.number("hit_rate", measured.hit_rate);
            recall.number("returned", measured.returned.unwrap_or(f64::NAN));
            recall.number("recalled", measured.recalled);
            recall.number("clustered", measured.clustered);
        }
    }
    let mut tables = vec![results, evidence, timings, residency];
    if methods.iter().any(|method| method.residency.recalls()) {
        tables.push(recall);
    }
    tables.into_iter().map(Rows::finish).collect()
}

/// Its columns are there even where no evidence was marked.
fn evidence_columns() -> Rows {
    Rows::of_columns([
        ("prompt", Column::Count(Vec::new())),
        ("method", Column::Text(Vec::new())),
        ("budget", Column::Text(Vec::new())),
        ("layer", Column::Count(Vec::new())),
        ("evidence", Column::Number(Vec::new())),
    ])
}

/// Its columns are there even where no step brought anything back.
fn recall_columns() -> Rows {
    Rows::of_columns([
        ("prompt", Column::Count(Vec::new())),
        ("method", Column::Text(Vec::new())),
        ("budget", Column::Text(Vec::new())),
        ("prompt_id", Column::Text(Vec::new())),
        ("step", Column::Count(Vec::new())),
        ("hit_rate", Column::Number(Vec::new())),
        ("returned", Column::Number(Vec::new())),
        ("recalled", Column::Number(Vec::new())),
        ("clustered", Column::Number(Vec::new())),
    ])
}

fn about_prompt(results: &mut Rows, place: PromptPlace, case: &Case) {
    let of_context = || format!("prompt {}", place.first_of_context);
    let cluster = (case.needle).map_or_else(of_context, |seed| format!("needle {seed}"));
    results.text("prompt_id", &case.id);
    results.text(CLUSTER, &cluster);
    results.count("tokens", case.ids.len());
    if case.question_tokens > 0 {
        results.count("question_tokens", case.question_tokens);
    }
}

/// What is NaN could not be tried, or does not apply.
fn number(trial: &Trial, of: fn(&Scores) -> f64) -> f64 {
    trial.scores.as_ref().map_or(f64::NAN, of)
}

fn evidence_shares(trial: &Trial) -> &[f64] {
    trial.scores.as_ref().map_or(&[], |s| &s.evidence)
}

fn results_of(results: &mut Rows, case: &Case, trial: &Trial, outcome: &Outcome) {
    let scores = trial.scores.as_ref();
    let number = |of| number(trial, of);
    results.number("budget_tokens", number(|s| s.budget_tokens));
    results.number("kv_bytes", number(|s| s.kv_bytes as f64));
    results.number("full_bytes", outcome.full_bytes as f64);
    results.number("f1", number(|s| s.f1));
    results.number("em", number(|s| s.em));
    results.number("contains", number(|s| s.contains));
    results.number("nll", number(|s| s.nll));
    results.number("kl", number(|s| s.kl));
    results.number("top1", number(|s| s.top1));
    // The sum of no layers divided by none is NaN: no evidence was marked.
    let mean = |s: &Scores| s.evidence.iter().sum::<f64>() / s.evidence.len() as f64;
    results.number("evidence", number(mean));
    results.number("length", case.length.unwrap_or(f64::NAN));
    results.number("depth", case.depth.unwrap_or(f64::NAN));
    results.text("answer", scores.map_or("", |s| &s.answer));
    results.text("error", scores.err().map_or("", |problem| problem));
}

fn residency_of(residency: &mut Rows, trial: &Trial) {
    let counted = |number: usize| match trial.held.steps {
        0 => f64::NAN,
        _ => number as f64,
    };
    residency.text("cache", &trial.cache);
    residency.number("mean_rows", trial.held.mean());
    residency.number("peak_rows", counted(trial.held.peak));
    let resident = number(trial, |s| s.kv_bytes as f64);
    residency.number("resident_bytes", resident);
    residency.number("peak_bytes", counted(trial.held.peak_resident));
    let offloaded = number(trial, |s| s.offloaded_bytes as f64);
    residency.number("offloaded_bytes", offloaded);
    let left = trial.held.left.filter(|_| trial.held.steps > 0);
    residency.number("left_rows", left.map_or(f64::NAN, |rows| rows as f64));
}

/// Strategy, scorer and split; [`FULL`] where nothing is cut.
fn axes(method: &Method) -> [String; 3] {
    match &method.cut {
        None => [FULL; 3].map(str::to_owned),
        Some(cut) => [
            cut.allocation.strategy().to_owned(),
            cut.ranking.name.clone(),
            cut.ranking.split.to_string(),
        ],
    }
}
