//! The table that ends `kvprof trace`: a line per method.

use std::io::Write;
use std::path::Path;

use kvprof::eval::trace::{Trace, TraceSummary, summarise};
use serde_json::json;

use super::long_run::RunArguments;
use super::text_table::{cell, text_table};
use super::{counted, quoted};

/// Prints what a finished trace says.
pub fn report(trace: &Trace, folder: &Path, run: &RunArguments) -> anyhow::Result<()> {
    let summaries = summarise(trace);
    let json = || json!({"trace": folder, "meta": trace.meta, "summary": summaries});
    run.show(json, |out| {
        let (settings, model) = (&trace.meta.settings, &trace.meta.model);
        let folder = quoted(&folder.to_string_lossy());
        writeln!(
            out,
            "{}\n\nMB are resident at the first step, at the last and at most; away: kept elsewhere, at most. ms/token is the \
             median over steps, last/first that of the last over that of the first. As full: tokens from the start on \
             which the text is the full cache's.\n{} behind a prompt of {}, {} in turns; {} in {} on {}\nWritten to \
             {folder}\nNext: kvprof plot residency --trace {folder}",
            table(&summaries),
            counted(settings.new_tokens, "new token"),
            counted(settings.prompt_tokens, "token"),
            counted(settings.repeats, "repeat"),
            model.name,
            model.dtype,
            model.device,
        )?;
        Ok(())
    })
}

fn table(summaries: &[TraceSummary]) -> String {
    let headings = "<method, budget, MB first, last, most, away, mean rows, peak rows, ms/token, last/first, as full";
    let mut table = text_table(headings.split(", "));
    let megabytes = |bytes: usize| format!("{:.2}", bytes as f64 / 1e6);
    for s in summaries {
        table.add_row([
            s.method.clone(),
            s.budget.clone(),
            megabytes(s.first_bytes),
            megabytes(s.last_bytes),
            megabytes(s.most_bytes),
            megabytes(s.most_offloaded_bytes),
            format!("{:.1}", s.mean_rows),
            s.peak_rows.to_string(),
            format!("{:.2}", s.ms_per_token),
            format!("{:.2} x", s.slowdown),
            cell(s.shared_tokens.map(|tokens| tokens as f64), 0),
        ]);
    }
    table.trim_fmt()
}
