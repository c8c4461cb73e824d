//! The per-layer table that ends `kvprof profile`.

use std::io::{self, Write};

use kvprof::profile::{Profile, threshold_name};
use serde_json::{Map, Value};

/// Widest bar, in characters.
const BAR: usize = 24;

/// Means over prompts, one row per layer.
pub struct Summary {
    threshold: f64,
    columns: Vec<SummaryColumn>,
}

struct SummaryColumn {
    /// Column of `layers.parquet`.
    name: String,
    heading: String,
    share: bool,
    /// One per layer.
    means: Vec<f64>,
}

impl Summary {
    /// LMBA at 0.9, its share of T, LMBO at 0.9, 0.99 and 0.999, or the thresholds nearest to them.
    pub fn of(profile: &Profile) -> anyhow::Result<Self> {
        let meta = &profile.meta;
        let tau = nearest(&meta.thresholds, 0.9);
        let lmba = format!("lmba_pooled_{}", threshold_name(tau));
        let mut wanted = vec![
            (lmba.clone(), format!("LMBA({tau})"), false),
            (format!("{lmba}_of_t"), "of T".to_owned(), true),
        ];
        for threshold in [0.9, 0.99, 0.999] {
            let tau = nearest(&meta.output_thresholds, threshold);
            let name = format!("lmbo_pooled_{}_first", threshold_name(tau));
            if wanted.iter().all(|(known, ..)| *known != name) {
                wanted.push((name, format!("LMBO({tau})"), false));
            }
        }
        let columns = wanted
            .into_iter()
            .map(|(name, heading, share)| {
                let means = means_over_prompts(&profile.layer_grid(&name)?, meta.num_layers);
                Ok(SummaryColumn {
                    name,
                    heading,
                    share,
                    means,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            threshold: tau,
            columns,
        })
    }

    /// The retained-mass threshold that is shown.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// One object per layer, with the names of `layers.parquet`.
    pub fn to_json(&self) -> Vec<Map<String, Value>> {
        let layers = self.columns.first().map_or(0, |c| c.means.len());
        (0..layers)
            .map(|l| {
                let values = self
                    .columns
                    .iter()
                    .map(|c| (c.name.clone(), c.means[l].into()));
                [("layer".to_owned(), l.into())]
                    .into_iter()
                    .chain(values)
                    .collect()
            })
            .collect()
    }

    /// The table, with a bar as long as the first column's values.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(first) = self.columns.first() else {
            return Ok(());
        };
        let most = first
            .means
            .iter()
            .copied()
            .fold(f64::MIN_POSITIVE, f64::max);
        write!(out, "layer")?;
        for column in &self.columns {
            write!(out, "  {:>width$}", column.heading, width = column.width())?;
        }
        writeln!(out)?;
        for (l, bar) in first.means.iter().enumerate() {
            write!(out, "{l:>5}")?;
            for column in &self.columns {
                let text = match column.share {
                    true => format!("{:.1} %", 100.0 * column.means[l]),
                    false => format!("{:.1}", column.means[l]),
                };
                write!(out, "  {text:>width$}", width = column.width())?;
            }
            let filled = (bar / most * BAR as f64).round() as usize;
            writeln!(out, "  {}", "█".repeat(filled.max(1)))?;
        }
        Ok(())
    }
}

impl SummaryColumn {
    fn width(&self) -> usize {
        self.heading.len().max(7)
    }
}

fn means_over_prompts(grid: &[Vec<f64>], layers: usize) -> Vec<f64> {
    let prompts = grid.len().max(1) as f64;
    (0..layers)
        .map(|l| grid.iter().filter_map(|p| p.get(l)).sum::<f64>() / prompts)
        .collect()
}

/// The threshold of `list` that is closest to `wanted`.
pub fn nearest(list: &[f64], wanted: f64) -> f64 {
    let distance = |t: &f64| (t - wanted).abs();
    list.iter()
        .copied()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(wanted)
}
