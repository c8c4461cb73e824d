//! Scores of KV heads from those of their query heads.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use serde::{Deserialize, Serialize};

use super::numbers;
use super::program::{Buffer, Launch, Program, Source, size};
use crate::error::{Error, Result};

/// Threads of a block, each with a key of its own.
const THREADS: u32 = 128;

/// How neighbouring scores are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The largest of the kernel.
    Max,
    /// The mean of the kernel; beyond the ends it counts zeros.
    Avg,
    /// Not at all.
    None,
}

/// How the query heads of a group become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupReduce {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}

/// Which comes first; it matters wherever one of the two is a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Pool every query head, then reduce the group.
    PoolFirst,
    /// Reduce the group, then pool.
    ReduceFirst,
}

/// What [`pool_rows`] does to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPooling {
    /// G, query heads that become one score.
    pub heads: usize,
    /// How they do.
    pub group: GroupReduce,
    /// First keys, whose scores count; the others' become zero.
    pub prefix: usize,
    /// How neighbours are pooled.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
    /// Pooling or reduction first.
    pub order: Order,
}

impl RowPooling {
    /// The mean over groups of `heads` query heads, for all of `keys`, and nothing else.
    pub fn mean_of_groups(heads: usize, keys: usize) -> Self {
        Self {
            heads,
            group: GroupReduce::Mean,
            prefix: keys,
            pooling: Pooling::None,
            kernel: 1,
            order: Order::PoolFirst,
        }
    }
}

/// One score per KV head and key: pooled over neighbouring keys, reduced over the group's query heads.
///
/// Paper: arXiv:2404.14469 (SnapKV), listing 1, for the pooling. Differs: in float64, added key by key and head by
/// head, so that every device gives the same bits; maxima leave out negative numbers and what is none.
/// Shapes: `(H_q, T)`, float64 -> `(H_q / G, T)`.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for heads that are no whole groups, or a kernel that is not odd.
pub fn pool_rows(attention: &Tensor, how: RowPooling) -> Result<Tensor> {
    let op = PoolRows::new(attention.dims2()?, how)?;
    Ok(attention.contiguous()?.apply_op1_no_bwd(&op)?)
}

/// [`pool_rows`] of one shape.
pub struct PoolRows {
    how: RowPooling,
    kv_heads: usize,
    keys: usize,
    /// Operands: attention, scores.
    pub program: Program,
}

impl PoolRows {
    /// For attention `(H_q, T)`.
    ///
    /// Errors: as [`pool_rows`].
    pub fn new((query_heads, keys): (usize, usize), mut how: RowPooling) -> Result<Self> {
        if how.heads == 0 || !query_heads.is_multiple_of(how.heads) {
            let bound = format!("it must divide the {query_heads} query heads");
            return Err(Error::invalid("size of a group", how.heads, bound));
        }
        if how.kernel.is_multiple_of(2) {
            let bound = "the kernel of the pooling must be odd, to be centred on a token";
            return Err(Error::invalid("kernel", how.kernel, bound));
        }
        how.prefix = how.prefix.min(keys);
        let mut op = Self {
            how,
            kv_heads: query_heads / how.heads,
            keys,
            program: Program::new(Source::RowPooling),
        };
        let keys = size("number of keys", keys)?;
        op.program.launch(Launch {
            kernel: "pool_rows",
            grid: [keys.div_ceil(THREADS), size("KV heads", op.kv_heads)?],
            threads: THREADS,
            shared: 0,
            arguments: vec![
                Buffer::Operand(0).into(),
                Buffer::Operand(1).into(),
                size("size of a group", how.heads)?.into(),
                keys.into(),
                (how.prefix as u32).into(),
                match how.pooling {
                    Pooling::Max => 0,
                    Pooling::Avg => 1,
                    Pooling::None => 2,
                }
                .into(),
                size("kernel", how.kernel / 2)?.into(),
                u32::from(how.group == GroupReduce::Max).into(),
                u32::from(how.order == Order::ReduceFirst).into(),
            ],
        })?;
        Ok(op)
    }

    fn shape(&self) -> Shape {
        (self.kv_heads, self.keys).into()
    }

    /// The scores of one KV head from the rows of its query heads.
    fn score(&self, heads: &[&[f64]]) -> Vec<f64> {
        let heads: Vec<&[f64]> = heads.iter().map(|head| &head[..self.how.prefix]).collect();
        let mut scores = match (self.how.pooling, self.how.order) {
            (Pooling::None, _) => self.reduce(&heads),
            (_, Order::PoolFirst) => {
                let pooled: Vec<Vec<f64>> = heads.iter().map(|head| self.pool(head)).collect();
                self.reduce(&pooled.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            (_, Order::ReduceFirst) => self.pool(&self.reduce(&heads)),
        };
        scores.resize(self.keys, 0.0);
        scores
    }

    fn pool(&self, scores: &[f64]) -> Vec<f64> {
        let reach = self.how.kernel / 2;
        let around = |i: usize| {
            let end = scores.len().min(i.saturating_add(reach).saturating_add(1));
            scores[i.saturating_sub(reach)..end].iter().copied()
        };
        let keys = 0..scores.len();
        match self.how.pooling {
            Pooling::None => scores.to_vec(),
            Pooling::Max => keys.map(|i| largest(around(i))).collect(),
            Pooling::Avg => {
                let width = self.how.kernel as f64;
                keys.map(|i| around(i).sum::<f64>() / width).collect()
            }
        }
    }

    fn reduce(&self, heads: &[&[f64]]) -> Vec<f64> {
        let of = |i: usize| heads.iter().map(move |head| head[i]);
        let keys = 0..self.how.prefix;
        match self.how.group {
            GroupReduce::Mean => {
                let count = heads.len() as f64;
                keys.map(|i| of(i).sum::<f64>() / count).collect()
            }
            GroupReduce::Max => keys.map(|i| largest(of(i))).collect(),
        }
    }
}

/// The largest of some numbers, zero at least; what is not a number is left out.
fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |largest, x| if x > largest { x } else { largest })
}

impl CustomOp1 for PoolRows {
    fn name(&self) -> &'static str {
        "pool_rows"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let attention = numbers::<f64>(storage, layout, self.name())?;
        let rows: Vec<&[f64]> = attention.chunks(self.keys.max(1)).collect();
        let scores = rows
            .chunks(self.how.heads)
            .flat_map(|heads| self.score(heads));
        Ok((CpuStorage::F64(scores.collect()), self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{Operand, run, start};
        let device = &storage.device;
        let stream = device.cuda_stream();
        let attention = storage.as_cuda_slice::<f64>()?;
        let mut scores = device.alloc_zeros::<f64>(self.shape().elem_count())?;
        let operands = [
            Operand::read(attention, start(layout, self.name())?, &stream),
            Operand::write(&mut scores, 0, &stream),
        ];
        run(&self.program, device, &operands)?;
        drop(operands);
        let scores = candle_core::CudaStorage::wrap_cuda_slice(scores, device.clone());
        Ok((scores, self.shape()))
    }
}
