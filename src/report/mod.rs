//! An evaluation as one HTML page that needs nothing else: tables, charts, and what was run.

mod cells;
mod charts;

#[cfg(test)]
mod tests;

use std::path::Path;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::{EvalRecord, Results, Row};
use cells::SortableTable;

/// The page, with a place for everything that is measured.
const TEMPLATE: &str = include_str!("page.html");

/// Everything that the template names.
#[derive(Serialize)]
struct Content<'r> {
    meta: &'r EvalRecord,
    methods: usize,
    version: &'static str,
    command: &'r str,
    tables: Vec<SortableTable>,
    charts: Vec<charts::CaptionedChart>,
    absent: Vec<String>,
    costs: Option<SortableTable>,
    failures: Option<SortableTable>,
}

/// The page of `results`, with their comparison with `baseline`; `command` is the command line that asks
/// for it.
///
/// Equal input gives equal bytes. The page loads nothing: style, script and charts are inside it.
///
/// Errors: as [`crate::plot::draw`] for a broken evaluation; what it merely lacks is left out and named.
pub fn page(results: &Results, rows: &[Row], baseline: &str, command: &str) -> Result<String> {
    let (drawn, absent) = charts::charts(results, command)?;
    let mut environment = Environment::new();
    let broken = |problem: minijinja::Error| {
        Error::format(
            Path::new("report.html"),
            format!("cannot be filled in: {problem:#}"),
        )
    };
    // The ending makes minijinja escape everything that is filled in.
    environment
        .add_template("page.html", TEMPLATE)
        .map_err(broken)?;
    let template = environment.get_template("page.html").map_err(broken)?;
    let content = Content {
        meta: &results.meta,
        methods: results.meta.settings.methods.len(),
        version: env!("CARGO_PKG_VERSION"),
        command,
        tables: cells::tables(rows, baseline),
        charts: drawn,
        absent,
        costs: cells::costs(results)?,
        failures: cells::failures(results)?,
    };
    template.render(Serde(content)).map_err(broken)
}
