//! Causal attention of many positions over a ragged cache of a half type, without any matrix of probabilities.

use candle_core::{CpuStorage, DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{attended, check_values, group};
use crate::compute::device::{Argument, Buffer, Launch, OnCpu, Operation, Program, size, source};
use crate::error::{Error, Result};
use crate::model::ragged_heads::RaggedHead;

/// Rows of queries that a block works on; a row is a position and a query head of the group.
const ROWS: usize = 128;

/// Threads of a block.
const THREADS: u32 = 256;

/// Numbers of a row that are copied at once.
const COPIED: usize = 8;

/// A kernel for heads of up to so many columns.
struct Kernel {
    columns: usize,
    /// Keys that are brought to shared memory at once.
    keys: usize,
    f16: &'static str,
    bf16: &'static str,
}

const KERNELS: [Kernel; 5] = [
    kernel(64, 48, ["prefill_attend_f16_64", "prefill_attend_bf16_64"]),
    kernel(80, 48, ["prefill_attend_f16_80", "prefill_attend_bf16_80"]),
    kernel(96, 32, ["prefill_attend_f16_96", "prefill_attend_bf16_96"]),
    kernel(
        128,
        32,
        ["prefill_attend_f16_128", "prefill_attend_bf16_128"],
    ),
    kernel(
        256,
        32,
        ["prefill_attend_f16_256", "prefill_attend_bf16_256"],
    ),
];

const fn kernel(columns: usize, keys: usize, [f16, bf16]: [&'static str; 2]) -> Kernel {
    Kernel {
        columns,
        keys,
        f16,
        bf16,
    }
}

impl Kernel {
    /// The narrowest one for a head dimension, if there is any.
    fn of(d: usize) -> Option<&'static Self> {
        let fits = |kernel: &&Self| d > 0 && d.is_multiple_of(COPIED) && d <= kernel.columns;
        KERNELS.iter().find(fits)
    }

    /// Bytes of its tiles of queries, keys and values, whose rows have a gap between them.
    fn shared(&self) -> usize {
        2 * (ROWS + 2 * self.keys) * (self.columns + COPIED)
    }
}

/// Whether [`prefill_attention`] takes heads of this type and dimension on a device.
///
/// Differs: the CPU is one, with the kernel's twin; Metal is none, nor is CUDA if it was built for cards before
/// compute capability 8.0.
pub fn has_prefill_attention(device: &Device, dtype: DType, d: usize) -> bool {
    let on_device = match device {
        Device::Cpu => true,
        Device::Cuda(_) => !cfg!(before_tensor_cores),
        Device::Metal(_) => false,
    };
    on_device && matches!(dtype, DType::F16 | DType::BF16) && Kernel::of(d).is_some()
}

/// Causal attention output of consecutive query positions, whose own keys are the last ones of every head.
///
/// Paper: FlashAttention-2. Differs: products with values do not round probabilities to the half type, see
/// `kernels/prefill_attention.cu`; outputs of a row do not depend on the rows beside it.
/// Shapes: queries `(H_q, n, D)` after RoPE; keys and values `(rows, D)` of one layer, packed; the last query sees
/// all `length` keys of a head, each one before it one fewer -> `(n, H_q * D)` of type `output`, which is that of the
/// queries or float32. Queries, keys and values are f16 or bf16 alike.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for shapes that do not match, heads with fewer keys than there are
/// queries, and head dimensions without a kernel; [`Error::Unsupported`] for other types. A device takes no view that
/// begins between 16 bytes.
pub fn prefill_attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: &[RaggedHead],
    output: DType,
) -> Result<Tensor> {
    check_values(keys, values)?;
    let types = [queries.dtype(), output];
    let op = PrefillAttention::new(heads, queries.dims3()?, keys.dims2()?, types, keys.device())?;
    let operands = [&queries.contiguous()?, keys, values, &op.table];
    let between = |operand: &&Tensor| !operand.layout().start_offset().is_multiple_of(COPIED);
    if !keys.device().is_cpu() && operands[..3].iter().any(between) {
        let why = "prefill_attention: a tensor begins between 16 bytes";
        return Err(Error::Candle(candle_core::Error::msg(why)));
    }
    op.run(&operands)
}

/// [`prefill_attention`] of one shape.
pub struct PrefillAttention<'a> {
    heads: &'a [RaggedHead],
    /// Starts and lengths of heads.
    table: Tensor,
    /// `(H_q, n, D)`.
    queries: (usize, usize, usize),
    scale: f64,
    /// Operands: queries, keys, values, the table of heads, outputs.
    pub program: Program,
}

impl<'a> PrefillAttention<'a> {
    /// For queries `(H_q, n, D)` and keys `(rows, D)`; the types are theirs and that of outputs.
    ///
    /// Errors: as [`prefill_attention`].
    pub fn new(
        heads: &'a [RaggedHead],
        queries: (usize, usize, usize),
        (rows, key_columns): (usize, usize),
        [dtype, output]: [DType; 2],
        device: &Device,
    ) -> Result<Self> {
        let ((h_q, n, d), h_kv) = (queries, heads.len());
        group(h_q, h_kv)?;
        let kernel = Kernel::of(d).filter(|_| d == key_columns);
        let kernel = kernel.ok_or_else(|| {
            let bound = format!("keys have {key_columns}; multiples of 8 up to 256 are supported");
            Error::invalid("head dimension", d, bound)
        })?;
        for head in heads {
            if head.length < n || head.start + head.length > rows {
                let bound = format!("{n} queries need as many, of the {rows} rows of the layer");
                let found = format!("{} from row {} on", head.length, head.start);
                return Err(Error::invalid("keys of a head", found, bound));
            }
        }
        if output != dtype && output != DType::F32 {
            return Err(Error::Unsupported {
                what: "type of attention outputs",
                found: output.as_str().into(),
                supported: format!("{}, f32", dtype.as_str()),
            });
        }
        size("number of rows of a layer", rows)?;
        let mut table = Vec::with_capacity(2 * h_kv);
        for head in heads {
            table.push(size("row of a cache", head.start)?);
            table.push(size("number of tokens", head.length)?);
        }
        let operands = [dtype, dtype, dtype, DType::U32];
        let output = (output, (n, h_q * d));
        let mut op = Self {
            heads,
            table: Tensor::from_vec(table, 2 * h_kv, device)?,
            queries,
            scale: 1.0 / (d as f64).sqrt(),
            program: Program::new(source!("prefill_attention"), operands, output),
        };
        op.launch(kernel, dtype)?;
        Ok(op)
    }

    /// The table that the kernel reads.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    fn launch(&mut self, kernel: &Kernel, dtype: DType) -> Result<()> {
        let name = match dtype {
            DType::F16 => kernel.f16,
            DType::BF16 => kernel.bf16,
            other => {
                return Err(Error::Unsupported {
                    what: "type of queries",
                    found: other.as_str().into(),
                    supported: "f16, bf16".into(),
                });
            }
        };
        let ((h_q, n, d), h_kv) = (self.queries, self.heads.len());
        let group = h_q / h_kv;
        let rows = size("number of rows of queries", n * group + ROWS)? as usize - ROWS;
        let [queries, keys, values, table, outputs] = [0, 1, 2, 3, 4].map(Buffer::Operand);
        self.program.launch(Launch {
            kernel: name,
            grid: [
                size("number of blocks of rows", rows.div_ceil(ROWS))?,
                size("number of KV heads", h_kv)?,
            ],
            threads: THREADS,
            shared: size("bytes of shared memory", kernel.shared())?,
            arguments: vec![
                queries.into(),
                keys.into(),
                values.into(),
                table.into(),
                outputs.into(),
                Argument::U32(u32::from(self.program.output.0 == DType::F32)),
                size("number of queries", n)?.into(),
                size("size of a group", group)?.into(),
                size("head dimension", d)?.into(),
                ((self.scale * std::f64::consts::LOG2_E) as f32).into(),
            ],
        })
    }

    fn outputs<T: WithDType, Output: WithDType>(
        &self,
        operands: &OnCpu<'_>,
    ) -> candle_core::Result<CpuStorage> {
        let (h_q, n, d) = self.queries;
        let queries = operands.numbers::<T>(0)?;
        let kv = [operands.numbers::<T>(1)?, operands.numbers::<T>(2)?];
        let row = |r: usize| {
            let [i, q] = [r / h_q, r % h_q];
            let head = self.heads[q / (h_q / self.heads.len())];
            let seen = head.start * d..(head.start + head.length - (n - 1 - i)) * d;
            let query = &queries[(q * n + i) * d..][..d];
            let row = attended(query, kv.map(|all| &all[seen.clone()]), self.scale);
            row.into_iter().map(Output::from_f64)
        };
        let outputs: Vec<Output> = (0..n * h_q).into_par_iter().flat_map_iter(row).collect();
        Ok(Output::to_cpu_storage_owned(outputs))
    }
}

impl Operation for PrefillAttention<'_> {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        match (self.program.operands[0], self.program.output.0) {
            (DType::F16, DType::F32) => self.outputs::<f16, f32>(operands),
            (DType::F16, _) => self.outputs::<f16, f16>(operands),
            (_, DType::F32) => self.outputs::<bf16, f32>(operands),
            _ => self.outputs::<bf16, bf16>(operands),
        }
    }
}
