//! Two profiles of the same prompts beside each other: which budgets moved, and how far.

use serde::Serialize;

use super::store::{Profile, ProfileRecord};
use crate::error::{Error, Result};
use crate::table::Table;

/// How one column of two profiles differs, row by row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnDifference {
    /// Table that it stands in.
    pub table: &'static str,
    /// Its name.
    pub column: String,
    /// Rows compared: heads, KV heads or layers of all prompts.
    pub rows: usize,
    /// Rows in which both are the same number.
    pub equal: usize,
    /// Mean of the first profile.
    pub mean: f64,
    /// Mean of the second less that of the first.
    pub difference: f64,
    /// Mean of the absolute differences.
    pub mean_absolute: f64,
    /// The largest absolute difference.
    pub largest: f64,
}

/// Compares MBA and shares of mass of all heads, and LMBA and LMBO of all layers.
///
/// Differs: maxima over heads and shares of T are left out, since they follow from the others.
/// Errors: [`Error::Invalid`] for profiles of other prompts, geometries, windows or thresholds.
pub fn compare(first: &Profile, second: &Profile) -> Result<Vec<ColumnDifference>> {
    comparable(first, second)?;
    let mut differences = Vec::new();
    for (name, first, second) in [
        ("heads", &first.heads, &second.heads),
        ("kv_heads", &first.kv_heads, &second.kv_heads),
        ("layers", &first.layers, &second.layers),
    ] {
        let measured = first.names().filter(|column| is_measured(column));
        for column in measured {
            differences.push(ColumnDifference::of(name, column, first, second)?);
        }
    }
    Ok(differences)
}

fn is_measured(column: &str) -> bool {
    let starts = ["mba_", "lmba_", "lmbo_"];
    let whole = ["entropy", "sink_mass", "window_mass"];
    let derived = column.ends_with("_max") || column.ends_with("_of_t");
    (starts.iter().any(|s| column.starts_with(s)) || whole.contains(&column)) && !derived
}

/// What two records must have in common, in words.
fn facts(record: &ProfileRecord) -> [(&'static str, String); 5] {
    let (model, measures) = (&record.model, &record.settings.measures);
    let geometry = format!(
        "{} layers of {} heads of {} in {} groups",
        model.num_layers, model.num_heads, model.head_dim, model.num_kv_heads
    );
    let window = measures.window.map_or("all".to_owned(), |w| w.to_string());
    [
        ("prompts", record.data.prompts_sha256.clone()),
        ("geometry", geometry),
        ("window", window),
        ("thresholds", format!("{:?}", measures.thresholds)),
        (
            "output thresholds",
            format!("{:?}", measures.output_thresholds),
        ),
    ]
}

fn comparable(first: &Profile, second: &Profile) -> Result<()> {
    let mut pairs = facts(&first.meta).into_iter().zip(facts(&second.meta));
    match pairs.find(|(first, second)| first != second) {
        None => Ok(()),
        Some(((what, first), (_, second))) => {
            let bound = format!("the first has {first}; profile the same prompts in the same way");
            let second = format!("{what} {second}");
            Err(Error::invalid("the second profile's", second, bound))
        }
    }
}

impl ColumnDifference {
    fn of(table: &'static str, column: &str, first: &Table, second: &Table) -> Result<Self> {
        let (a, b) = (first.numbers(column)?, second.numbers(column)?);
        if a.len() != b.len() {
            let bound = format!("the first has {}", a.len());
            return Err(Error::invalid("rows of the second profile", b.len(), bound));
        }
        let rows = a.len();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / rows.max(1) as f64;
        let distances: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (b - a).abs()).collect();
        Ok(Self {
            table,
            column: column.to_owned(),
            rows,
            equal: distances.iter().filter(|d| **d == 0.0).count(),
            mean: mean(&a),
            difference: mean(&b) - mean(&a),
            mean_absolute: mean(&distances),
            largest: distances.iter().copied().fold(0.0, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    fn table(values: &[f64]) -> Table {
        let mut table = Table::default();
        table.push("lmba_last_90", Column::Number(values.to_vec()));
        table
    }

    #[test]
    fn differences_by_hand() {
        let (first, second) = (table(&[4.0, 10.0, 1.0]), table(&[5.0, 10.0, 3.0]));
        let found = ColumnDifference::of("layers", "lmba_last_90", &first, &second).unwrap();
        assert_eq!((found.rows, found.equal), (3, 1));
        assert_eq!((found.mean, found.difference), (5.0, 1.0));
        assert_eq!((found.mean_absolute, found.largest), (1.0, 2.0));
        let short = table(&[1.0]);
        assert!(ColumnDifference::of("layers", "lmba_last_90", &first, &short).is_err());
    }

    #[test]
    fn only_what_was_measured_is_compared() {
        for column in ["mba_rows_90", "lmbo_last_raw_99_first", "entropy"] {
            assert!(is_measured(column), "{column}");
        }
        for column in ["prompt", "tokens", "lmba_last_90_max", "lmba_last_90_of_t"] {
            assert!(!is_measured(column), "{column}");
        }
    }
}
