//! Plans as text: one with bars, or several side by side.

use std::io::{self, Write};

use kvprof::budget::{BudgetPlan, Granularity, Prediction};

use super::plan_report::{Line, Predicted, layers};

/// Widest bar, in characters.
const BAR: usize = 24;

/// One plan: its layers with bars, and what is predicted of it.
pub fn write_plan(out: &mut impl Write, line: &Line<'_>, prompts: &str) -> io::Result<()> {
    let plan = line.plan;
    let cells = plan.geometry.cells();
    let total = total(plan);
    writeln!(
        out,
        "{} by {} for {}: {:.1} of {} tokens per KV head ({:.1} %), {total} in {} layers of {} KV heads",
        plan.strategy,
        plan.granularity.name(),
        plan.geometry.model,
        total as f64 / cells as f64,
        plan.reference_tokens,
        100.0 * total as f64 / (cells * plan.reference_tokens) as f64,
        plan.geometry.layers,
        plan.geometry.kv_heads,
    )?;
    writeln!(
        out,
        "every KV head keeps at least {} tokens; sinks {} and window {} among them",
        plan.floor, plan.sinks, plan.window
    )?;
    if total == cells * plan.reference_tokens {
        writeln!(out, "the budget holds the whole prompt: nothing is evicted")?;
    }
    writeln!(out)?;
    write_layers(out, plan)?;
    match &line.predicted {
        Some(predicted) => write_predicted(out, predicted, &plan.strategy, prompts),
        None => Ok(()),
    }
}

fn total(plan: &BudgetPlan) -> usize {
    plan.tokens.iter().flatten().sum()
}

fn write_layers(out: &mut impl Write, plan: &BudgetPlan) -> io::Result<()> {
    let by_head = plan.granularity == Granularity::Head;
    let range = |least: String, most: String| match by_head {
        true => format!("  {least:>5}  {most:>5}"),
        false => String::new(),
    };
    let heading = range("min".into(), "max".into());
    writeln!(out, "layer   tokens{heading}  of total")?;
    let layers = layers(plan);
    let widest = layers.iter().map(|l| l.mean).fold(1.0, f64::max);
    for (l, layer) in layers.iter().enumerate() {
        let filled = (layer.mean / widest * BAR as f64).round() as usize;
        writeln!(
            out,
            "{l:>5}  {:>7.1}{}  {:>6.1} %  {}",
            layer.mean,
            range(layer.least.to_string(), layer.most.to_string()),
            100.0 * layer.share,
            "█".repeat(filled)
        )?;
    }
    Ok(())
}

fn write_predicted(
    out: &mut impl Write,
    predicted: &Predicted,
    strategy: &str,
    prompts: &str,
) -> io::Result<()> {
    let query = predicted.query.name();
    writeln!(
        out,
        "\nPredicted by the profile's curves ({query}, {prompts}):"
    )?;
    let width = strategy.len().max("uniform".len());
    writeln!(
        out,
        "{:width$}  retained mass  1 - cos of the output  relative L2",
        ""
    )?;
    let mut row = |name: &str, p: &Prediction| {
        writeln!(
            out,
            "{name:width$}  {:>13}  {:>21}  {:>11}",
            mass(p),
            cosine_loss(p),
            relative_l2(p)
        )
    };
    row(strategy, &predicted.plan)?;
    if strategy != "uniform" {
        row("uniform", &predicted.uniform)?;
    }
    match predicted.plan.mean_cosine_loss() {
        Some(_) => Ok(()),
        None => writeln!(out, "- {UNKNOWN}"),
    }
}

/// Why there is no output error of a plan by head.
const UNKNOWN: &str = "outputs were measured with equal KV heads in a layer";

fn mass(prediction: &Prediction) -> String {
    format!("{:.2} %", 100.0 * prediction.mean_mass())
}

fn cosine_loss(prediction: &Prediction) -> String {
    number(prediction.mean_cosine_loss())
}

fn relative_l2(prediction: &Prediction) -> String {
    number(prediction.mean_relative_l2())
}

fn number(loss: Option<f64>) -> String {
    loss.map_or("-".to_owned(), |loss| format!("{loss:.5}"))
}

/// Several plans of one strategy and model: a column per budget.
pub fn write_comparison(out: &mut impl Write, lines: &[Line<'_>], prompts: &str) -> io::Result<()> {
    let Some(first) = lines.first() else {
        return Ok(());
    };
    let plan = first.plan;
    writeln!(
        out,
        "{} by {} for {}: tokens per KV head of {}, {} layers of {} KV heads, sinks {}, window {}\n",
        plan.strategy,
        plan.granularity.name(),
        plan.geometry.model,
        plan.reference_tokens,
        plan.geometry.layers,
        plan.geometry.kv_heads,
        plan.sinks,
        plan.window,
    )?;
    row(out, "layer", lines, |line| line.plan.budget.to_string())?;
    let means: Vec<Vec<f64>> = lines
        .iter()
        .map(|line| layers(line.plan).iter().map(|layer| layer.mean).collect())
        .collect();
    for l in 0..plan.tokens.len() {
        write!(out, "{l:>LABEL$}")?;
        for mean in &means {
            write!(out, "  {:>COLUMN$.1}", mean[l])?;
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    row(out, "tokens in all", lines, |line| {
        total(line.plan).to_string()
    })?;
    row(out, "floor", lines, |line| line.plan.floor.to_string())?;
    if plan.granularity == Granularity::Head {
        let heads = |line: &Line<'_>| line.plan.tokens.concat();
        row(out, "least head", lines, |line| {
            of_heads(&heads(line), false)
        })?;
        row(out, "most head", lines, |line| of_heads(&heads(line), true))?;
    }
    let Some(predicted) = &first.predicted else {
        return Ok(());
    };
    let query = predicted.query.name();
    writeln!(
        out,
        "\nPredicted by the profile's curves ({query}, {prompts}):"
    )?;
    let measures: [(&str, InWords); 3] = [
        ("retained mass", mass),
        ("1 - cos", cosine_loss),
        ("relative L2", relative_l2),
    ];
    for (name, text) in measures {
        let told = |line: &Line<'_>, of: fn(&Predicted) -> &Prediction| {
            let predicted = line.predicted.as_ref();
            predicted.map_or("-".to_owned(), |p| text(of(p)))
        };
        row(out, name, lines, |line| told(line, |p| &p.plan))?;
        if plan.strategy != "uniform" {
            row(out, "(uniform)", lines, |line| told(line, |p| &p.uniform))?;
        }
    }
    match predicted.plan.mean_cosine_loss() {
        Some(_) => Ok(()),
        None => writeln!(out, "- {UNKNOWN}"),
    }
}

/// One measure of a prediction.
type InWords = fn(&Prediction) -> String;

/// The smallest or the largest budget of a head.
fn of_heads(heads: &[usize], most: bool) -> String {
    let found = match most {
        true => heads.iter().max(),
        false => heads.iter().min(),
    };
    found.map_or("-".to_owned(), ToString::to_string)
}

/// Widths of a comparison's labels and columns.
const LABEL: usize = 13;
const COLUMN: usize = 8;

fn row(
    out: &mut impl Write,
    label: &str,
    lines: &[Line<'_>],
    text: impl Fn(&Line<'_>) -> String,
) -> io::Result<()> {
    write!(out, "{label:>LABEL$}")?;
    for line in lines {
        write!(out, "  {:>COLUMN$}", text(line))?;
    }
    writeln!(out)
}
