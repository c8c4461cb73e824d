//! The columns of an evaluation's tables, filled from the outcome of one prompt.

use super::case::Case;
use super::clusters::CLUSTER;
use super::comparison::FULL;
use super::sweep::{Outcome, Scores, Trial};
use crate::budget::Budget;
use crate::method::{Cut, Method};
use crate::table::{Column, Table};

/// The three tables of one prompt, in the order of [`super::RESULT_TABLES`].
pub fn outcome_tables(
    index: usize,
    case: &Case,
    outcome: &Outcome,
    methods: &[Method],
    budgets: &[Budget],
) -> [Table; 3] {
    let rows = &outcome.rows;
    let budget = |row: &Trial| {
        row.budget
            .map_or(FULL.to_owned(), |b| budgets[b].to_string())
    };
    let name = |row: &Trial| methods[row.method].name.clone();
    let mut results = keys(index, rows, &name, &budget);
    let text = |f: &dyn Fn(&Trial) -> String| Column::Text(rows.iter().map(f).collect());
    let repeated = |value: String| text(&|_| value.clone());
    let number = |f: &dyn Fn(&Scores) -> f64| {
        let of = |row: &Trial| row.scores.as_ref().map_or(f64::NAN, f);
        Column::Number(rows.iter().map(of).collect())
    };
    let axis = |f: fn(&Cut) -> String| {
        let of = |row: &Trial| methods[row.method].cut.as_ref().map_or(FULL.to_owned(), f);
        text(&of)
    };
    let tokens = vec![case.ids.len() as u32; rows.len()];
    results.push("prompt_id", repeated(case.id.clone()));
    let cluster = (case.needle).map_or(format!("prompt {index}"), |seed| format!("needle {seed}"));
    results.push(CLUSTER, repeated(cluster));
    results.push("tokens", Column::Count(tokens));
    results.push("strategy", axis(strategy));
    results.push("scorer", axis(scorer));
    results.push("split", axis(split));
    results.push("budget_tokens", number(&|s| s.budget_tokens));
    results.push("kv_bytes", number(&|s| s.kv_bytes as f64));
    results.push(
        "full_bytes",
        Column::Number(vec![outcome.full_bytes as f64; rows.len()]),
    );
    results.push("f1", number(&|s| s.f1));
    results.push("em", number(&|s| s.em));
    results.push("contains", number(&|s| s.contains));
    results.push("nll", number(&|s| s.nll));
    results.push("kl", number(&|s| s.kl));
    results.push("top1", number(&|s| s.top1));
    // The sum of no layers divided by none is NaN: no evidence was marked.
    results.push(
        "evidence",
        number(&|s| s.evidence.iter().sum::<f64>() / s.evidence.len() as f64),
    );
    let place = |value: Option<f64>| Column::Number(vec![value.unwrap_or(f64::NAN); rows.len()]);
    results.push("length", place(case.length));
    results.push("depth", place(case.depth));
    let answer = |row: &Trial| {
        row.scores
            .as_ref()
            .map_or(String::new(), |s| s.answer.clone())
    };
    let error = |row: &Trial| row.scores.as_ref().err().cloned().unwrap_or_default();
    results.push("answer", text(&answer));
    results.push("error", text(&error));

    let mut timings = keys(index, rows, &name, &budget);
    let seconds = |f: &dyn Fn(&Trial) -> f64| Column::Number(rows.iter().map(f).collect());
    timings.push("prefill_s", seconds(&|_| outcome.prefill_s));
    timings.push("cut_s", seconds(&|r| r.cut_s));
    let steps = rows.iter().map(|r| r.decode_steps as u32).collect();
    timings.push("decode_steps", Column::Count(steps));
    timings.push("decode_s", seconds(&|r| r.decode_s));
    [results, evidence_rows(index, rows, &name, &budget), timings]
}

fn keys(
    index: usize,
    rows: &[Trial],
    name: &dyn Fn(&Trial) -> String,
    budget: &dyn Fn(&Trial) -> String,
) -> Table {
    let mut table = Table::default();
    table.push("prompt", Column::Count(vec![index as u32; rows.len()]));
    table.push("method", Column::Text(rows.iter().map(name).collect()));
    table.push("budget", Column::Text(rows.iter().map(budget).collect()));
    table
}

fn evidence_rows(
    index: usize,
    rows: &[Trial],
    name: &dyn Fn(&Trial) -> String,
    budget: &dyn Fn(&Trial) -> String,
) -> Table {
    let (mut methods, mut budgets) = (Vec::new(), Vec::new());
    let (mut layers, mut shares) = (Vec::new(), Vec::new());
    for row in rows {
        let kept = row.scores.as_ref().map_or(&[][..], |s| &s.evidence);
        for (layer, share) in kept.iter().enumerate() {
            methods.push(name(row));
            budgets.push(budget(row));
            layers.push(layer as u32);
            shares.push(*share);
        }
    }
    let mut table = Table::default();
    table.push("prompt", Column::Count(vec![index as u32; layers.len()]));
    table.push("method", Column::Text(methods));
    table.push("budget", Column::Text(budgets));
    table.push("layer", Column::Count(layers));
    table.push("evidence", Column::Number(shares));
    table
}

fn strategy(cut: &Cut) -> String {
    cut.allocation.strategy().to_owned()
}

fn scorer(cut: &Cut) -> String {
    cut.ranking.name.clone()
}

fn split(cut: &Cut) -> String {
    cut.ranking.split.to_string()
}
