//! The per-layer table that ends `kvprof profile`.

use kvprof::profile::{Profile, threshold_name};
use serde_json::{Map, Value};

use super::text_table::{bar, text_table};

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
        let measures = &meta.settings.measures;
        let tau = nearest(&measures.thresholds, 0.9);
        let lmba = format!("lmba_pooled_{}", threshold_name(tau));
        let mut wanted = vec![
            (lmba.clone(), format!("LMBA({tau})"), false),
            (format!("{lmba}_of_t"), "of T".to_owned(), true),
        ];
        for threshold in [0.9, 0.99, 0.999] {
            let tau = nearest(&measures.output_thresholds, threshold);
            let name = format!("lmbo_pooled_{}_first", threshold_name(tau));
            if wanted.iter().all(|(known, ..)| *known != name) {
                wanted.push((name, format!("LMBO({tau})"), false));
            }
        }
        let mut columns = Vec::new();
        for (name, heading, share) in wanted {
            columns.push(SummaryColumn {
                means: means_over_prompts(&profile.layer_grid(&name)?, meta.model.num_layers),
                name,
                heading,
                share,
            });
        }
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
        let object = |l: usize| {
            let values = self.columns.iter();
            let values = values.map(|c| (c.name.clone(), c.means[l].into()));
            let layer = [("layer".to_owned(), l.into())];
            layer.into_iter().chain(values).collect()
        };
        (0..layers).map(object).collect()
    }

    /// The table, with a bar as long as the first column's values.
    pub fn table(&self) -> String {
        let headings = self.columns.iter().map(|c| c.heading.as_str());
        let mut table = text_table(["layer"].into_iter().chain(headings).chain(["<"]));
        let first = self.columns.first().map_or(&[][..], |c| &c.means);
        let most = first.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (l, &mean) in first.iter().enumerate() {
            let cells = self.columns.iter().map(|c| {
                if c.share {
                    format!("{:.1} %", 100.0 * c.means[l])
                } else {
                    format!("{:.1}", c.means[l])
                }
            });
            let bar = bar(mean.max(most / BAR as f64), most, BAR);
            table.add_row([l.to_string()].into_iter().chain(cells).chain([bar]));
        }
        table.trim_fmt()
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
