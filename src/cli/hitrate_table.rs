//! The per-layer table that ends `kvprof hitrate`.

use std::io::Write;
use std::path::Path;

use kvprof::eval::hit_rate::{HitRates, LayerRates, Observation, WindowRates};
use serde_json::{Value, json};

use super::long_run::RunArguments;
use super::text_table::{cell, text_table};
use super::{counted, quoted};

/// Most windows of one observation that the table shows.
const SHOWN: usize = 5;

/// Prints the hit rates of a finished run.
pub fn report(rates: &HitRates, folder: &Path, run: &RunArguments) -> anyhow::Result<()> {
    let prompt = rates.rates(Observation::Prompt)?;
    let generated = rates.rates(Observation::Generated)?;
    let (answers, meta) = (rates.answer_tokens()?, &rates.meta);
    let windows = |of: &[WindowRates]| of.iter().map(window_json).collect::<Vec<_>>();
    let json = || {
        json!({
            "hitrate": folder, "meta": meta, "answer_tokens": answers,
            "prompt": windows(&prompt), "generated": windows(&generated),
        })
    };
    run.show(json, |out| {
        let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "{}\n\nPer cent, over {} of {}; counted are steps with an important key. Tokens before the first stop id: \
             {} of {}, written on past it\nWritten to {}\nNext: kvprof plot hitrate --hitrate {}",
            table(&columns(&prompt, &generated), meta.model.num_layers),
            counted(meta.data.prompts, "prompt"),
            meta.data.name,
            answers.join(", "),
            meta.settings.options.generated_tokens(),
            folder.display(),
            quoted(&folder.to_string_lossy())
        )?;
        Ok(())
    })
}

/// One list per measure, a value per layer; `null` where no step has an important key.
fn window_json(window: &WindowRates) -> Value {
    let of = |rates: &LayerRates| json!({"hit_rate": rates.hit_rate, "counted": rates.counted});
    json!({
        "all": of(&window.all), "beyond_sinks": of(&window.beyond_sinks), "overlap": window.overlap,
    })
}

/// A column of the table: two lines of heading, and a value per layer.
struct TableColumn<'r> {
    group: &'static str,
    name: String,
    values: &'r [f64],
    /// How much each layer counts in the mean, where that is not the same.
    weights: Option<&'r [f64]>,
}

impl<'r> TableColumn<'r> {
    fn plain(group: &'static str, name: impl ToString, values: &'r [f64]) -> Self {
        Self {
            group,
            name: name.to_string(),
            values,
            weights: None,
        }
    }

    /// The steps that the rates of a window stand on.
    fn counted(rates: &'r LayerRates) -> Self {
        Self::plain("counted", "steps", &rates.counted)
    }

    fn rates(group: &'static str, name: impl ToString, rates: &'r LayerRates) -> Self {
        Self {
            weights: Some(&rates.counted),
            ..Self::plain(group, name, &rates.hit_rate)
        }
    }

    /// Mean over layers; a hit rate's over counted steps, so that a layer with few of them weighs little.
    fn mean(&self) -> f64 {
        let counted = |l: usize| self.weights.map_or(1.0, |w| w[l]);
        let layers = self.values.iter().enumerate();
        let layers = layers.filter(|(_, v)| v.is_finite());
        let sum: f64 = layers.clone().map(|(l, v)| v * counted(l)).sum();
        sum / layers.map(|(l, _)| counted(l)).sum::<f64>()
    }
}

/// Some of the prompt's windows, numbered as in the table on disk, then the generated ones.
fn columns<'r>(prompt: &'r [WindowRates], generated: &'r [WindowRates]) -> Vec<TableColumn<'r>> {
    let hits = |w: usize| TableColumn::rates("hit rate of window", w, &prompt[w].all);
    let beyond = |w: usize| TableColumn::rates("beyond sinks", w, &prompt[w].beyond_sinks);
    let later = |w: usize| TableColumn::rates("last one in generated", w, &generated[w].all);
    let shared =
        |w: usize| TableColumn::plain("last one's vote shared by", w, &generated[w].overlap);
    let mut columns: Vec<TableColumn<'_>> = spread(prompt.len()).map(hits).collect();
    if let Some(last) = prompt.last() {
        columns.push(TableColumn::counted(&last.all));
        columns.extend([0, prompt.len() - 1].map(beyond));
        columns.push(TableColumn::counted(&last.beyond_sinks));
    }
    columns.extend(spread(generated.len()).map(later));
    columns.extend(spread(generated.len()).map(shared));
    columns
}

/// First, last, and some between.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let shown = count.min(SHOWN);
    (0..shown).map(move |i| i * count.saturating_sub(1) / shown.saturating_sub(1).max(1))
}

fn table(columns: &[TableColumn<'_>], layers: usize) -> String {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for column in columns {
        match groups.last_mut() {
            Some((name, count)) if *name == column.group => *count += 1,
            _ => groups.push((column.group, 1)),
        }
    }
    let mut table = text_table([""].into_iter().chain(groups.iter().map(|(name, _)| *name)));
    // Every value takes six places of its group.
    let mut row = |name: String, cell: &dyn Fn(&TableColumn<'_>) -> String| {
        let mut cells = columns.iter().map(|column| format!("{:>6}", cell(column)));
        let groups = groups.iter();
        let groups = groups.map(|(_, count)| cells.by_ref().take(*count).collect());
        table.add_row([name].into_iter().chain(groups));
    };
    row("layer".to_owned(), &|column| column.name.clone());
    for layer in 0..layers {
        let value = |column: &TableColumn<'_>| column.values.get(layer).copied();
        row(layer.to_string(), &|column| {
            percent(value(column).unwrap_or(f64::NAN))
        });
    }
    row("mean".to_owned(), &|column| percent(column.mean()));
    table.trim_fmt()
}

fn percent(share: f64) -> String {
    cell(share.is_finite().then_some(100.0 * share), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_windows_are_always_shown() {
        let shown = |count| spread(count).collect::<Vec<_>>();
        assert_eq!(shown(20), [0, 4, 9, 14, 19]);
        assert_eq!(shown(4), [0, 1, 2, 3]);
        assert_eq!(shown(1), [0]);
        assert_eq!(shown(0), [0usize; 0]);
    }

    #[test]
    fn layers_count_in_the_mean_as_often_as_they_have_steps() {
        let rates = LayerRates {
            hit_rate: vec![0.5, f64::NAN, 1.0],
            counted: vec![0.3, 0.0, 0.1],
        };
        let column = TableColumn::rates("", 1, &rates);
        assert!((column.mean() - 0.625).abs() < 1e-15);
        let plain = TableColumn::plain("", 1, &rates.hit_rate);
        assert_eq!(plain.mean(), 0.75);
        assert_eq!(percent(f64::NAN), "-");
        assert_eq!(percent(0.123), "12.3");
    }
}
