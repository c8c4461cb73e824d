//! What recall brought back over the steps of an evaluation, in a line per method and budget.

use serde::Serialize;

use crate::error::Result;
use crate::table::Table;

/// What one method brought back at one budget, over the steps of all prompts.
///
/// Units: shares, means over steps; `None` where no step has a value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecallSummary {
    /// As in the tables.
    pub method: String,
    /// As in the tables.
    pub budget: String,
    /// Steps that were measured.
    pub steps: usize,
    /// Share of the tokens of largest attention that were recalled.
    pub hit_rate: Option<f64>,
    /// Share of KV heads at which a token came back.
    pub returned: Option<f64>,
    /// Share of steps at which one came back to any KV head.
    pub steps_with_return: Option<f64>,
}

impl RecallSummary {
    /// Of a table of recall, methods and budgets in the order of their first rows.
    ///
    /// Errors: [`crate::error::Error::UnknownName`] for a missing column.
    pub fn of(recall: &Table) -> Result<Vec<Self>> {
        let (methods, budgets) = (recall.texts("method")?, recall.texts("budget")?);
        let (hits, returned) = (recall.numbers("hit_rate")?, recall.numbers("returned")?);
        let mut runs: Vec<((&str, &str), Vec<usize>)> = Vec::new();
        for row in 0..recall.rows() {
            let key = (&*methods[row], &*budgets[row]);
            match runs.iter_mut().find(|(known, _)| *known == key) {
                Some((_, rows)) => rows.push(row),
                None => runs.push((key, vec![row])),
            }
        }
        let summary = |((method, budget), rows): ((&str, &str), Vec<usize>)| {
            let came_back = |row: &usize| f64::from(u8::from(returned[*row] > 0.0));
            let finite = || rows.iter().filter(|row| returned[**row].is_finite());
            Self {
                method: method.to_owned(),
                budget: budget.to_owned(),
                steps: rows.len(),
                hit_rate: mean(rows.iter().map(|&row| hits[row])),
                returned: mean(rows.iter().map(|&row| returned[row])),
                steps_with_return: mean(finite().map(came_back)),
            }
        };
        Ok(runs.into_iter().map(summary).collect())
    }
}

/// Mean of what is finite.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let finite: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    #[test]
    fn means_are_over_all_steps_that_have_a_value() {
        let text = |values: [&str; 5]| Column::Text(values.map(str::to_owned).to_vec());
        let mut table = Table::new();
        table.push("method", text(["clusterkv"; 5]));
        table.push("budget", text(["64", "64", "64", "32", "32"]));
        let nan = f64::NAN;
        table.push("hit_rate", Column::Number(vec![0.5, 1.0, nan, nan, nan]));
        table.push("returned", Column::Number(vec![0.0, 0.25, 0.5, nan, nan]));
        let found = RecallSummary::of(&table).unwrap();
        assert_eq!((found.len(), &*found[1].budget), (2, "32"));
        assert_eq!((found[0].steps, found[0].hit_rate), (3, Some(0.75)));
        assert_eq!(found[0].returned, Some(0.25));
        assert_eq!(found[0].steps_with_return, Some(2.0 / 3.0));
        assert_eq!(
            (found[1].hit_rate, found[1].steps_with_return),
            (None, None)
        );
    }
}
