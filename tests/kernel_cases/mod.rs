//! What every operation of `compute::device` is tried on, by emulation and on a GPU.
#![allow(dead_code, unused_imports)]

mod prefill;
mod scores;

use candle_core::{DType, Device, Tensor};
use kvprof::compute::device::{
    Quotas, RowPooling, add_rows, add_rows_in_order, counts_to_mass, falling_order,
    largest_entries, pool_rows, prefix_sums, row_norms, running_sums,
};
use kvprof::model::attention::device::{prefill_attention, ragged_attention};
use kvprof::model::ragged_heads::{RaggedHead, RaggedHeads};

pub use prefill::prefill_cases;
pub use scores::{
    best_token_cases, kept_by_sorting, key_norm_cases, mass_sum_cases, pooling_cases,
};

/// One call of an operation.
pub struct Case {
    pub name: String,
    pub call: Call,
}

/// The operation and what it is called with, on the CPU.
pub enum Call {
    CountsToMass(Tensor, Vec<f64>),
    /// Sums, rows, the first that is added, and how many there are in all.
    AddRows(Tensor, Tensor, usize, usize),
    /// Queries, keys and values; heads; the type of outputs.
    PrefillAttention([Tensor; 3], Vec<RaggedHead>, DType),
    /// Queries, keys and values; heads, room and new tokens.
    RaggedAttention([Tensor; 3], Vec<RaggedHead>, [usize; 2]),
    FallingOrder(Tensor),
    RunningSums(Tensor),
    PrefixSums(Tensor),
    /// Sums and rows.
    AddRowsInOrder(Tensor, Tensor),
    PoolRows(Tensor, RowPooling),
    RowNorms(Tensor),
    LargestEntries(Tensor, Quotas),
}

impl Call {
    /// The result on a device, brought to the CPU.
    pub fn on(&self, device: &Device) -> Tensor {
        // A view that does not begin where its memory does, as views of a layer's heads.
        let to = |tensor: &Tensor| {
            let first = tensor.narrow(0, 0, 1).unwrap();
            let all = Tensor::cat(&[&first, tensor], 0).unwrap();
            let all = all.to_device(device).unwrap();
            all.narrow(0, 1, tensor.dim(0).unwrap()).unwrap()
        };
        let result = match self {
            Self::CountsToMass(rows, thresholds) => counts_to_mass(&to(rows), thresholds).unwrap(),
            Self::AddRows(sums, rows, first, in_all) => {
                let sums = to(sums);
                add_rows(&sums, &to(rows), *first, *in_all).unwrap();
                sums
            }
            Self::PrefillAttention([q, k, v], heads, output) => {
                prefill_attention(&to(q), &to(k), &to(v), heads, *output).unwrap()
            }
            Self::RaggedAttention([q, k, v], heads, [room, appended]) => {
                let heads = RaggedHeads::new(heads, *room, device).unwrap();
                ragged_attention(&to(q), &to(k), &to(v), &heads, *appended).unwrap()
            }
            Self::FallingOrder(weights) => falling_order(&to(weights)).unwrap(),
            Self::RunningSums(values) => running_sums(&to(values)).unwrap(),
            Self::PrefixSums(sorted) => prefix_sums(&to(sorted)).unwrap(),
            Self::AddRowsInOrder(sums, rows) => {
                let sums = to(sums);
                add_rows_in_order(&sums, &to(rows)).unwrap();
                sums
            }
            Self::PoolRows(attention, how) => pool_rows(&to(attention), *how).unwrap(),
            Self::RowNorms(keys) => row_norms(&to(keys)).unwrap(),
            Self::LargestEntries(scores, wanted) => largest_entries(&to(scores), wanted).unwrap(),
        };
        result.to_device(&Device::Cpu).unwrap()
    }
}

impl Case {
    /// Panics unless a result is that of the CPU: to the last bit, but for attention to rounding.
    pub fn assert_equals_cpu(&self, got: &Tensor) {
        let want = self.call.on(&Device::Cpu);
        assert_eq!(got.dims(), want.dims(), "{}", self.name);
        assert_eq!(got.dtype(), want.dtype(), "{}", self.name);
        // One step of 11 and of 8 bits: a sum may lie between two of them.
        let step = match want.dtype() {
            DType::F16 => 1.0 / 1024.0,
            DType::BF16 => 1.0 / 128.0,
            _ => 0.0,
        };
        let allowed = match &self.call {
            Call::RaggedAttention(..) => |x: f64, step: f64, _: f64| 3e-6 + x.abs() * step,
            // Added in another order.
            Call::RowNorms(_) => |x: f64, _: f64, _: f64| x * 1e-14,
            Call::PrefillAttention(..) => |x: f64, step: f64, lost: f64| lost + x.abs() * step,
            _ => |_: f64, _: f64, _: f64| 0.0,
        };
        let lost = match &self.call {
            Call::PrefillAttention(tensors, ..) => prefill::lost(tensors, &self.name),
            _ => 0.0,
        };
        let floats = |tensor: &Tensor| -> Vec<f64> {
            let wide = tensor.to_dtype(DType::F64).unwrap();
            wide.flatten_all().unwrap().to_vec1().unwrap()
        };
        for (i, (got, want)) in floats(got).into_iter().zip(floats(&want)).enumerate() {
            // Infinities are equal, but have no distance.
            let close = got == want || (got - want).abs() <= allowed(want, step, lost);
            assert!(
                close || (got.is_nan() && want.is_nan()),
                "{} at {i}: {got} instead of {want}",
                self.name
            );
        }
    }
}

/// Numbers that look random and are the same everywhere.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (self.unit() * 3.0 - 1.5) as f32)
            .collect()
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Softmax rows `(G, rows, keys)` of logits that spread over `spread`; later keys are hidden from earlier rows.
fn attention(noise: &mut Noise, [group, rows, keys]: [usize; 3], spread: f64) -> Tensor {
    let mut values = Vec::with_capacity(group * rows * keys);
    for _ in 0..group {
        for row in 0..rows {
            let seen = keys.saturating_sub(rows - 1 - row).max(1);
            let logits: Vec<f64> = (0..keys).map(|_| noise.unit() * spread).collect();
            let sum: f64 = logits[..seen].iter().map(|l| l.exp()).sum();
            let p = |(key, l): (usize, &f64)| {
                if key < seen {
                    (l.exp() / sum) as f32
                } else {
                    0.0
                }
            };
            values.extend(logits.iter().enumerate().map(p));
        }
    }
    tensor(values, (group, rows, keys))
}

const THRESHOLDS: [f64; 5] = [0.5, 0.8, 0.9, 0.95, 0.99];

fn budgets(name: impl Into<String>, rows: Tensor, thresholds: &[f64]) -> Case {
    Case {
        name: name.into(),
        call: Call::CountsToMass(rows, thresholds.to_vec()),
    }
}

/// Shapes around the sizes of warps and blocks, of rows that fit shared memory and that do not.
pub fn row_budget_cases() -> Vec<Case> {
    let mut noise = Noise::new(1);
    let mut cases = Vec::new();
    let shapes = [
        [1, 1, 1],
        [1, 1, 2],
        [3, 2, 31],
        [2, 3, 33],
        [4, 1, 127],
        [3, 2, 129],
        [8, 1, 700],
        [1, 2, 2048],
        [2, 1, 2500],
        [1, 1, 6_000],
        [2, 1, 6_001],
        [1, 1, 11_001],
        [2, 1, 20_000],
    ];
    let longest = attention(&mut noise, [1, 1, 1 << 20], 9.0);
    cases.push(budgets("a row of 2^20 keys", longest, &THRESHOLDS));
    for shape in shapes {
        for spread in [0.0, 4.0, 25.0] {
            let rows = attention(&mut noise, shape, spread);
            cases.push(budgets(
                format!("{shape:?} over {spread}"),
                rows,
                &THRESHOLDS,
            ));
        }
    }
    let many: Vec<f64> = (0..=10)
        .map(|i| f64::from(i) / 10.0)
        .chain([1e-9, 0.999_999, 2.0])
        .collect();
    let rows = attention(&mut noise, [2, 2, 300], 6.0);
    cases.push(budgets("many thresholds", rows, &many));
    for (name, row) in odd_rows() {
        let keys = row.len();
        cases.push(budgets(name, tensor(row, (1, 1, keys)), &many));
    }
    // One row that is not finite among others that are.
    let mut values = vec![0.25; 2 * 3 * 40];
    values[40 + 7] = f32::NAN;
    values[3 * 40 + 2 * 40 + 1] = -1.0;
    cases.push(budgets(
        "rows beside wrong ones",
        tensor(values, (2, 3, 40)),
        &THRESHOLDS,
    ));
    cases
}

fn odd_rows() -> Vec<(&'static str, Vec<f32>)> {
    let mut one_hot = vec![0.0; 77];
    one_hot[50] = 1.0;
    let powers = (0..200).map(|i| 0.5f32.powi(i)).collect();
    let near = (0..3000)
        .map(|i| f32::from_bits(0x3dcc_cccd + i * i % 151))
        .collect();
    let mut with_infinity = vec![0.1; 65];
    with_infinity[64] = f32::INFINITY;
    vec![
        ("zeros", vec![0.0; 130]),
        ("zeros of both signs", vec![0.0, -0.0, 0.0, -0.0]),
        ("a minus zero among weights", vec![-0.0, 0.5, 0.5]),
        ("one key has all", one_hot),
        ("all keys have the same", vec![0.1; 1000]),
        (
            "two weights in turns",
            (0..999).map(|i| [0.25, 0.125][i % 2]).collect(),
        ),
        ("powers of two down to the smallest", powers),
        ("weights that differ in their last bits", near),
        (
            "a common exponent of each threshold's own",
            (0..4000)
                .map(|i| 0.5f32.powi(i % 40 / 4) * (1.0 + (i % 7) as f32 / 8.0))
                .collect(),
        ),
        ("the smallest number", vec![f32::from_bits(1); 100]),
        (
            "numbers without a leading bit",
            (0..400).map(f32::from_bits).collect(),
        ),
        ("the largest numbers", vec![f32::MAX; 100]),
        (
            "the largest and the smallest",
            vec![f32::MAX, f32::from_bits(1), 1.0],
        ),
        ("infinity", with_infinity),
        ("minus infinity", vec![0.5, f32::NEG_INFINITY]),
        ("not a number", vec![f32::NAN]),
    ]
}

/// Blocks of rows that begin anywhere, added to sums that are not zero.
pub fn row_sum_cases() -> Vec<Case> {
    let mut noise = Noise::new(2);
    let shapes = [
        ([1, 1, 1], 1, 0, 1),
        ([3, 5, 127], 127, 0, 32),
        ([2, 64, 128], 300, 60, 32),
        ([4, 7, 130], 130, 3, 8192),
        ([2, 3, 1000], 1024, 3, 32),
    ];
    let mut cases = Vec::new();
    for (shape, width, first, in_all) in shapes {
        let [group, _, keys] = shape;
        let rows = attention(&mut noise, shape, 20.0);
        let zeros = Tensor::zeros((group, width), DType::F64, &Device::Cpu).unwrap();
        // Sums that rows were added to before.
        add_rows(
            &zeros,
            &attention(&mut noise, [group, 2, keys], 3.0),
            0,
            in_all,
        )
        .unwrap();
        let in_order = Call::AddRowsInOrder(zeros.copy().unwrap(), rows.clone());
        cases.push(Case {
            name: format!("{shape:?} from {first}"),
            call: Call::AddRows(zeros, rows, first, in_all),
        });
        cases.push(Case {
            name: format!("{shape:?} in order"),
            call: in_order,
        });
    }
    cases
}

/// Heads of other lengths than their neighbours, head dimensions that warps divide and that they do not.
pub fn ragged_cases() -> Vec<Case> {
    // Query heads of a group, D, lengths, room, new tokens.
    let shapes: [(usize, usize, &[usize], usize, usize); 16] = [
        (1, 64, &[1], 0, 0),
        (3, 64, &[1, 255, 256, 257, 600], 0, 0),
        (4, 128, &[700, 3], 300, 0),
        (4, 128, &[700, 3], 300, 300),
        (2, 80, &[65, 64, 63], 7, 5),
        (9, 32, &[129, 31], 1, 1),
        (17, 16, &[50], 0, 0),
        (1, 256, &[300, 0], 4, 2),
        (2, 512, &[20, 90], 0, 0),
        (2, 320, &[70], 0, 0),
        (3, 10, &[150, 40], 2, 2),
        (2, 33, &[70, 9], 0, 0),
        (1, 511, &[66], 0, 0),
        (5, 96, &[66], 0, 0),
        (2, 16, &[20_000, 700], 9, 3),
        (1, 2, &[105_000], 0, 0), // more pieces than a block joins at once
    ];
    let mut noise = Noise::new(3);
    let mut cases = Vec::new();
    for (group, d, lengths, room, appended) in shapes {
        let mut heads = Vec::new();
        let mut rows = 2; // what is in front belongs to nobody
        for &length in lengths {
            heads.push(RaggedHead {
                start: rows,
                length,
            });
            rows += length + room + 1;
        }
        let mut part = |rows: usize, scale: f64| {
            let all = tensor(noise.floats(rows * d), (rows, d));
            (all * scale).unwrap()
        };
        let tensors = [
            part(lengths.len() * group, 1.0),
            part(rows, 1.0),
            part(rows, 1.0),
        ];
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let cast = tensors.clone().map(|t| t.to_dtype(dtype).unwrap());
            cases.push(Case {
                name: format!("{group} x {d} over {lengths:?} and {appended} in {dtype:?}"),
                call: Call::RaggedAttention(cast, heads.clone(), [room, appended]),
            });
        }
    }
    let sharp = [50.0, 3.0, 1.0].map(|scale| {
        let rows = if scale == 50.0 { 2 } else { 900 };
        (tensor(noise.floats(rows * 64), (rows, 64)) * scale).unwrap()
    });
    cases.push(Case {
        name: "logits in the hundreds".into(),
        call: Call::RaggedAttention(
            sharp,
            vec![RaggedHead {
                start: 0,
                length: 900,
            }],
            [0, 0],
        ),
    });
    cases
}

/// Rows within a tile, at its edge and over several, with ties and signs.
pub fn key_order_cases(longest: usize) -> Vec<Case> {
    let mut noise = Noise::new(4);
    let mut cases = Vec::new();
    for keys in [1, 2, 33, 2047, 2048, 2049, 5000, longest] {
        let heads = if keys > 5000 { 1 } else { 3 };
        let random = noise.floats(heads * keys);
        let tied: Vec<f32> = random.iter().map(|x| (x * 4.0).round() / 4.0).collect();
        let kinds = [("tied", tied), ("random", random)];
        for (kind, values) in kinds.into_iter().take(if keys > 5000 { 1 } else { 2 }) {
            let weights = tensor(values, (heads, keys));
            for dtype in [DType::F32, DType::F64] {
                let weights = weights.to_dtype(dtype).unwrap();
                cases.push(Case {
                    name: format!("{heads} x {keys} {kind} in {dtype:?}"),
                    call: Call::FallingOrder(weights),
                });
            }
        }
    }
    let odd = vec![
        0.0,
        -0.0,
        1.0,
        f32::INFINITY,
        -1.0,
        f32::NEG_INFINITY,
        1.0,
        -0.0,
        0.0,
    ];
    let odd = tensor(odd, (1, 9));
    // Weights that float32 does not tell apart.
    let near: Vec<f64> = (0..100)
        .map(|i| 1.0 + f64::from(i * 37 % 100) * 1e-12)
        .collect();
    let near = Tensor::from_vec(near, (2, 50), &Device::Cpu).unwrap();
    for weights in [odd.clone(), odd.to_dtype(DType::F64).unwrap(), near] {
        let name = format!("odd weights in {:?}", weights.dtype());
        let call = Call::FallingOrder(weights);
        cases.push(Case { name, call });
    }
    cases
}

/// Matrices around the sizes of stretches and blocks.
pub fn running_sum_cases() -> Vec<Case> {
    let mut noise = Noise::new(5);
    let shapes = [(1, 1), (63, 5), (64, 128), (65, 129), (1000, 3), (300, 200)];
    shapes
        .into_iter()
        .map(|shape| Case {
            name: format!("{shape:?}"),
            call: Call::RunningSums(tensor(noise.floats(shape.0 * shape.1), shape)),
        })
        .collect()
}
