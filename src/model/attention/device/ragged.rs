//! Attention of one position over a ragged cache, every head over keys of its own number.

use candle_core::{CpuStorage, DType, Tensor, WithDType};
use half::{bf16, f16};

use super::{attended, check_values, group};
use crate::compute::device::{Argument, Buffer, Launch, OnCpu, Operation, Program, size, source};
use crate::error::{Error, Result};
use crate::model::ragged_heads::RaggedHeads;

/// Query heads that a block works on at once.
const QUERIES: usize = 8;

/// Threads of a warp.
const WARP: usize = 32;

/// Threads that a block has at least.
const THREADS: usize = 128;

/// Warps of a block that joins pieces, whatever their number: it decides the order of sums.
const JOINING_WARPS: usize = 8;

/// Bytes that a thread loads at once, where rows lie on boundaries of as many; else single elements.
const LOADS: [usize; 2] = [16, 4];

/// Largest head dimension of [`ragged_attention`]: loads of single elements have a thread each.
pub const WIDEST_HEAD: usize = 512;

/// Attention output of one query position, over all keys that its heads hold.
///
/// Differs: pieces of keys are joined by their largest logits, as in FlashDecoding; logits and sums are float32. Their
/// order depends on a key's index, D and the type, and on nothing else where the tensors begin on a boundary of 16 bytes.
/// Shapes: queries `(H_q, D)` after RoPE; keys and values `(rows, D)` of one layer, packed; `appended` tokens came to
/// every head since `heads` was made -> `(H_q, D)`. All of one type: f32, f16 or bf16.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for shapes that do not match, heads without keys and D above
/// [`WIDEST_HEAD`].
pub fn ragged_attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: &RaggedHeads,
    appended: usize,
) -> Result<Tensor> {
    check_values(keys, values)?;
    let dims = [queries.dims2()?, keys.dims2()?];
    let starts = [keys, values].map(|rows| rows.layout().start_offset());
    let op = RaggedAttention::new(heads, dims, queries.dtype(), appended, starts)?;
    op.run(&[queries, keys, values, &heads.table])
}

/// [`ragged_attention`] of one shape.
pub struct RaggedAttention<'a> {
    heads: &'a RaggedHeads,
    appended: usize,
    group: usize,
    d: usize,
    scale: f32,
    /// Operands: queries, keys, values, the table of heads, outputs.
    pub program: Program,
}

impl<'a> RaggedAttention<'a> {
    /// For queries `(H_q, D)` and keys `(rows, D)` of an element type; keys and values begin so many elements behind
    /// a boundary of 16 bytes.
    ///
    /// Errors: as [`ragged_attention`].
    pub fn new(
        heads: &'a RaggedHeads,
        [(h_q, d), (rows, key_columns)]: [(usize, usize); 2],
        dtype: DType,
        appended: usize,
        starts: [usize; 2],
    ) -> Result<Self> {
        let group = group(h_q, heads.heads.len())?;
        if d != key_columns || d == 0 || d > WIDEST_HEAD {
            let bound = format!("keys have {key_columns}; 1 to {WIDEST_HEAD} are supported");
            return Err(Error::invalid("head dimension", d, bound));
        }
        if appended > heads.room {
            let bound = format!("there is room for {}", heads.room);
            return Err(Error::invalid("number of new tokens", appended, bound));
        }
        for head in &heads.heads {
            let end = head.start + head.length + appended;
            if end == head.start || end > rows {
                let bound = format!("each head needs a key, and the layer holds {rows} rows");
                return Err(Error::invalid("end of a head's keys", end, bound));
            }
        }
        let operands = [dtype, dtype, dtype, DType::U32];
        let mut op = Self {
            heads,
            appended,
            group,
            d,
            scale: (1.0 / (d as f64).sqrt()) as f32,
            program: Program::new(source!("ragged_attention"), operands, (dtype, (h_q, d))),
        };
        op.launches(dtype, starts)?;
        Ok(op)
    }

    fn launches(&mut self, dtype: DType, [keys_start, values_start]: [usize; 2]) -> Result<()> {
        let (group, d) = (self.group, self.d);
        let (h_kv, pieces) = (self.heads.heads.len(), self.heads.pieces);
        let fits = |n: &usize| [d, keys_start, values_start].iter().all(|x| x % n == 0);
        let of_loads = LOADS.map(|bytes| (bytes / dtype.size_in_bytes()).max(1));
        let loaded = of_loads.into_iter().find(fits).unwrap_or(1);
        let (attend, join) = kernels(dtype, loaded)?;
        // Rows of up to a warp share it; longer ones take whole warps.
        let width = match d / loaded {
            few @ 0..=WARP => few.next_power_of_two(),
            many => many.next_multiple_of(WARP),
        };
        let parts = (THREADS / width).max(1);
        let partial = self.program.scratch(4 * pieces * group * d);
        let softmaxes = self.program.scratch(8 * pieces * group);
        let [queries, keys, values, table, outputs] = [0, 1, 2, 3, 4].map(Buffer::Operand);
        self.program.launch(Launch {
            kernel: attend,
            grid: [
                size("number of pieces", pieces)?,
                size("size of a group", group.div_ceil(QUERIES))?,
            ],
            threads: (width * parts) as u32,
            shared: (4 * QUERIES * d) as u32,
            arguments: vec![
                queries.into(),
                keys.into(),
                values.into(),
                table.into(),
                Argument::Address(table, 8 * h_kv),
                partial.into(),
                softmaxes.into(),
                size("size of a group", group)?.into(),
                (d as u32).into(),
                (width as u32).into(),
                size("number of new tokens", self.appended)?.into(),
                self.scale.into(),
            ],
        })?;
        self.program.launch(Launch {
            kernel: join,
            grid: [
                size("number of query heads", h_kv * group)?,
                d.div_ceil(WARP) as u32,
            ],
            threads: (JOINING_WARPS * WARP) as u32,
            shared: 0,
            arguments: vec![
                partial.into(),
                softmaxes.into(),
                Argument::Address(table, 4 * (2 * h_kv + 3 * pieces)),
                outputs.into(),
                size("size of a group", group)?.into(),
                (d as u32).into(),
            ],
        })
    }

    fn outputs<T: WithDType>(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let d = self.d;
        let [queries, keys, values] = [0, 1, 2].map(|i| operands.numbers::<T>(i));
        let (queries, keys, values) = (queries?, keys?, values?);
        let mut outputs = Vec::with_capacity(queries.len());
        for (q, query) in queries.chunks(d).enumerate() {
            let head = self.heads.heads[q / self.group];
            let range = head.start * d..(head.start + head.length + self.appended) * d;
            let kv = [&keys[range.clone()], &values[range]];
            let output = attended(query, kv, f64::from(self.scale));
            outputs.extend(output.into_iter().map(T::from_f64));
        }
        Ok(T::to_cpu_storage_owned(outputs))
    }
}

/// The kernels of an element type that attend, so many elements in a load, and join.
fn kernels(dtype: DType, loaded: usize) -> Result<(&'static str, &'static str)> {
    Ok(match (dtype, loaded) {
        (DType::F32, 4) => ("ragged_attend_f32x4", "ragged_join_f32"),
        (DType::F32, _) => ("ragged_attend_f32x1", "ragged_join_f32"),
        (DType::F16, 8) => ("ragged_attend_f16x8", "ragged_join_f16"),
        (DType::F16, 2) => ("ragged_attend_f16x2", "ragged_join_f16"),
        (DType::F16, _) => ("ragged_attend_f16x1", "ragged_join_f16"),
        (DType::BF16, 8) => ("ragged_attend_bf16x8", "ragged_join_bf16"),
        (DType::BF16, 2) => ("ragged_attend_bf16x2", "ragged_join_bf16"),
        (DType::BF16, _) => ("ragged_attend_bf16x1", "ragged_join_bf16"),
        (other, _) => {
            return Err(Error::Unsupported {
                what: "type of keys and values",
                found: other.as_str().into(),
                supported: "f32, f16, bf16".into(),
            });
        }
    })
}

impl Operation for RaggedAttention<'_> {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        match self.program.output.0 {
            DType::F16 => self.outputs::<f16>(operands),
            DType::BF16 => self.outputs::<bf16>(operands),
            _ => self.outputs::<f32>(operands),
        }
    }
}
