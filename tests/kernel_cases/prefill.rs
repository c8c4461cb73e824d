//! What prefill attention is tried on, and what its outputs may be off.

use candle_core::{DType, Tensor};
use kvprof::model::ragged_heads::RaggedHead;

use super::{Call, Case, Noise, tensor};

/// What outputs of prefill attention may be off before they are rounded: a weight is multiplied as two numbers of the half
/// type, logits are float32, and so are the sums of a tile: in units of its largest weight where the others are small.
pub fn lost([q, k, v]: &[Tensor; 3], name: &str) -> f64 {
    let largest = |tensor: &Tensor, power: i32| {
        let wide = tensor.to_dtype(DType::F32).unwrap();
        let rows = wide.flatten_to(wide.rank() - 2).unwrap().to_vec2().unwrap();
        let sums = rows.into_iter().map(|row: Vec<f32>| {
            let powers = row.into_iter().map(|x| f64::from(x).abs().powi(power));
            match power {
                2 => powers.sum::<f64>().sqrt(),
                _ => powers.fold(0.0, f64::max),
            }
        });
        // Rows that belong to nobody are not numbers.
        sums.filter(|sum| sum.is_finite()).fold(0.0, f64::max)
    };
    let parted = match q.dtype() {
        DType::BF16 => 2f64.powi(-17),
        _ => 2f64.powi(-23),
    };
    // 47 weights are cut to the 24 bits of the first one's product, half a bit each on average and all alike.
    let summed = match name.contains("many small") {
        true => 2f64.powi(-18),
        false => 2f64.powi(-21),
    };
    let logit = largest(q, 2) * largest(k, 2) / (q.dim(2).unwrap() as f64).sqrt();
    (parted + summed + logit * 2f64.powi(-23)) * largest(v, 1)
}

/// `rows` of each head between rows that are not numbers: whoever reads those finds out.
fn packed(noise: &mut Noise, lengths: &[usize], d: usize) -> (Tensor, Vec<RaggedHead>) {
    let mut values = vec![f32::NAN; 2 * d];
    let mut heads = Vec::new();
    for &length in lengths {
        heads.push(RaggedHead {
            start: values.len() / d,
            length,
        });
        values.extend(noise.floats(length * d));
        values.extend(vec![f32::NAN; d]);
    }
    let rows = values.len() / d;
    (tensor(values, (rows, d)), heads)
}

fn prefill(name: String, tensors: [Tensor; 3], heads: &[RaggedHead], types: [DType; 2]) -> Case {
    let cast = tensors.map(|t| t.to_dtype(types[0]).unwrap());
    Case {
        name: format!("{name} in {:?} to {:?}", types[0], types[1]),
        call: Call::PrefillAttention(cast, heads.to_vec(), types[1]),
    }
}

/// Groups, head dimensions with a kernel of their own and others, keys before the run and none, tiles in part.
pub fn prefill_cases() -> Vec<Case> {
    // Query heads of a group, D, queries, keys of each head before them.
    let shapes: [(usize, usize, usize, &[usize]); 14] = [
        (1, 64, 1, &[0, 500]),
        (1, 64, 200, &[0]),
        (3, 64, 70, &[0, 130, 5]),
        (1, 128, 150, &[10]),
        (4, 128, 40, &[300, 3]),
        (4, 128, 64, &[0, 64]),
        (8, 80, 17, &[50, 0]),
        (16, 96, 9, &[0, 100]),
        (1, 256, 33, &[0, 31]),
        (4, 256, 20, &[64]),
        (3, 16, 50, &[10]),
        (2, 72, 20, &[7, 29]),
        (5, 104, 11, &[0]),
        (2, 200, 5, &[90]),
    ];
    let mut noise = Noise::new(6);
    let mut cases = Vec::new();
    for (group, d, n, before) in shapes {
        let lengths: Vec<usize> = before.iter().map(|b| b + n).collect();
        let (k, heads) = packed(&mut noise, &lengths, d);
        let (v, _) = packed(&mut noise, &lengths, d);
        let h_q = group * lengths.len();
        let q = tensor(noise.floats(h_q * n * d), (h_q, n, d));
        let name = format!("{group} x {d}, {n} after {before:?}");
        for dtype in [DType::F16, DType::BF16] {
            let tensors = [&q, &k, &v].map(Tensor::clone);
            let output = if d % 16 == 0 { DType::F32 } else { dtype };
            cases.push(prefill(name.clone(), tensors, &heads, [dtype, output]));
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        cases.extend(odd_prefill_cases(&mut noise, dtype));
    }
    cases
}

fn odd_prefill_cases(noise: &mut Noise, dtype: DType) -> Vec<Case> {
    let (d, n, keys) = (64, 20, 400);
    let (k, heads) = packed(noise, &[keys], d);
    let (v, _) = packed(noise, &[keys], d);
    let q = tensor(noise.floats(2 * n * d), (2, n, d));
    let zeros = q.zeros_like().unwrap();
    let scaled = |by: f64| (&q * by).unwrap();
    let mut cases = Vec::new();
    for (name, q) in [
        ("logits in the hundreds", scaled(50.0)),
        ("logits in the thousands", scaled(1000.0)),
        ("equal logits", zeros),
    ] {
        let tensors = [q, k.clone(), v.clone()];
        cases.push(prefill(name.into(), tensors, &heads, [dtype, DType::F32]));
    }
    // One key has the largest weight and thousands of others as much together, each about 2^-15 and rounded alike.
    let (n, keys) = (2, 3000);
    let one_hot = |row: &[f32]| {
        let mut padded = row.to_vec();
        padded.resize(d, 0.0);
        padded
    };
    let queries = tensor(one_hot(&[8.0]).repeat(n), (1, n, d));
    let mut all = one_hot(&[10.1875]);
    all.extend(one_hot(&[0.0]).repeat(keys - 1));
    let values = (v.narrow(0, 2, 1).unwrap().abs().unwrap() + 0.5).unwrap();
    let values = values.repeat((keys, 1)).unwrap();
    let signs: Vec<f32> = (0..keys)
        .map(|key| if key == 0 { -1.0 } else { 1.0 })
        .collect();
    let values = values.broadcast_mul(&tensor(signs, (keys, 1))).unwrap();
    let heads = [RaggedHead {
        start: 0,
        length: keys,
    }];
    let tensors = [queries, tensor(all, (keys, d)), values];
    let name = "one weight and many small ones".into();
    cases.push(prefill(name, tensors, &heads, [dtype, DType::F32]));
    cases
}
