//! Rows of attention probabilities, shown to readers while attention is computed.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::Result;

/// Reads rows on the threads that computed them, block by block and in no particular order.
///
/// Differs: rows are read where attention left them, so that nothing is computed twice and no layer's
/// rows are ever held together.
pub trait RowReader: Sync {
    /// Reads one block.
    fn read(&self, rows: &GroupRows<'_>);

    /// Reads one block that lies on a device.
    ///
    /// Differs: unless a reader knows better, the rows are brought to the CPU.
    /// Errors: [`crate::error::Error::Candle`].
    fn read_on_device(&self, rows: &DeviceRows<'_>) -> Result<()> {
        rows.on_host(&mut |rows| self.read(rows))
    }
}

/// What [`super::attend`] shows to whom.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Position of the first row that is read; all later ones are.
    pub from: usize,
    /// Who reads.
    pub reader: &'a dyn RowReader,
}

/// Consecutive rows of the query heads that share a KV head.
///
/// Shapes: every row is as long as the keys that its query sees; it sums to 1.
#[derive(Clone, Debug)]
pub struct GroupRows<'a> {
    /// KV head.
    pub kv_head: usize,
    /// Positions of the queries.
    pub positions: Range<usize>,
    /// Query heads of the group.
    pub group: usize,
    pub(crate) values: &'a [f32],
    /// Numbers from one position to the next, and from one query head to the next.
    pub(crate) strides: [usize; 2],
    /// Keys that each query sees, by position.
    pub(crate) seen: &'a [usize],
}

impl<'a> GroupRows<'a> {
    /// The row of a position and of a query head of the group, counted from 0.
    ///
    /// Panics: for a position or a head outside the block.
    pub fn row(&self, position: usize, head: usize) -> &'a [f32] {
        assert!(
            self.positions.contains(&position) && head < self.group,
            "row {position} of head {head} lies outside {:?} of {} heads",
            self.positions,
            self.group
        );
        let row = position - self.positions.start;
        &self.values[row * self.strides[0] + head * self.strides[1]..][..self.seen[row]]
    }

    /// The rows of the positions from `from` on, if there are any.
    pub(super) fn starting_at(&self, from: usize) -> Option<Self> {
        let skipped = from.saturating_sub(self.positions.start);
        if skipped >= self.positions.len() {
            return None;
        }
        Some(Self {
            positions: self.positions.start + skipped..self.positions.end,
            values: &self.values[skipped * self.strides[0]..],
            seen: &self.seen[skipped..],
            ..self.clone()
        })
    }

    /// Shows the block to all who want any of it.
    pub(super) fn show(&self, watches: &[Watch<'_>]) {
        for watch in watches {
            if let Some(rows) = self.starting_at(watch.from) {
                watch.reader.read(&rows);
            }
        }
    }
}

/// Consecutive rows of the query heads that share a KV head, where a device computed them.
///
/// Shapes: probabilities `(G, rows, S)`, float32, zero for keys after a query.
#[derive(Clone, Debug)]
pub struct DeviceRows<'a> {
    /// KV head.
    pub kv_head: usize,
    /// Positions of the queries.
    pub positions: Range<usize>,
    /// The rows.
    pub probabilities: Tensor,
    /// Keys that each query sees, by position.
    pub(super) seen: &'a [usize],
}

impl DeviceRows<'_> {
    /// Brings the rows to the CPU and hands them over.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn on_host(&self, read: &mut dyn FnMut(&GroupRows<'_>)) -> Result<()> {
        let (group, rows, keys) = self.probabilities.dims3()?;
        let values = self.probabilities.flatten_all()?.to_vec1::<f32>()?;
        read(&GroupRows {
            kv_head: self.kv_head,
            positions: self.positions.clone(),
            group,
            values: &values,
            strides: [keys, rows * keys],
            seen: self.seen,
        });
        Ok(())
    }

    /// Shows the block to all who want any of it.
    pub(super) fn show(&self, watches: &[Watch<'_>]) -> Result<()> {
        for watch in watches {
            let skipped = watch.from.saturating_sub(self.positions.start);
            let Some(left) = self.positions.len().checked_sub(skipped).filter(|n| *n > 0) else {
                continue;
            };
            watch.reader.read_on_device(&DeviceRows {
                kv_head: self.kv_head,
                positions: self.positions.start + skipped..self.positions.end,
                probabilities: self.probabilities.narrow(1, skipped, left)?,
                seen: &self.seen[skipped..],
            })?;
        }
        Ok(())
    }
}

/// The first row that anybody reads.
pub(super) fn first_watched(watches: &[Watch<'_>]) -> Option<usize> {
    watches.iter().map(|watch| watch.from).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_position_and_head() {
        // Two positions of two heads, heads two apart within a position.
        let values = [0.5, 0.5, 1.0, 0.0, 0.2, 0.8, 0.3, 0.7];
        let rows = GroupRows {
            kv_head: 1,
            positions: 4..6,
            group: 2,
            values: &values,
            strides: [4, 2],
            seen: &[1, 2],
        };
        assert_eq!(rows.row(4, 1), [1.0]);
        assert_eq!(rows.row(5, 0), [0.2, 0.8]);
        let later = rows.starting_at(5).unwrap();
        assert_eq!(later.row(5, 1), [0.3, 0.7]);
        assert_eq!(later.positions, 5..6);
        assert!(rows.starting_at(6).is_none());
        assert_eq!(rows.starting_at(0).unwrap().positions, 4..6);
    }
}
