//! The columns of an evaluation's tables, filled from the outcome of one prompt.

use super::case::Case;
use super::clusters::CLUSTER;
use super::comparison::FULL;
use super::sweep::{Outcome, Scores};
use crate::budget::CacheBudget;
use crate::method::Method;
use crate::table::{Column, Rows, Table};

/// The tables of one prompt, in the order of [`super::RESULT_TABLES`]; the last one where a method recalls.
pub fn outcome_tables(
    index: usize,
    case: &Case,
    outcome: &Outcome,
    methods: &[Method],
    budgets: &[CacheBudget],
) -> Vec<Table> {
    let (mut results, mut timings) = (Rows::default(), Rows::default());
    let mut residency = Rows::default();
    // Its columns are there even where no evidence was marked.
    let mut evidence = Rows::of_columns([
        ("prompt", Column::Count(Vec::new())),
        ("method", Column::Text(Vec::new())),
        ("budget", Column::Text(Vec::new())),
        ("layer", Column::Count(Vec::new())),
        ("evidence", Column::Number(Vec::new())),
    ]);
    let mut recall = Rows::of_columns([
        ("prompt", Column::Count(Vec::new())),
        ("method", Column::Text(Vec::new())),
        ("budget", Column::Text(Vec::new())),
        ("prompt_id", Column::Text(Vec::new())),
        ("step", Column::Count(Vec::new())),
        ("hit_rate", Column::Number(Vec::new())),
        ("returned", Column::Number(Vec::new())),
        ("recalled", Column::Number(Vec::new())),
        ("clustered", Column::Number(Vec::new())),
    ]);
    let cluster = (case.needle).map_or(format!("prompt {index}"), |seed| format!("needle {seed}"));
    for row in &outcome.rows {
        let method = &methods[row.method];
        let budget = (row.budget).map_or(FULL.to_owned(), |b| budgets[b].to_string());
        let keys = |rows: &mut Rows| {
            rows.count("prompt", index);
            rows.text("method", &method.name);
            rows.text("budget", &budget);
        };
        keys(&mut results);
        results.text("prompt_id", &case.id);
        results.text(CLUSTER, &cluster);
        results.count("tokens", case.ids.len());
        let [strategy, scorer, split] = axes(method);
        results.text("strategy", &strategy);
        results.text("scorer", &scorer);
        results.text("split", &split);
        let scores = row.scores.as_ref();
        let number = |of: fn(&Scores) -> f64| scores.map_or(f64::NAN, of);
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

        for (layer, share) in scores.map_or(&[][..], |s| &s.evidence).iter().enumerate() {
            keys(&mut evidence);
            evidence.count("layer", layer);
            evidence.number("evidence", *share);
        }

        keys(&mut timings);
        timings.number("prefill_s", outcome.prefill_s);
        timings.number("cut_s", row.cut_s);
        timings.count("decode_steps", row.decode_steps);
        timings.number("decode_s", row.decode_s);

        keys(&mut residency);
        residency.text("residency", &method.residency_name);
        residency.text("cache", &row.cache);
        residency.number("mean_rows", row.held.mean());
        let counted = |number: usize| match row.held.steps {
            0 => f64::NAN,
            _ => number as f64,
        };
        residency.number("peak_rows", counted(row.held.peak));
        residency.number("resident_bytes", number(|s| s.kv_bytes as f64));
        residency.number("peak_bytes", counted(row.held.peak_resident));
        residency.number("offloaded_bytes", number(|s| s.offloaded_bytes as f64));

        for (step, measured) in row.recall.iter().enumerate() {
            keys(&mut recall);
            recall.text("prompt_id", &case.id);
            recall.count("step", step);
            recall.number("hit_rate", measured.hit_rate);
            recall.number("returned", measured.returned);
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
