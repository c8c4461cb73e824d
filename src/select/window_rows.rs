//! The last rows of a layer's attention, each by itself.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::attention::AttentionView;

/// Rows of the last queries of every head, as far as one scorer asked for them.
///
/// Shapes: `(H_q, rows, T)`, float32; rows sum to 1 and are zero for keys that their query does not see.
#[derive(Clone, Copy, Debug)]
pub struct WindowRows<'a> {
    values: &'a [f32],
    tokens: usize,
    held: usize,
    rows: usize,
    /// Position of the query behind the last row.
    end: usize,
}

impl<'a> WindowRows<'a> {
    /// The last `rows` of the `held` ones that lie in `values` for each head.
    ///
    /// Shapes: values `(H_q, held, tokens)`; `rows` at most `held`.
    pub fn new(values: &'a [f32], held: usize, tokens: usize, rows: usize) -> Self {
        Self {
            values,
            tokens,
            held,
            rows: rows.min(held),
            end: tokens,
        }
    }

    /// The same of queries that stand behind the tokens that the rows are of, the last of them before `end`.
    #[must_use]
    pub fn ending_at(self, end: usize) -> Self {
        Self { end, ..self }
    }

    /// How many rows there are of each head.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of a query head, the earliest first.
    pub fn of_head(&self, query_head: usize) -> impl DoubleEndedIterator<Item = &'a [f32]> {
        let own = (query_head * self.held + self.held - self.rows) * self.tokens;
        let rows = self.values[own..][..self.rows * self.tokens].chunks(self.tokens.max(1));
        rows.take(self.rows)
    }

    /// The position of every row's query.
    pub fn positions(&self) -> Range<usize> {
        self.end - self.rows..self.end
    }
}

/// The queries of a layer's last rows, kept while the prompt is prefilled in several runs.
///
/// Differs: `4 H_q w D` bytes per layer, where the rows themselves would take T / D times as many; rows are computed
/// once all keys are there, for one layer at a time.
#[derive(Default)]
pub(super) struct WindowQueries(Vec<Tensor>);

impl WindowQueries {
    /// Keeps those of a run that are among the prompt's last `rows`.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub(super) fn keep(&mut self, view: &AttentionView<'_>, rows: usize) -> Result<()> {
        let from = view.prompt_tokens.saturating_sub(rows).max(view.rows.start);
        if from < view.rows.end {
            let own = (view.queries).narrow(1, from - view.rows.start, view.rows.end - from)?;
            // A copy of its own: a view would hold the whole run's queries.
            self.0.push(own.force_contiguous()?);
        }
        Ok(())
    }

    /// The rows over the first `tokens` keys, `(H_q, rows, tokens)`, on the CPU.
    ///
    /// Errors: as [`AttentionView::probabilities`].
    pub(super) fn rows(self, view: &AttentionView<'_>, tokens: usize) -> Result<Vec<f32>> {
        let queries = Tensor::cat(&self.0, 1)?.contiguous()?;
        let first = view.prompt_tokens - queries.dim(1)?;
        let rows = view.probabilities_of(&queries, first)?;
        let rows = rows.narrow(2, 0, tokens)?;
        Ok(rows.flatten_all()?.to_vec1()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scorer_sees_the_last_rows_that_it_asked_for() {
        // Two heads, three rows held, two tokens.
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let rows = WindowRows::new(&values, 3, 2, 2);
        let of_head = |head| rows.of_head(head).collect::<Vec<_>>();
        assert_eq!(of_head(0), [[2.0, 3.0], [4.0, 5.0]]);
        assert_eq!(of_head(1), [[8.0, 9.0], [10.0, 11.0]]);
        assert_eq!((rows.rows(), rows.positions()), (2, 0..2));
        assert_eq!(rows.ending_at(7).positions(), 5..7);
    }
}
