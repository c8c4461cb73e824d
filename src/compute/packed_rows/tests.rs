//! Packings against their definition, on every instruction set.

use super::*;
use crate::compute::lanes::Portable;
#[cfg(target_arch = "x86_64")]
use crate::compute::lanes::{Avx2, Avx512, has_256, has_512};
use proptest::prelude::*;

/// Numbers that differ in size by column and by row.
fn numbers(rows: usize, width: usize, seed: u32) -> Vec<f32> {
    let number = |i: usize| {
        let mixed = (i as u32 + 1).wrapping_mul(2_654_435_761 ^ seed.wrapping_mul(97));
        let x = f64::from(mixed >> 8) / f64::from(1 << 24) - 0.4;
        (x * f64::from(1 + (i % width % 7) as u32) * f64::from(1 + (i / width % 3) as u32)) as f32
    };
    (0..rows * width).map(number).collect()
}

/// All packings for rows of a width.
fn packings(width: usize) -> Vec<Packing> {
    let mut all = vec![Packing::Halves];
    for bits in Bits::ALL {
        all.push(Packing::ByChannel(bits, 32));
        all.push(Packing::ByChannel(bits, 5));
        all.extend([32, width, width.div_ceil(4)].map(|group| Packing::ByRow(bits, group)));
    }
    if width.is_multiple_of(BLOCK) {
        all.extend(BlockFormat::ALL.map(Packing::Blocks));
    }
    all
}

fn packed(packing: Packing, numbers: &[f32], width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packing.pack(numbers, width, &mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_are_as_many_as_are_said_and_rows_are_read_alike_by_all_lanes() {
    for width in [8, 24, 64, 96, 128] {
        for packing in packings(width) {
            let rows = 4 * packing.rows();
            let numbers = numbers(rows, width, 1);
            let bytes = packed(packing, &numbers, width);
            assert_eq!(bytes.len(), 4 * packing.bytes(width), "{packing:?} {width}");
            let mut whole = vec![0.0; numbers.len()];
            packing.unpack_in::<Portable>(&bytes, width, 0..rows, &mut whole);
            for (start, end) in [(0, rows), (1, rows - 1), (rows / 2, rows / 2 + 1), (3, 3)] {
                let want = &whole[start * width..end * width];
                let check = |run: &dyn Fn(&mut [f32])| {
                    let mut part = vec![f32::NAN; (end - start) * width];
                    run(&mut part);
                    assert_eq!(part, want, "{packing:?} {width} {start}..{end}");
                };
                check(&|to| packing.unpack_in::<Portable>(&bytes, width, start..end, to));
                check(&|to| packing.unpack(&bytes, width, start..end, to));
                #[cfg(target_arch = "x86_64")]
                {
                    if has_256() {
                        check(&|to| packing.unpack_in::<Avx2>(&bytes, width, start..end, to));
                    }
                    if has_512() {
                        check(&|to| packing.unpack_in::<Avx512>(&bytes, width, start..end, to));
                    }
                }
            }
        }
    }
}

/// The largest error that a number of a group may have: half a level of a group that spans it.
fn half_level(group: &[f32], bits: Bits) -> f64 {
    half_of(group, f64::from(bits.largest()))
}

/// The same of as many steps as there are between the least and the most.
fn half_of(group: &[f32], steps: f64) -> f64 {
    let most = group.iter().copied().fold(f32::MIN, f32::max);
    let least = group.iter().copied().fold(f32::MAX, f32::min);
    // The zero point loses up to one part in 1024 of its size, the scale of its own.
    let slack = f64::from(least.abs()) / 1024.0 + 1e-7;
    let scale = (f64::from(most - least) + slack) / steps;
    (scale * (1.0 + 1.0 / 1024.0) + 1e-7) / 2.0
        + f64::from(most.abs().max(least.abs())) * 2f64.powi(-22)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Coding and reading back moves no number further than the bound of its group.
    #[test]
    fn round_trips_keep_to_their_bounds(seed in 0u32..10_000, width in prop::sample::select(vec![8usize, 32, 64, 80, 128])) {
        for packing in packings(width) {
            let rows = 2 * packing.rows();
            let numbers = numbers(rows, width, seed);
            let bytes = packed(packing, &numbers, width);
            let mut back = vec![0.0; numbers.len()];
            packing.unpack(&bytes, width, 0..rows, &mut back);
            for (i, (x, y)) in numbers.iter().zip(&back).enumerate() {
                let (row, column) = (i / width, i % width);
                let block = |size: usize| {
                    let start = row * width + column / size * size;
                    &numbers[start..((row + 1) * width).min(start + size)]
                };
                let largest = |size| block(size).iter().fold(0f32, |m, x| m.max(x.abs()));
                // A scale and a minimum that are rounded to the nearest: half a level, and what each loses.
                let minimum = |steps: f64| {
                    let group = block(BLOCK);
                    let most = group.iter().copied().fold(f32::MIN, f32::max);
                    let least = group.iter().copied().fold(f32::MAX, f32::min);
                    half_of(group, steps) + f64::from(most - least + least.abs()) / 2048.0
                };
                let bound = match packing {
                    Packing::Halves => f64::from(x.abs()) / 2048.0 + 1e-7,
                    Packing::ByRow(bits, size) => half_level(block(size), bits),
                    Packing::ByChannel(bits, together) => {
                        let first = row / together * together;
                        let column: Vec<f32> =
                            (first..first + together).map(|r| numbers[r * width + column]).collect();
                        half_level(&column, bits)
                    }
                    // Half a level, and what 127 levels lose together because their scale is float16.
                    Packing::Blocks(BlockFormat::Q8_0) => {
                        f64::from(largest(BLOCK)) / 127.0 * (0.5 + 127.0 / 2048.0) + 1e-6
                    }
                    // Signed codes around zero: one level of the largest number, which one side may not reach.
                    Packing::Blocks(BlockFormat::Q4_0) => f64::from(largest(BLOCK)) / 8.0 * 1.01,
                    Packing::Blocks(BlockFormat::Q5_0) => f64::from(largest(BLOCK)) / 16.0 * 1.01,
                    Packing::Blocks(BlockFormat::Q4_1) => minimum(15.0),
                    Packing::Blocks(BlockFormat::Q5_1) => minimum(31.0),
                };
                let error = (f64::from(*x) - f64::from(*y)).abs();
                prop_assert!(error <= bound, "{packing:?} {width}: {x} became {y}, bound {bound}");
            }
        }
    }
}

/// Rows, and what an independent implementation in NumPy, and llama.cpp's own in Python, make of them.
#[derive(serde::Deserialize)]
struct Goldens {
    by_row: Vec<Golden>,
    by_channel: Vec<Golden>,
    hadamard: Vec<Rotated>,
}

#[derive(serde::Deserialize)]
struct Golden {
    name: String,
    shape: [usize; 2],
    input: Vec<f32>,
    #[serde(default)]
    ggml: std::collections::BTreeMap<String, Block>,
    #[serde(default)]
    by_row: Vec<Coded>,
    #[serde(default)]
    by_channel: Vec<Coded>,
}

#[derive(serde::Deserialize)]
struct Block {
    hex: Vec<String>,
    decoded: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Coded {
    bits: usize,
    #[serde(default)]
    group: usize,
    decoded: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Rotated {
    size: usize,
    input: Vec<Vec<f32>>,
    rotated: Vec<Vec<f64>>,
}

#[test]
fn codes_and_numbers_are_those_of_the_references() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/living/quantised_rows.json"
    );
    let goldens: Goldens = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut checked = 0;
    let mut check = |packing: Packing, golden: &Golden, decoded: &[f32]| {
        let [rows, width] = golden.shape;
        let bytes = packed(packing, &golden.input, width);
        let mut back = vec![0.0; rows * width];
        packing.unpack(&bytes, width, 0..rows, &mut back);
        assert_eq!(back, decoded, "{packing:?} of {}", golden.name);
        checked += 1;
        bytes
    };
    let bits = |count: usize| {
        Bits::ALL
            .into_iter()
            .find(|bits| bits.count() == count)
            .unwrap()
    };
    for golden in &goldens.by_row {
        for format in BlockFormat::ALL {
            let want = &golden.ggml[format.name()];
            let bytes = check(Packing::Blocks(format), golden, &want.decoded);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(
                hex,
                want.hex.concat(),
                "{} of {}",
                format.name(),
                golden.name
            );
        }
        for coded in &golden.by_row {
            check(
                Packing::ByRow(bits(coded.bits), coded.group),
                golden,
                &coded.decoded,
            );
        }
    }
    for golden in &goldens.by_channel {
        for coded in &golden.by_channel {
            check(
                Packing::ByChannel(bits(coded.bits), 32),
                golden,
                &coded.decoded,
            );
        }
    }
    assert_eq!(checked, 39);
    for rotated in &goldens.hadamard {
        for (input, want) in rotated.input.iter().zip(&rotated.rotated) {
            let mut got = input.clone();
            rotate(&mut got, rotated.size);
            let largest = input.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                assert!((f64::from(*got) - want).abs() <= 1e-5 * f64::from(largest) + 1e-12);
            }
        }
    }
}

#[test]
fn more_bits_are_nearer() {
    let width = 64;
    let numbers = numbers(64, width, 5);
    let error = |packing: Packing| {
        let bytes = packed(packing, &numbers, width);
        let mut back = vec![0.0; numbers.len()];
        packing.unpack(&bytes, width, 0..64, &mut back);
        let squares = numbers.iter().zip(&back);
        squares.map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>()
    };
    let formats = BlockFormat::ALL.map(|f| error(Packing::Blocks(f)));
    assert!(formats[0] < formats[1] && formats[1] < formats[3] && formats[2] < formats[4]);
    for packing in [
        |bits| Packing::ByChannel(bits, 32),
        |bits| Packing::ByRow(bits, 32),
    ] {
        let [eight, four, two] = Bits::ALL.map(|bits| error(packing(bits)));
        assert!(
            100.0 * eight < four && 10.0 * four < two,
            "{eight} {four} {two}"
        );
    }
}

#[test]
fn what_has_no_level_is_refused() {
    for packing in packings(32) {
        for bad in [f32::NAN, f32::INFINITY, 1e9] {
            let mut numbers = numbers(packing.rows(), 32, 2);
            numbers[7] = bad;
            let mut bytes = Vec::new();
            let said = packing.pack(&numbers, 32, &mut bytes).unwrap_err();
            assert!(said.to_string().contains("65504"), "{packing:?}");
        }
    }
}
