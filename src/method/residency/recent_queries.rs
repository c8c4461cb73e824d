//! The newest queries of a text, for rules that look back from them when tokens are to leave.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Device};

use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionView};

/// Queries of one layer at consecutive positions, the newest of a text, up to a number of them.
///
/// Units: `4 H_q D` bytes for each.
#[derive(Clone, Debug, Default)]
pub struct RecentQueries {
    most: usize,
    /// `(H_q, D)` of each position, oldest first.
    rows: VecDeque<Vec<f32>>,
    /// The position behind the newest.
    end: usize,
}

impl RecentQueries {
    /// None yet, and never more than `most`.
    pub fn up_to(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// The newest `most` of these, and never more from here on.
    #[must_use]
    pub fn newest(&self, most: usize) -> Self {
        let passed = self.rows.len().saturating_sub(most);
        Self {
            most,
            rows: self.rows.iter().skip(passed).cloned().collect(),
            end: self.end,
        }
    }

    /// Adds those of a position, after RoPE; what does not follow on the newest begins anew.
    ///
    /// Shapes: `(H_q, D)`, one number after another.
    pub fn push(&mut self, position: usize, queries: Vec<f32>) {
        if position != self.end {
            self.rows.clear();
        }
        self.rows.push_back(queries);
        self.end = position + 1;
        let passed = self.rows.len().saturating_sub(self.most);
        self.rows.drain(..passed);
    }

    /// Adds the newest queries of a run.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn keep(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (_, count, _) = view.queries.dims3()?;
        let taken = count.min(self.most);
        let newest = view.queries.narrow(1, count - taken, taken)?;
        let newest = newest.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        for (i, position) in (view.rows.end - taken..view.rows.end).enumerate() {
            let own = newest.narrow(1, i, 1)?.flatten_all()?;
            self.push(position, own.to_vec1()?);
        }
        Ok(())
    }

    /// The positions that it holds queries of.
    pub fn positions(&self) -> Range<usize> {
        self.end - self.rows.len()..self.end
    }

    /// Query heads that share each of so many KV heads of dimension D.
    pub(super) fn group(&self, kv_heads: usize, d: usize) -> usize {
        let width = self.rows.front().map_or(0, Vec::len);
        width / (kv_heads * d).max(1)
    }

    /// The newest `count` queries of each of these query heads, the earliest first, or as many as there are.
    ///
    /// Shapes: `(heads, count, D)`.
    pub(super) fn of_heads(&self, heads: Range<usize>, d: usize, count: usize) -> Vec<f32> {
        let passed = self.rows.len().saturating_sub(count);
        let rows = |head: usize| {
            let newest = self.rows.iter().skip(passed);
            newest.flat_map(move |row| &row[head * d..(head + 1) * d])
        };
        heads.flat_map(rows).copied().collect()
    }
}

/// Keeps the last queries of a prompt, of every layer.
pub(in crate::method) struct PromptQueries {
    most: usize,
    /// One for every layer.
    pub layers: Vec<RecentQueries>,
}

impl PromptQueries {
    /// The last `most` of them.
    pub fn up_to(most: usize) -> Self {
        Self {
            most,
            layers: Vec::new(),
        }
    }
}

impl AttentionProbe for PromptQueries {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let is_among_last = view.rows.end.saturating_add(self.most) > view.prompt_tokens;
        if self.most == 0 || !is_among_last {
            return Ok(());
        }
        let missing = (view.layer + 1).saturating_sub(self.layers.len());
        let empty = std::iter::repeat_with(|| RecentQueries::up_to(self.most));
        self.layers.extend(empty.take(missing));
        self.layers[view.layer].keep(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_queries_are_held_and_no_gap() {
        let mut queries = RecentQueries::up_to(2);
        // Two query heads of dimension 1.
        for position in 3..6 {
            let number = position as f32;
            queries.push(position, vec![number, -number]);
        }
        assert_eq!((queries.positions(), queries.group(1, 1)), (4..6, 2));
        assert_eq!(queries.of_heads(0..2, 1, 9), [4.0, 5.0, -4.0, -5.0]);
        assert_eq!(queries.of_heads(1..2, 1, 1), [-5.0]);
        assert_eq!(queries.newest(1).of_heads(0..1, 1, 2), [5.0]);
        queries.push(8, vec![8.0, -8.0]);
        assert_eq!(queries.positions(), 8..9);
    }
}
