//! Mean and covariance of a layer's queries before they are rotated.

use candle_core::{DType, Device};
use rayon::prelude::*;

use crate::compute::lanes::vectorised;
use crate::error::Result;
use crate::model::attention::AttentionView;
use crate::model::turn_back;

/// Which statistics of the prompt's queries a scorer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryNeeds {
    /// First queries that are left out, where there are more.
    pub skip: usize,
    /// The covariance beside the mean: D times as many numbers.
    pub covariance: bool,
}

/// Mean and covariance of the queries of every head.
///
/// Units: such that a query times a key, divided by the root of D, is a logit.
/// Shapes: mean `[query_head][D]`; covariance `[query_head][D * D]`, empty where it was not asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryStatistics {
    /// D.
    pub head_dim: usize,
    /// Mean of every head.
    pub mean: Vec<Vec<f64>>,
    /// Covariance of every head, divided by the number of queries.
    pub covariance: Vec<Vec<f64>>,
}

/// Running sums of the queries of one layer, in the order of their positions.
///
/// Differs: queries are taken back to before their rotation by their positions, so that heads with norms, rotations of
/// a part and stretched frequencies need nothing of their own.
/// Units: `8 H_q D` bytes, and `8 H_q D²` with the covariance.
pub(super) struct QuerySums {
    needs: QueryNeeds,
    head_dim: usize,
    count: usize,
    heads: Vec<HeadSums>,
}

/// Sums of one head.
struct HeadSums {
    sum: Vec<f64>,
    products: Vec<f64>,
}

impl QuerySums {
    /// Of `query_heads` heads.
    pub(super) fn new(needs: QueryNeeds, query_heads: usize, head_dim: usize) -> Self {
        let products = if needs.covariance {
            head_dim * head_dim
        } else {
            0
        };
        let head = || HeadSums {
            sum: vec![0.0; head_dim],
            products: vec![0.0; products],
        };
        Self {
            needs,
            head_dim,
            count: 0,
            heads: (0..query_heads).map(|_| head()).collect(),
        }
    }

    /// Adds the queries of a run.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub(super) fn add(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let from = first_counted(self.needs.skip, view.prompt_tokens).max(view.rows.start);
        if from >= view.rows.end {
            return Ok(());
        }
        let (first, d) = (view.rows.start, self.head_dim);
        let queries = view.queries.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let queries: Vec<f32> = queries.flatten_all()?.to_vec1()?;
        let turns: Vec<Vec<[f32; 2]>> = (view.rows.clone())
            .map(|position| view.rotation.at(position).collect())
            .collect();
        let of_head = queries.par_chunks((view.rows.len() * d).max(1));
        self.heads
            .par_iter_mut()
            .zip(of_head)
            .for_each(|(sums, queries)| {
                let mut row = vec![0.0; d];
                for (i, query) in queries.chunks(d.max(1)).enumerate().skip(from - first) {
                    row.iter_mut()
                        .zip(query)
                        .for_each(|(x, q)| *x = f64::from(*q));
                    turn_back(&turns[i], &mut row);
                    sums.add(&row);
                }
            });
        self.count += view.rows.end - from;
        Ok(())
    }

    /// Mean and covariance of all that were added.
    pub(super) fn finish(&self) -> QueryStatistics {
        let (count, d) = (self.count.max(1) as f64, self.head_dim);
        let mean = |sums: &HeadSums| -> Vec<f64> { sums.sum.iter().map(|s| s / count).collect() };
        let covariance = |sums: &HeadSums| -> Vec<f64> {
            let mean = mean(sums);
            let entries = sums.products.iter().enumerate();
            entries
                .map(|(i, product)| product / count - mean[i / d] * mean[i % d])
                .collect()
        };
        QueryStatistics {
            head_dim: d,
            mean: self.heads.iter().map(mean).collect(),
            covariance: if self.needs.covariance {
                self.heads.iter().map(covariance).collect()
            } else {
                Vec::new()
            },
        }
    }
}

/// The first query that counts: a prompt of no more than `skip` tokens leaves none out.
pub(super) fn first_counted(skip: usize, prompt_tokens: usize) -> usize {
    if skip < prompt_tokens { skip } else { 0 }
}

impl HeadSums {
    fn add(&mut self, row: &[f64]) {
        self.sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
        if !self.products.is_empty() {
            add_products(&mut self.products, row);
        }
    }
}

fn add_products(products: &mut [f64], row: &[f64]) {
    vectorised!(add_all_products(products: &mut [f64], row: &[f64]))
}

#[inline(always)]
fn add_all_products(products: &mut [f64], row: &[f64]) {
    for (line, &x) in products.chunks_exact_mut(row.len()).zip(row) {
        line.iter_mut().zip(row).for_each(|(p, &y)| *p += x * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_covariance_by_hand() {
        let needs = QueryNeeds {
            skip: 0,
            covariance: true,
        };
        let mut sums = QuerySums::new(needs, 1, 2);
        for row in [[1.0, 0.0], [3.0, 4.0]] {
            sums.heads[0].add(&row);
            sums.count += 1;
        }
        let statistics = sums.finish();
        assert_eq!(statistics.mean, [[2.0, 2.0]]);
        assert_eq!(statistics.covariance, [[1.0, 2.0, 2.0, 4.0]]);
        assert_eq!((first_counted(4, 5), first_counted(4, 4)), (4, 0));
    }
}
