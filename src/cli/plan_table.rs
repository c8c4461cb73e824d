//! Plans as text: one with bars, or several side by side.

use std::io::{self, Write};

use kvprof::budget::{BudgetPlan, Granularity, Prediction};
use kvprof::model::cache::Representation;

use super::counted;
use super::plan_report::{PlanLine, Predicted, layers};
use super::text_table::{bar, cell, text_table};

/// Widest bar, in characters.
const BAR: usize = 24;

/// A predicted number as the table shows it.
type InWords = fn(&Prediction) -> String;

/// What is predicted of a plan, by name.
const MEASURES: [(&str, InWords); 3] = [
    ("retained mass", |p| {
        format!("{:.2} %", 100.0 * p.mean_mass())
    }),
    ("1 - cos of the output", |p| cell(p.mean_cosine_loss(), 5)),
    ("relative L2", |p| cell(p.mean_relative_l2(), 5)),
];

/// One plan: its layers with bars, and what is predicted of it.
pub fn write_plan(out: &mut impl Write, line: &PlanLine<'_>, prompts: &str) -> io::Result<()> {
    let plan = line.plan;
    let (cells, most) = plan.parts();
    let total = plan.spent();
    writeln!(
        out,
        "{} by {} for {}: {:.1} of {} tokens per KV head ({:.1} %), {total} in {}\n\
         every KV head keeps at least {} tokens; sinks {} and window {} among them",
        plan.strategy,
        plan.granularity.name(),
        plan.geometry.model,
        total as f64 / cells as f64,
        plan.reference_tokens,
        100.0 * total as f64 / most as f64,
        layers_in_words(plan),
        plan.floor,
        plan.sinks,
        plan.window
    )?;
    if !plan.held_as.is_empty() {
        let bytes: usize = plan.layer_bytes(Representation::FLOAT32).iter().sum();
        writeln!(out, "keys and values of all layers take {bytes} bytes")?;
    }
    if total == most {
        writeln!(out, "the budget holds the whole prompt: nothing is evicted")?;
    }
    if let Some(certificate) = &plan.provenance.certificate {
        writeln!(
            out,
            "\nCertified. {}\n{}",
            certificate.statement, certificate.assumes
        )?;
    }
    writeln!(out, "\n{}", layer_table(plan))?;
    let Some(predicted) = &line.predicted else {
        return Ok(());
    };
    let headings = MEASURES.iter().map(|(name, _)| *name);
    let mut table = text_table(["<"].into_iter().chain(headings));
    let mut row = |name: &str, p: &Prediction| {
        let measures = MEASURES.iter().map(|(_, text)| text(p));
        table.add_row([name.to_owned()].into_iter().chain(measures));
    };
    row(&plan.strategy, &predicted.plan);
    if let Some(uniform) = predicted
        .uniform
        .as_ref()
        .filter(|_| plan.strategy != "uniform")
    {
        row("uniform", uniform);
    }
    write_predictions(out, predicted, prompts, &table.trim_fmt())?;
    if plan.held_as.is_empty() {
        return Ok(());
    }
    match predicted.with_types {
        Some(error) => writeln!(
            out,
            "- relative L2 with what the types cost: {error:.5} (squares of both errors added)"
        )?,
        None => writeln!(out, "- what the types cost is not among these numbers")?,
    }
    if plan.strategy != "uniform" {
        writeln!(out, "- uniform: the same bytes in f32")?;
    }
    Ok(())
}

/// How many layers take part, and what the others do.
fn layers_in_words(plan: &BudgetPlan) -> String {
    let geometry = &plan.geometry;
    let (layers, kv_heads) = (geometry.layers, geometry.kv_heads);
    let parts = (0..layers).filter(|&l| plan.takes_part(l)).count();
    let all = format!(
        "{} of {}",
        counted(parts, "layer"),
        counted(kv_heads, "KV head")
    );
    match geometry.windows_in_words() {
        None => all,
        Some(windows) if parts == layers => format!("{all}, {windows}"),
        Some(windows) => format!("{all}; of {layers} layers {windows}, which is kept whole"),
    }
}

/// A layer's number, with its window where it has one.
fn layer_name(plan: &BudgetPlan, layer: usize) -> String {
    match plan.geometry.windows.get(layer).copied().flatten() {
        Some(window) if plan.takes_part(layer) => format!("{layer} (of {window})"),
        Some(window) => format!("{layer} (of {window}, whole)"),
        None => layer.to_string(),
    }
}

/// Tokens of every layer with a bar; by head also the least and the most of its KV heads.
fn layer_table(plan: &BudgetPlan) -> String {
    let by_head = plan.granularity == Granularity::Head;
    let range = if by_head { &["min", "max"][..] } else { &[] };
    let layers = layers(plan);
    let held = layers.iter().any(|layer| layer.held.is_some());
    let types = if held {
        &["<held in", "bytes"][..]
    } else {
        &[]
    };
    let headings = ["layer", "tokens"].iter().chain(range).chain(types);
    let mut table = text_table(headings.chain(&["of total", "<"]));
    let widest = layers.iter().map(|l| l.mean).fold(1.0, f64::max);
    for (l, layer) in layers.iter().enumerate() {
        let range = [layer.least, layer.most].map(|tokens| tokens.to_string());
        let range = range.into_iter().filter(|_| by_head);
        let cells = [layer_name(plan, l), format!("{:.1}", layer.mean)];
        let share = if plan.takes_part(l) {
            format!("{:.1} %", 100.0 * layer.share)
        } else {
            "-".to_owned()
        };
        let types = layer.held.iter();
        let types = types.flat_map(|(held_as, bytes)| [held_as.clone(), bytes.to_string()]);
        let rest = [share, bar(layer.mean, widest, BAR)];
        table.add_row(cells.into_iter().chain(range).chain(types).chain(rest));
    }
    table.trim_fmt()
}

/// Rows of predictions under what they are made from, with the reason where one is missing.
fn write_predictions(
    out: &mut impl Write,
    predicted: &Predicted,
    prompts: &str,
    rows: &str,
) -> io::Result<()> {
    let query = predicted.query.name();
    writeln!(
        out,
        "\nPredicted by the profile's curves ({query}, {prompts}):\n{rows}"
    )?;
    if predicted.plan.mean_cosine_loss().is_none() {
        writeln!(
            out,
            "- outputs were measured with equal KV heads in a layer"
        )?;
    }
    Ok(())
}

/// Several plans of one strategy and model: a column per budget.
pub fn write_comparison(
    out: &mut impl Write,
    lines: &[PlanLine<'_>],
    prompts: &str,
) -> io::Result<()> {
    let Some(first) = lines.first() else {
        return Ok(());
    };
    let plan = first.plan;
    writeln!(
        out,
        "{} by {} for {}: tokens per KV head of {}, {}, sinks {}, window {}\n",
        plan.strategy,
        plan.granularity.name(),
        plan.geometry.model,
        plan.reference_tokens,
        layers_in_words(plan),
        plan.sinks,
        plan.window,
    )?;
    let budgets = lines.iter().map(|line| line.plan.budget.to_string());
    let mut table = text_table(["layer".to_owned()].into_iter().chain(budgets));
    let mut row = |label: &str, text: &dyn Fn(&PlanLine<'_>) -> String| {
        table.add_row([label.to_owned()].into_iter().chain(lines.iter().map(text)));
    };
    let count = plan.tokens.len();
    for l in 0..count {
        row(&layer_name(plan, l), &|line| {
            let layers = layers(line.plan);
            let tokens = cell(layers.get(l).map(|layer| layer.mean), 1);
            match layers.get(l).and_then(|layer| layer.held.as_ref()) {
                Some((held_as, _)) => format!("{tokens} {held_as}"),
                None => tokens,
            }
        });
    }
    row("tokens in all", &|line| line.plan.spent().to_string());
    let holds_types = lines.iter().any(|line| !line.plan.held_as.is_empty());
    if holds_types {
        row("bytes in all", &|line| {
            let bytes = line.plan.layer_bytes(Representation::FLOAT32);
            bytes.iter().sum::<usize>().to_string()
        });
    }
    row("floor", &|line| line.plan.floor.to_string());
    let by_head = plan.granularity == Granularity::Head;
    if by_head {
        let heads = |line: &PlanLine<'_>| line.plan.tokens.concat().into_iter();
        let known = |tokens: Option<usize>| tokens.map_or("-".to_owned(), |t| t.to_string());
        row("least head", &|line| known(heads(line).min()));
        row("most head", &|line| known(heads(line).max()));
    }
    for (name, text) in MEASURES.iter().filter(|_| first.predicted.is_some()) {
        let told = |predicted: Option<&Prediction>| predicted.map_or("-".to_owned(), text);
        let predicted = |line: &PlanLine<'_>| told(line.predicted.as_ref().map(|p| &p.plan));
        row(name, &predicted);
        if plan.strategy != "uniform" {
            row("(uniform)", &|line| {
                told(line.predicted.as_ref().and_then(|p| p.uniform.as_ref()))
            });
        }
    }
    if holds_types && first.predicted.is_some() {
        row("relative L2 with types", &|line| {
            let predicted = line.predicted.as_ref();
            cell(predicted.and_then(|p| p.with_types), 5)
        });
    }
    // One table, so that all columns stand below each other, in up to three pieces.
    let table: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    let (of_layers, rest) = table.split_at(1 + count);
    let sums = 2 + usize::from(holds_types) + if by_head { 2 } else { 0 };
    let (in_all, predictions) = rest.split_at(sums);
    writeln!(out, "{}\n\n{}", of_layers.join("\n"), in_all.join("\n"))?;
    match &first.predicted {
        Some(predicted) => write_predictions(out, predicted, prompts, &predictions.join("\n"))?,
        None => return Ok(()),
    }
    if holds_types && plan.strategy != "uniform" {
        writeln!(out, "- (uniform): the same bytes in f32")?;
    }
    Ok(())
}
