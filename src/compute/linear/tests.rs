//! Packed matrices against candle's dequantised ones, on every instruction set of this processor.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use super::blocks::kernels_at_every_level;
use super::*;

mod integers;

const FORMATS: [GgmlDType; 12] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::F16,
    GgmlDType::BF16,
];

/// Numbers without a pattern, in -1..1.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn quantised(format: GgmlDType, rows: usize, width: usize) -> QTensor {
    let values = Tensor::from_vec(noise(rows * width, 7), (rows, width), &Device::Cpu).unwrap();
    QTensor::quantize(&values, format).unwrap()
}

fn packed(tensor: &QTensor) -> Packed {
    let (rows, width) = tensor.shape().dims2().unwrap();
    let bytes = tensor.data().unwrap().into_owned();
    Packed::new(tensor.dtype(), bytes, rows, width).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn activations(n: usize, width: usize) -> Tensor {
    Tensor::from_vec(noise(n * width, 3), (n, width), &Device::Cpu).unwrap()
}

/// Every bit pattern counts: the blocks are noise, float16 scales that are no numbers included.
#[test]
fn unpacked_weights_are_candles_bits() {
    for format in FORMATS {
        let blocks = 64 * 32 / format.block_size().min(32);
        let bytes: Vec<u8> = noise(blocks * format.type_size(), 11)
            .iter()
            .map(|x| (x.to_bits() >> 3) as u8)
            .collect();
        let weights = blocks * format.block_size();
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, format).unwrap();
        let tensor = QTensor::new(storage, (1, weights)).unwrap();
        let want = numbers(&tensor.dequantize(&Device::Cpu).unwrap());
        let levels = kernels_at_every_level(format);
        assert!(!levels.is_empty());
        for kernels in levels {
            let mut got = vec![0f32; weights];
            kernels.unpack(&bytes, &mut got);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                assert!(same, "{format:?} weight {i}: {got} {want}");
            }
        }
    }
}

#[test]
fn products_equal_a_float64_reference_at_every_level() {
    let (rows, width, n) = (5, 512, 9);
    let x = numbers(&activations(n, width));
    let inputs: Vec<&[f32]> = x.chunks(width).collect();
    for format in FORMATS {
        let tensor = quantised(format, rows, width);
        let weights = numbers(&tensor.dequantize(&Device::Cpu).unwrap());
        let bytes = tensor.data().unwrap();
        for kernels in kernels_at_every_level(format) {
            let mut got = vec![0f32; rows * n];
            kernels.products(&bytes, bytes.len() / rows, &inputs, &mut got);
            for (i, got) in got.iter().enumerate() {
                let terms = weights[i / n * width..][..width].iter().zip(inputs[i % n]);
                let terms = terms.map(|(&w, &x)| f64::from(w) * f64::from(x));
                let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                let error = (f64::from(*got) - sum).abs();
                assert!(error < 3e-7 * size, "{format:?} {i}: {got} {sum}");
            }
        }
    }
}

#[test]
fn a_product_is_the_same_alone_and_among_others() {
    let tensor = quantised(GgmlDType::Q4_1, 300, 576);
    let matrix = Matrix::Packed(packed(&tensor));
    let x = activations(FEW_ROWS, 576);
    let together = matrix.multiply(&x).unwrap();
    for i in 0..FEW_ROWS {
        let alone = matrix.multiply(&x.narrow(0, i, 1).unwrap()).unwrap();
        assert_eq!(
            numbers(&alone),
            numbers(&together.narrow(0, i, 1).unwrap()),
            "row {i}"
        );
    }
}

/// Wide enough for several blocks of unpacked rows.
#[test]
fn many_activations_give_the_bits_of_a_dense_product() {
    let (rows, width) = (300, 8192);
    let tensor = quantised(GgmlDType::Q8_0, rows, width);
    let dense = tensor.dequantize(&Device::Cpu).unwrap();
    let matrix = Matrix::Packed(packed(&tensor));
    for n in [FEW_ROWS + 1, 33] {
        let x = activations(n, width);
        let want = x.matmul(&dense.t().unwrap()).unwrap();
        assert_eq!(numbers(&matrix.multiply(&x).unwrap()), numbers(&want));
    }
}

#[test]
fn rows_are_selected_as_in_the_dense_matrix() {
    for format in FORMATS {
        let tensor = quantised(format, 24, 256);
        let want = Matrix::Dense(tensor.dequantize(&Device::Cpu).unwrap());
        let got = Matrix::Packed(packed(&tensor));
        assert_eq!(
            numbers(&got.dense().unwrap()),
            numbers(&want.dense().unwrap())
        );
        let ids = [3u32, 0, 23, 3];
        assert_eq!(
            numbers(&got.select(&ids).unwrap()),
            numbers(&want.select(&ids).unwrap())
        );
    }
}

#[test]
fn layers_together_equal_layers_alone() {
    let layers = [40, 16, 300].map(|rows| Linear {
        matrix: Matrix::Packed(packed(&quantised(GgmlDType::Q6K, rows, 256))),
        bias: Some(Tensor::from_vec(noise(rows, 5), rows, &Device::Cpu).unwrap()),
    });
    let [a, b, c] = &layers;
    for n in [1, 3, FEW_ROWS + 1] {
        let x = activations(n, 256);
        let together = Linear::forward_all([a, b, c], &x).unwrap();
        for (layer, together) in layers.iter().zip(&together) {
            assert_eq!(numbers(&layer.forward(&x).unwrap()), numbers(together));
        }
    }
}

#[test]
fn scales_that_are_no_numbers_are_found() {
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
    for (format, places) in places {
        let (rows, width) = (3, 2 * format.block_size());
        let matrix = |damage: Option<(usize, u16)>| {
            let mut bytes = vec![0u8; 2 * rows * format.type_size()];
            if let Some((at, bits)) = damage {
                let block = 5 * format.type_size(); // the very last one
                bytes[block + at..][..2].copy_from_slice(&bits.to_le_bytes());
            }
            Packed::new(format, bytes, rows, width).unwrap()
        };
        assert!(matrix(None).is_finite());
        for &at in places {
            assert!(matrix(Some((at, 0x7bff))).is_finite(), "{format:?}: 65504");
            for bits in [0x7c00, 0xfc00, 0x7e00] {
                assert!(!matrix(Some((at, bits))).is_finite(), "{format:?} {at}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(!Packed::takes(GgmlDType::Q4K, 576), "no whole blocks");
    assert!(!Packed::takes(GgmlDType::Q4_0, 0));
    assert!(!Packed::takes(GgmlDType::F16, 40));
    assert!(!Packed::takes(GgmlDType::F32, 64));
    assert!(Packed::new(GgmlDType::Q4_0, vec![0; 17], 1, 32).is_none());
    let matrix = Matrix::Packed(packed(&quantised(GgmlDType::Q4_0, 4, 64)));
    let narrow = matrix.multiply(&activations(1, 32)).unwrap_err();
    assert!(narrow.to_string().contains("width 32"), "{narrow}");
    let bf16 = activations(1, 64).to_dtype(DType::BF16).unwrap();
    assert!(
        matrix
            .multiply(&bf16)
            .unwrap_err()
            .to_string()
            .contains("float32")
    );
}

/// Nothing is lost but by rounding the sums: products of two bfloat16 numbers are exact in float32.
#[test]
fn bfloat16_products_equal_a_float64_reference_of_rounded_numbers() {
    let rounded = |x: Vec<f32>| -> Vec<f64> {
        let round = |x: f32| f64::from(half::bf16::from_f32(x));
        x.into_iter().map(round).collect()
    };
    for (format, rows, width, n) in [
        (GgmlDType::Q4_1, 1, 32, 17),
        (GgmlDType::Q4_0, 65, 96, 18),
        (GgmlDType::Q5_0, 64, 64, 47),
        (GgmlDType::Q5_1, 63, 544, 48),
        (GgmlDType::Q8_0, 300, 1056, 49),
        (GgmlDType::Q2K, 5, 512, 20),
        (GgmlDType::Q3K, 80, 256, 101),
        (GgmlDType::Q4K, 129, 768, 33),
        (GgmlDType::Q5K, 16, 256, 21),
        (GgmlDType::Q6K, 17, 1280, 22),
        (GgmlDType::F16, 192, 576, 53),
        (GgmlDType::BF16, 1000, 1056, 31), // more than one block of rows
    ] {
        let tensor = quantised(format, rows, width);
        let x = activations(n, width);
        let exact = packed(&tensor);
        let float32 = numbers(&Matrix::Packed(packed(&tensor)).multiply(&x).unwrap());
        let matrix = Matrix::Packed(exact.for_products_in(DType::BF16));
        let got = numbers(&matrix.multiply(&x).unwrap());
        #[cfg(target_arch = "x86_64")]
        let pairs = crate::compute::lanes::has_bf16_products();
        #[cfg(not(target_arch = "x86_64"))]
        let pairs = false;
        if !pairs {
            assert_eq!(got, float32, "{format:?}");
            continue;
        }
        let weights = rounded(numbers(&tensor.dequantize(&Device::Cpu).unwrap()));
        let x = rounded(numbers(&x));
        for (i, (got, float32)) in got.iter().zip(float32).enumerate() {
            let weights = &weights[i % rows * width..][..width];
            let terms = weights
                .iter()
                .zip(&x[i / rows * width..])
                .map(|(w, x)| w * x);
            let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
            let what = format!("{format:?} {i}: {got} {sum}");
            assert!((f64::from(*got) - sum).abs() < 1e-6 * size, "{what}");
            // Both operands keep eight bits.
            assert!(
                (f64::from(float32) - sum).abs() < 2f64.powi(-8) * size,
                "{what}"
            );
        }
    }
}

#[test]
fn bfloat16_products_do_not_depend_on_other_rows_or_threads() {
    let tensor = quantised(GgmlDType::Q4_1, 300, 1152);
    let matrix = Matrix::Packed(packed(&tensor).for_products_in(DType::BF16));
    let x = activations(101, 1152);
    let with = |threads: usize, from: usize, n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let x = x.narrow(0, from, n).unwrap();
        numbers(
            &pool
                .build()
                .unwrap()
                .install(|| matrix.multiply(&x))
                .unwrap(),
        )
    };
    let all = with(1, 0, 101);
    assert_eq!(all, with(3, 0, 101));
    #[cfg(target_arch = "x86_64")]
    if crate::compute::lanes::has_bf16_products() {
        assert_eq!(all[50 * 300..67 * 300], with(2, 50, 17));
    }
}
