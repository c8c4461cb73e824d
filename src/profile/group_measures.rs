//! Budgets of the rows of one KV head, block by block.

use super::row_budgets::RowBudgets;
use crate::compute::lanes::{LANES, Lanes, widest};
use crate::model::attention::GroupRows;

/// Measures the rows of one KV head at a time.
pub(super) struct GroupMeasures {
    budgets: RowBudgets,
    mean: Vec<f32>,
}

/// MBA of the rows of one block, added up: of each query head and of their mean.
pub(super) struct BlockBudgets {
    pub(super) heads: Vec<Vec<f64>>,
    pub(super) mean: Vec<f64>,
}

impl GroupMeasures {
    pub(super) fn new(thresholds: &[f64]) -> Self {
        Self {
            budgets: RowBudgets::new(thresholds),
            mean: Vec::new(),
        }
    }

    /// Budgets of all rows of a block; none if any is not finite.
    pub(super) fn block(
        &mut self,
        rows: &GroupRows<'_>,
        thresholds: usize,
    ) -> Option<BlockBudgets> {
        let zeros = vec![0.0; thresholds];
        let mut block = BlockBudgets {
            heads: vec![zeros.clone(); rows.group],
            mean: zeros,
        };
        for position in rows.positions.clone() {
            let lines: Vec<&[f32]> = (0..rows.group).map(|g| rows.row(position, g)).collect();
            for (g, line) in lines.iter().enumerate() {
                add_counts(&mut block.heads[g], &self.budgets.measure(line)?);
            }
            match lines.as_slice() {
                [_] => block.mean.clone_from(&block.heads[0]),
                _ => {
                    mean(&lines, &mut self.mean);
                    add_counts(&mut block.mean, &self.budgets.measure(&self.mean)?);
                }
            }
        }
        Some(block)
    }
}

/// The mean of a group's rows, rounded once.
fn mean(lines: &[&[f32]], mean: &mut Vec<f32>) {
    widest!(mean_of_lines(lines: &[&[f32]], mean: &mut Vec<f32>));
}

#[inline(always)]
fn mean_of_lines<L: Lanes>(lines: &[&[f32]], mean: &mut Vec<f32>) {
    let count = lines.len() as f64;
    let mut sums = [0f64; 4 * LANES];
    mean.clear();
    for start in (0..lines[0].len()).step_by(sums.len()) {
        sums.fill(0.0);
        for line in lines {
            let line = &line[start..];
            sums.iter_mut()
                .zip(line)
                .for_each(|(s, &p)| *s += f64::from(p));
        }
        let rest = sums.len().min(lines[0].len() - start);
        mean.extend(sums[..rest].iter().map(|sum| (sum / count) as f32));
    }
}

fn add_counts(sums: &mut [f64], counts: &[u32]) {
    sums.iter_mut()
        .zip(counts)
        .for_each(|(s, &c)| *s += f64::from(c));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_lines_of_any_length() {
        for length in [1, 63, 64, 65, 200] {
            let (a, b) = (vec![0.25; length], vec![0.75; length]);
            let mut got = Vec::new();
            mean(&[&a, &b], &mut got);
            assert_eq!(got, vec![0.5; length]);
        }
    }
}
