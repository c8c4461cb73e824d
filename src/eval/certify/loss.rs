//! What a prompt loses under a method, against its own full cache.

use crate::error::{Error, Result};
use crate::eval::answer::f1;
use crate::table::Table;

/// What a prompt loses at a budget: 0 is nothing, more is worse.
///
/// What one prompt gains does not make up for what another loses: a gain counts as no loss.
///
/// Paper: none: house definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Unit: "share", "nats", "nats per token".
    pub unit: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The column, which measures a distance from the full cache already.
    Distance,
    /// How much higher the column is than the full cache's.
    Rise,
    /// How much lower the column is than the full cache's.
    Fall,
    /// How unlike the answer is to the full cache's.
    Unlike,
}

const fn loss(name: &'static str, unit: &'static str, kind: Kind, about: &'static str) -> Loss {
    Loss {
        name,
        about,
        unit,
        kind,
    }
}

/// Every loss that a budget can be certified for.
#[rustfmt::skip]
pub const LOSSES: &[Loss] = &[
    loss("kl", "nats", Kind::Distance, "mean KL divergence of the next token, full cache to cut cache"),
    loss("nll", "nats per token", Kind::Rise, "by how much the gold answer's negative log-likelihood is above the full cache's"),
    loss("answer", "share", Kind::Unlike, "1 - token F1 of the answer against the full cache's own answer; 0 for the same text"),
    loss("f1", "share", Kind::Fall, "by how much token F1 is below the full cache's"),
    loss("em", "share", Kind::Fall, "by how much exact match is below the full cache's"),
    loss("contains", "share", Kind::Fall, "by how much the share of gold answers contained is below the full cache's"),
];

/// What losses without a bound of their own are clipped at, unless it is said otherwise, in their unit.
pub const CLIP: f64 = 2.0;

impl Loss {
    /// The loss called `name`.
    ///
    /// Errors: [`Error::UnknownName`], listing the losses there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        let found = LOSSES.iter().find(|loss| loss.name == name);
        found.ok_or_else(|| Error::unknown("loss", name, LOSSES.iter().map(|loss| loss.name)))
    }

    /// The largest that it can be; none where it has no bound.
    pub fn most(&self) -> Option<f64> {
        (self.unit == "share").then_some(1.0)
    }

    /// Whether the full cache's own row is read.
    pub(super) fn reads_full(&self) -> bool {
        self.kind != Kind::Distance
    }

    /// The columns of a results table that it reads.
    pub(super) fn columns<'t>(&self, table: &'t Table) -> Result<LossColumns<'t>> {
        Ok(match self.kind {
            Kind::Unlike => LossColumns::Answers(table.texts("answer")?),
            kind => LossColumns::Values(kind, table.numbers(self.name)?),
        })
    }
}

/// What a loss is worked out from.
pub(super) enum LossColumns<'t> {
    Values(Kind, Vec<f64>),
    Answers(&'t [String]),
}

impl LossColumns<'_> {
    /// The loss of a row whose prompt has the full cache's row `full`; NaN where it is not defined.
    pub(super) fn of(&self, row: usize, full: Option<usize>) -> f64 {
        let lost = match self {
            Self::Answers(answers) => match full {
                Some(full) if answers[row] == answers[full] => 0.0,
                Some(full) => 1.0 - f1(&answers[row], &[&answers[full]]),
                None => f64::NAN,
            },
            Self::Values(kind, values) => {
                let full = full.map_or(f64::NAN, |full| values[full]);
                match kind {
                    Kind::Rise => values[row] - full,
                    Kind::Fall => full - values[row],
                    _ => values[row],
                }
            }
        };
        // `max` would take NaN for nothing lost.
        if lost < 0.0 { 0.0 } else { lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    #[test]
    fn losses_by_hand() {
        let mut table = Table::new();
        // The full cache, then three cut ones.
        let answers = ["The red house", "a house", "the red house", "Tavi"];
        table.push("answer", Column::Text(answers.map(str::to_owned).to_vec()));
        table.push("kl", Column::Number(vec![0.0, 0.5, -1e-9, f64::NAN]));
        table.push("nll", Column::Number(vec![2.0, 3.5, 1.0, f64::NAN]));
        table.push("f1", Column::Number(vec![0.5, 0.25, 1.0, f64::NAN]));
        let of = |name: &str| {
            let columns = Loss::find(name).unwrap().columns(&table).unwrap();
            [1, 2, 3].map(|row| columns.of(row, Some(0)))
        };
        assert_eq!(of("kl")[..2], [0.5, 0.0]);
        assert_eq!(of("nll")[..2], [1.5, 0.0]);
        assert_eq!(of("f1")[..2], [0.25, 0.0]);
        for name in ["kl", "nll", "f1"] {
            assert!(of(name)[2].is_nan(), "{name}");
        }
        // One token of one and two: F1 2/3. Texts that differ in what is normalised away lose nothing.
        let [less, same, other] = of("answer");
        assert!((less - 1.0 / 3.0).abs() < 1e-15 && same == 0.0 && other == 1.0);
    }

    #[test]
    fn an_answer_that_normalises_to_nothing_equals_itself() {
        let mut table = Table::new();
        let answers = ["A", "A", "The"].map(str::to_owned).to_vec();
        table.push("answer", Column::Text(answers));
        let columns = Loss::find("answer").unwrap().columns(&table).unwrap();
        assert_eq!((columns.of(1, Some(0)), columns.of(2, Some(0))), (0.0, 1.0));
    }

    #[test]
    fn losses_are_found_by_name_and_shares_are_bounded() {
        assert_eq!(Loss::find("kl").unwrap().most(), None);
        assert_eq!(Loss::find("answer").unwrap().most(), Some(1.0));
        let said = Loss::find("loss").unwrap_err().to_string();
        assert!(said.contains("kl, nll, answer"), "{said}");
    }
}
