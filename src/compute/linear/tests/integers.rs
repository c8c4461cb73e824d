//! Integer products against float64 ones of the same rounded activations, and against themselves on other paths.

use super::super::blocks::portable_integers;
use super::super::tiled::{self, Integers};
use super::*;

/// Formats with rows, width and activations that end within a panel, a depth or a tile.
const CASES: [(GgmlDType, usize, usize, usize); 12] = [
    (GgmlDType::Q4_0, 1, 32, 17),
    (GgmlDType::Q4_1, 65, 96, 18),
    (GgmlDType::Q5_0, 16, 576, 47),
    (GgmlDType::Q5_1, 63, 544, 48),
    (GgmlDType::Q8_0, 300, 1056, 49),
    (GgmlDType::Q2K, 5, 512, 20),
    (GgmlDType::Q3K, 80, 256, 101),
    (GgmlDType::Q4K, 129, 768, 33),
    (GgmlDType::Q5K, 16, 256, 21),
    (GgmlDType::Q6K, 17, 1280, 22),
    (GgmlDType::Q8_0, 33, 5184, 19),
    (GgmlDType::Q4_0, 1500, 1056, 31), // more than one block of rows
];

const KINDS: [(Products, f32); 2] = [(Products::Int16, 32767.0), (Products::Int8, 127.0)];

/// The nearest of so many levels of the largest of 32.
fn rounded(x: &[f32], levels: f32) -> Vec<f64> {
    let group = |x: &[f32]| -> Vec<f64> {
        let scale = x.iter().fold(0.0f32, |most, x| most.max(x.abs())) / levels;
        let nearest = |x: &f32| f64::from((x / scale).round_ties_even()) * f64::from(scale);
        x.iter().map(nearest).collect()
    };
    x.chunks(32).flat_map(group).collect()
}

#[test]
fn integer_products_equal_a_float64_reference_of_rounded_activations() {
    for (format, rows, width, n) in CASES {
        let tensor = quantised(format, rows, width);
        let weights = numbers(&tensor.dequantize(&Device::Cpu).unwrap());
        let x = activations(n, width);
        let float32 = numbers(&Matrix::Packed(packed(&tensor)).multiply(&x).unwrap());
        let x_numbers = numbers(&x);
        for (products, levels) in KINDS {
            let matrix = Matrix::Packed(packed(&tensor)).multiplied_as(products);
            let got = numbers(&matrix.multiply(&x).unwrap());
            let near = rounded(&x_numbers, levels);
            for (i, (got, float32)) in got.iter().zip(&float32).enumerate() {
                let weights = weights[i % rows * width..][..width].iter();
                let terms = weights.zip(&near[i / rows * width..]);
                let terms = terms.map(|(&w, x)| f64::from(w) * x);
                let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                let what = format!("{format:?} {products} {i}: {got} {sum} {float32}");
                assert!((f64::from(*got) - sum).abs() < 1e-6 * size, "{what}");
                // An activation moves by half a level of the largest of its group.
                let moved = f64::from(got - float32).abs();
                assert!(moved < 4.0 * size / f64::from(levels), "{what}");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (format, rows, width, n) in CASES {
        let x = numbers(&activations(n, width));
        let matrix = packed(&quantised(format, rows, width));
        let portable = portable_integers(format).unwrap();
        for (products, _) in KINDS {
            let matrix = packed(&quantised(format, rows, width)).multiplied_as(products);
            let fastest =
                tiled::multiply(&matrix.packed_rows(), &matrix.integers().unwrap(), &x, n);
            let portable = Integers::of(portable, products).unwrap();
            let portable = tiled::multiply(&matrix.packed_rows(), &portable, &x, n);
            assert_eq!(fastest, portable, "{format:?} {products}");
            // With kernels for 8 bits, where there are any.
            let x = Tensor::from_slice(&x, (n, width), &Device::Cpu).unwrap();
            let chosen = Matrix::Packed(matrix).multiply(&x).unwrap();
            assert_eq!(numbers(&chosen), portable, "{format:?} {products}");
        }
        assert!(
            matrix.integers().is_none(),
            "float32 unless it is asked for"
        );
    }
}

#[test]
fn integer_products_do_not_depend_on_other_rows_or_threads() {
    let tensor = quantised(GgmlDType::Q4_1, 300, 1152);
    let matrix = Matrix::Packed(packed(&tensor)).multiplied_as(Products::Int16);
    let x = activations(101, 1152);
    let with = |threads: usize, from: usize, n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let x = x.narrow(0, from, n).unwrap();
        let multiplied = pool.build().unwrap().install(|| matrix.multiply(&x));
        numbers(&multiplied.unwrap())
    };
    let all = with(1, 0, 101);
    assert_eq!(all, with(3, 0, 101));
    assert_eq!(all[50 * 300..67 * 300], with(2, 50, 17));
}

#[test]
fn activations_that_are_not_finite_give_no_number() {
    for (format, rows, width, n) in CASES {
        for (products, _) in KINDS {
            let matrix = packed(&quantised(format, rows, width)).multiplied_as(products);
            let matrix = Matrix::Packed(matrix);
            for wrong in [f32::NAN, f32::INFINITY] {
                let mut x = noise(n * width, 3);
                x[5 * width + width / 2] = wrong;
                let x = Tensor::from_vec(x, (n, width), &Device::Cpu).unwrap();
                let got = numbers(&matrix.multiply(&x).unwrap());
                for (i, got) in got.into_iter().enumerate() {
                    assert_eq!(got.is_nan(), i / rows == 5, "{format:?} {i}: {got}");
                }
            }
        }
    }
}

/// The largest sums that there can be: all codes at their end, all activations at theirs.
#[test]
fn sums_of_the_largest_codes_do_not_overflow() {
    // Where each format has its scales of float16, of which every one is set to one.
    let places: [(GgmlDType, &[usize]); 10] = [
        (GgmlDType::Q4_0, &[0]),
        (GgmlDType::Q4_1, &[0, 2]),
        (GgmlDType::Q5_0, &[0]),
        (GgmlDType::Q5_1, &[0, 2]),
        (GgmlDType::Q8_0, &[0]),
        (GgmlDType::Q2K, &[80, 82]),
        (GgmlDType::Q3K, &[108]),
        (GgmlDType::Q4K, &[0, 2]),
        (GgmlDType::Q5K, &[0, 2]),
        (GgmlDType::Q6K, &[208]),
    ];
    let (rows, blocks, n) = (17, 3, 18);
    for (format, places) in places {
        for code in [0xffu8, 0x80, 0x7f] {
            let width = blocks * format.block_size();
            let mut bytes = vec![code; rows * blocks * format.type_size()];
            for block in bytes.chunks_exact_mut(format.type_size()) {
                for &at in places {
                    block[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes());
                }
            }
            let matrix = || Packed::new(format, bytes.clone(), rows, width).unwrap();
            let x: Vec<f32> = (0..n * width)
                .map(|i| match i / width % 3 {
                    0 => 1.0,
                    1 => -1.0,
                    _ => [1.0, -1.0][i % 2],
                })
                .collect();
            let mut weights = vec![0f32; width];
            matrix().unpack_row(0, &mut weights);
            for (products, _) in KINDS {
                let matrix = matrix().multiplied_as(products);
                let portable = Integers::of(portable_integers(format).unwrap(), products);
                let portable = tiled::multiply(&matrix.packed_rows(), &portable.unwrap(), &x, n);
                let integers = matrix.integers().unwrap();
                let integers = tiled::multiply(&matrix.packed_rows(), &integers, &x, n);
                let tensor = Tensor::from_slice(&x, (n, width), &Device::Cpu).unwrap();
                let chosen = numbers(&Matrix::Packed(matrix).multiply(&tensor).unwrap());
                let bits = |x: &[f32]| -> Vec<u32> { x.iter().map(|x| x.to_bits()).collect() };
                assert_eq!(bits(&integers), bits(&portable), "{format:?} {code:#x}");
                assert_eq!(bits(&chosen), bits(&portable), "{format:?} {code:#x}");
                for (i, got) in chosen.iter().enumerate() {
                    let x = &x[i / rows * width..][..width];
                    let terms = weights.iter().zip(x);
                    let terms = terms.map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                    let error = (f64::from(*got) - sum).abs();
                    assert!(error < 1e-6 * size, "{format:?} {code:#x} {i}: {got} {sum}");
                }
            }
        }
    }
}

#[test]
fn numbers_of_half_the_bytes_and_few_activations_stay_float32() {
    for (format, n) in [
        (GgmlDType::F16, 20),
        (GgmlDType::BF16, 20),
        (GgmlDType::Q4_0, FEW_ROWS),
    ] {
        let tensor = quantised(format, 40, 64);
        let x = activations(n, 64);
        let plain = Matrix::Packed(packed(&tensor)).multiply(&x).unwrap();
        let asked = Matrix::Packed(packed(&tensor)).multiplied_as(Products::Int8);
        assert_eq!(numbers(&asked.multiply(&x).unwrap()), numbers(&plain));
    }
}
