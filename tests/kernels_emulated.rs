//! The CUDA kernels, run on the CPU: what they compute, and that no order of threads or blocks changes it.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod emulation;
mod kernel_cases;

use candle_core::{DType, Device, Tensor};
use emulation::{Operand, emulator, run};
use kernel_cases::{
    Call, Case, Noise, best_token_cases, key_order_cases, mass_sum_cases, pooling_cases,
    prefill_cases, ragged_cases, row_budget_cases, row_sum_cases, running_sum_cases,
};
use kvprof::compute::device::{
    AddRows, Buffer, CountsToMass, FallingOrder, LargestEntries, Launch, PoolRows, PrefixSums,
    Program, RunningSums,
};
use kvprof::model::attention::device::{PrefillAttention, RaggedAttention};
use kvprof::model::ragged_heads::{RaggedHead, RaggedHeads};

/// Threads in turns; warps that run ahead of others, against their order and shuffled.
const SCHEDULES: [u32; 3] = [0, 1, 2];

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    macro_rules! bytes {
        ($type:ty) => {
            (flat.to_vec1::<$type>().unwrap().iter())
                .flat_map(|x| x.to_le_bytes())
                .collect()
        };
    }
    match tensor.dtype() {
        DType::F32 => bytes!(f32),
        DType::F64 => bytes!(f64),
        DType::U32 => bytes!(u32),
        DType::F16 => bytes!(half::f16),
        DType::BF16 => bytes!(half::bf16),
        other => panic!("no kernel takes {other:?}"),
    }
}

fn holding(tensor: &Tensor) -> Operand {
    Operand::Holding(bytes_of(tensor))
}

/// Runs a program on tensors; its output.
fn output(program: &Program, inputs: &[&Tensor], schedule: u32) -> Tensor {
    let inputs = inputs.iter().map(|input| holding(input));
    output_of(program, inputs.collect(), schedule)
}

/// The same on memory of any kind.
fn output_of(program: &Program, inputs: Vec<Operand>, schedule: u32) -> Tensor {
    let (dtype, shape) = &program.output;
    let mut operands = inputs;
    operands.push(Operand::Empty(shape.elem_count() * dtype.size_in_bytes()));
    let bytes = run(program, &operands, schedule).pop().unwrap();
    Tensor::from_raw_buffer(&bytes, *dtype, shape.dims(), &Device::Cpu).unwrap()
}

fn emulated(call: &Call, schedule: u32) -> Tensor {
    match call {
        Call::CountsToMass(rows, thresholds) => {
            let op = CountsToMass::new(rows.dims3().unwrap(), thresholds).unwrap();
            output(&op.program, &[rows], schedule)
        }
        Call::AddRows(sums, rows, first, in_all) => {
            let (dims, of_rows) = (sums.dims2().unwrap(), rows.dims3().unwrap());
            let op = AddRows::new(dims, of_rows, *first, *in_all).unwrap();
            added(&op.program, sums, rows, schedule)
        }
        Call::AddRowsInOrder(sums, rows) => {
            let op = AddRows::in_order(sums.dims2().unwrap(), rows.dims3().unwrap()).unwrap();
            added(&op.program, sums, rows, schedule)
        }
        Call::PrefillAttention([q, k, v], heads, dtype) => {
            prefill_emulated([q, k, v], heads, *dtype, schedule)
        }
        Call::RaggedAttention([q, k, v], heads, [room, appended]) => {
            let heads = RaggedHeads::new(heads, *room, &Device::Cpu).unwrap();
            let dims = [q.dims2().unwrap(), k.dims2().unwrap()];
            let op = RaggedAttention::new(&heads, dims, q.dtype(), *appended, [0, 0]).unwrap();
            output(&op.program, &[q, k, v, heads.table()], schedule)
        }
        Call::FallingOrder(weights) => {
            let op = FallingOrder::new(weights.dims2().unwrap(), weights.dtype()).unwrap();
            output(&op.program, &[weights], schedule)
        }
        Call::RunningSums(values) => {
            let op = RunningSums::new(values.dims2().unwrap()).unwrap();
            output(&op.program, &[values], schedule)
        }
        Call::PrefixSums(sorted) => {
            let op = PrefixSums::new(sorted.dims2().unwrap()).unwrap();
            output(&op.program, &[sorted], schedule)
        }
        Call::PoolRows(attention, how) => {
            let op = PoolRows::new(attention.dims2().unwrap(), *how).unwrap();
            output(&op.program, &[attention], schedule)
        }
        Call::RowNorms(_) => unreachable!("norms have no kernel of our own"),
        Call::LargestEntries(scores, quotas) => {
            let op = LargestEntries::new(scores.dims2().unwrap(), quotas).unwrap();
            let chosen = op.chosen(&Device::Cpu).unwrap();
            output(&op.program, &[scores, &chosen], schedule)
        }
    }
}

/// Sums after rows were added to them.
fn added(program: &Program, sums: &Tensor, rows: &Tensor, schedule: u32) -> Tensor {
    let after = run(program, &[holding(rows), holding(sums)], schedule);
    Tensor::from_raw_buffer(&after[1], DType::F64, sums.dims(), &Device::Cpu).unwrap()
}

fn prefill_emulated(
    [q, k, v]: [&Tensor; 3],
    heads: &[RaggedHead],
    dtype: DType,
    schedule: u32,
) -> Tensor {
    let (queries, keys) = (q.dims3().unwrap(), k.dims2().unwrap());
    let types = [q.dtype(), dtype];
    let op = PrefillAttention::new(heads, queries, keys, types, &Device::Cpu).unwrap();
    output(&op.program, &[q, k, v, op.table()], schedule)
}

fn check(cases: Vec<Case>) {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    for case in cases {
        let results = SCHEDULES.map(|schedule| emulated(&case.call, schedule));
        case.assert_equals_cpu(&results[0]);
        for other in &results[1..] {
            assert_eq!(bytes_of(&results[0]), bytes_of(other), "{}", case.name);
        }
    }
}

#[test]
fn counts_to_mass_equal_those_of_sorted_rows() {
    check(row_budget_cases());
}

#[test]
fn sums_of_rows_equal_those_of_the_cpu() {
    check(row_sum_cases());
}

#[test]
fn ragged_attention_equals_the_definition() {
    check(ragged_cases());
}

#[test]
fn prefill_attention_equals_the_definition() {
    check(prefill_cases());
}

#[test]
fn a_row_has_the_same_bits_in_every_run() {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    let (h_q, d, before, n) = (3, 64, 41, 90);
    let mut noise = Noise::new(8);
    let mut random = |shape: &[usize]| {
        let values = noise.floats(shape.iter().product());
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(DType::BF16).unwrap()
    };
    let (q, k, v) = (
        random(&[h_q, n, d]),
        random(&[before + n, d]),
        random(&[before + n, d]),
    );
    let attend = |from: usize, end: usize| {
        let queries = q.narrow(1, from, end - from).unwrap();
        let queries = queries.contiguous().unwrap();
        let head = RaggedHead {
            start: 0,
            length: before + end,
        };
        let rows = prefill_emulated([&queries, &k, &v], &[head], DType::F32, 0);
        bytes_of(&rows)
    };
    let runs = [attend(0, 1), attend(1, 37), attend(37, n)].concat();
    assert_eq!(attend(0, n), runs);
}

/// a (16, 16) x b (16, 8) added to sums, by the emulated instructions, and b as both ways of loading it give it.
fn product(a: &Tensor, b: &Tensor, sums: &Tensor) -> (Vec<f32>, Vec<u8>) {
    let any = RunningSums::new((1, 1)).unwrap().program;
    let program = Program {
        scratch: vec![],
        launches: vec![Launch {
            kernel: match a.dtype() {
                DType::F16 => "product_f16",
                _ => "product_bf16",
            },
            grid: [1, 1],
            threads: 32,
            shared: 2 * (256 + 128 + 128),
            arguments: (0..5).map(|i| Buffer::Operand(i).into()).collect(),
        }],
        ..any
    };
    let turned = b.t().unwrap().contiguous().unwrap();
    let mut operands: Vec<Operand> = [a, b, &turned, sums].map(holding).into();
    operands.push(Operand::Empty(32 * 4 * 4));
    let mut after = run(&program, &operands, 1);
    let loaded = after.pop().unwrap();
    let sums = after.pop().unwrap();
    let float = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    (sums.chunks(4).map(float).collect(), loaded)
}

#[test]
fn tensor_cores_multiply_as_plain_loops_do() {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    let mut noise = Noise::new(10);
    for dtype in [DType::F16, DType::BF16] {
        for whole in [true, false] {
            let mut random = |rows: usize, columns: usize| -> Tensor {
                let mut values = noise.floats(rows * columns);
                if whole {
                    values.iter_mut().for_each(|x| *x = (*x * 8.0).round());
                }
                let all = Tensor::from_vec(values, (rows, columns), &Device::Cpu);
                all.unwrap().to_dtype(dtype).unwrap()
            };
            let (a, b, sums) = (random(16, 16), random(16, 8), random(16, 8));
            let sums = sums.to_dtype(DType::F32).unwrap();
            let (got, loaded) = product(&a, &b, &sums);
            for lane in loaded.chunks(16) {
                assert_eq!(lane[..8], lane[8..]);
            }
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            let (a, b, sums) = (wide(&a), wide(&b), wide(&sums));
            for (i, got) in got.into_iter().enumerate() {
                let (row, column) = (i / 8, i % 8);
                let products = (0..16).map(|k| a[row][k] * b[k][column]);
                let want = sums[row][column] + products.sum::<f64>();
                // Whole numbers are added without error; others are cut to the largest's 24 bits, twice 9 of them.
                let allowed = if whole {
                    0.0
                } else {
                    20.0 * 4.0 * 2f64.powi(-23)
                };
                let gap = (f64::from(got) - want).abs();
                assert!(gap <= allowed, "{dtype:?} at {row}, {column}: {got} {want}");
            }
        }
    }
}

#[test]
fn orders_of_keys_equal_a_stable_sort() {
    check(key_order_cases(131_072));
}

#[test]
fn masses_equal_those_of_the_cpu() {
    check(mass_sum_cases());
}

#[test]
fn running_sums_equal_those_of_the_cpu() {
    check(running_sum_cases());
}

#[test]
fn room_and_other_heads_change_no_bit_of_ragged_attention() {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    let mut noise = Noise::new(8);
    let mut part =
        |rows: usize| Tensor::from_vec(noise.floats(rows * 24), (rows, 24), &Device::Cpu).unwrap();
    let (q, k, v) = (part(6), part(2000), part(2000));
    let long = RaggedHead {
        start: 400,
        length: 1500,
    };
    let short = RaggedHead {
        start: 10,
        length: 70,
    };
    let attend = |queries: &Tensor, heads: &[RaggedHead], room: usize| {
        let call = Call::RaggedAttention(
            [queries.clone(), k.clone(), v.clone()],
            heads.to_vec(),
            [room, 0],
        );
        emulated(&call, 0).to_vec2::<f32>().unwrap()
    };
    let alone = attend(&q.narrow(0, 2, 2).unwrap(), &[long], 0);
    let among = attend(&q, &[short, long, short], 100);
    assert_eq!(alone, among[2..4]);
}

#[test]
fn rows_are_read_wherever_they_begin() {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    let mut noise = Noise::new(6);
    let mut half = |rows: usize, d: usize| {
        let values = Tensor::from_vec(noise.floats(rows * d), (rows, d), &Device::Cpu).unwrap();
        values.to_dtype(DType::F16).unwrap()
    };
    let (q, k, v) = (half(2, 16), half(90, 16), half(90, 16));
    let head = RaggedHead {
        start: 1,
        length: 89,
    };
    let heads = RaggedHeads::new(&[head], 0, &Device::Cpu).unwrap();
    let case = Case {
        name: "keys anywhere".into(),
        call: Call::RaggedAttention([q.clone(), k.clone(), v.clone()], vec![head], [0, 0]),
    };
    // The emulator's memory ends at a boundary: what follows the keys moves their start to so many elements behind one.
    let moved = |said: usize, start: usize| {
        let op =
            RaggedAttention::new(&heads, [(2, 16), (90, 16)], DType::F16, 0, [said, 0]).unwrap();
        let mut keys = bytes_of(&k);
        keys.extend(vec![0xff; 2 * ((8 - start) % 8)]);
        let values = vec![holding(&v), holding(heads.table())];
        let inputs = [vec![holding(&q), Operand::Holding(keys)], values].concat();
        output_of(&op.program, inputs, 0)
    };
    for start in [0, 1, 2, 6, 7] {
        case.assert_equals_cpu(&moved(start, start));
    }
    for (said, start) in [(0, 2), (2, 1)] {
        let run = std::panic::AssertUnwindSafe(|| moved(said, start));
        assert!(
            std::panic::catch_unwind(run).is_err(),
            "{start}, not {said}"
        );
    }
}

#[test]
fn pooled_heads_equal_those_of_the_cpu() {
    check(pooling_cases());
}

#[test]
fn largest_entries_equal_those_of_the_cpu() {
    check(best_token_cases(1 << 20));
}

#[test]
fn what_a_kernel_does_wrong_is_found() {
    if emulator().is_none() {
        eprintln!("skipped: no C++ compiler");
        return;
    }
    let values = Tensor::zeros((70, 3), DType::F32, &Device::Cpu).unwrap();
    let good = RunningSums::new((70, 3)).unwrap().program;
    let failed = |program: &Program, bytes: usize| {
        let operands = [holding(&values), Operand::Empty(bytes)];
        std::panic::catch_unwind(|| run(program, &operands, 0)).is_err()
    };
    assert!(!failed(&good, 70 * 3 * 4));
    assert!(failed(&good, 69 * 3 * 4), "writes behind the end");
    let mut wrong = good.clone();
    wrong.launches[2].arguments.swap(2, 3);
    assert!(failed(&wrong, 70 * 3 * 4), "arguments in another order");
    let mut wrong = good.clone();
    wrong.launches[0].arguments.pop();
    assert!(failed(&wrong, 70 * 3 * 4), "an argument too few");
}
