//! Cases of the operations that make scores and choose by them.

use candle_core::{DType, Device, Tensor};
use kvprof::compute::device::{GroupReduce, Order, Pooling, Quotas, RowPooling};

use super::{Call, Case, Noise, tensor};

fn wide(values: Vec<f64>, shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Every pooling, reduction and order; kernels that reach beyond rows; prefixes from none to all.
pub fn pooling_cases() -> Vec<Case> {
    let mut noise = Noise::new(6);
    let mut cases = Vec::new();
    // Query heads of a group, KV heads, keys, prefix, kernel.
    let shapes = [
        [1, 1, 1, 1, 1],
        [3, 3, 130, 98, 7],
        [2, 1, 300, 300, 5],
        [4, 2, 127, 0, 3],
        [5, 2, 50, 20, 63],
        [9, 1, 129, 500, 1],
    ];
    let poolings = [Pooling::Max, Pooling::Avg, Pooling::None];
    let groups = [GroupReduce::Mean, GroupReduce::Max];
    let orders = [Order::PoolFirst, Order::ReduceFirst];
    for [heads, kv_heads, keys, prefix, kernel] in shapes {
        let mut values: Vec<f64> = (0..heads * kv_heads * keys)
            .map(|_| noise.unit().powi(9) / 7.0)
            .collect();
        if keys == 300 {
            values[5] = f64::NAN;
            values[310] = f64::INFINITY;
        }
        let attention = wide(values, (heads * kv_heads, keys));
        for pooling in poolings {
            for (group, order) in groups.iter().flat_map(|g| orders.map(|o| (*g, o))) {
                let how = RowPooling {
                    rows: heads,
                    group,
                    prefix,
                    pooling,
                    kernel,
                    order,
                };
                cases.push(Case {
                    name: format!("{keys} keys, {how:?}"),
                    call: Call::PoolRows(attention.clone(), how),
                });
            }
        }
    }
    cases
}

/// Keys of every type.
pub fn key_norm_cases() -> Vec<Case> {
    let mut noise = Noise::new(7);
    let mut cases = Vec::new();
    for (keys, d) in [(1, 1), (127, 64), (129, 80), (300, 128)] {
        let keys = tensor(noise.floats(keys * d), (keys, d));
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            cases.push(Case {
                name: format!("{:?} in {dtype:?}", keys.dims()),
                call: Call::RowNorms(keys.to_dtype(dtype).unwrap()),
            });
        }
    }
    cases
}

/// Rows around the sizes of tiles, with ties, signs of zero and what is no number; every split of their tokens.
pub fn best_token_cases(longest: usize) -> Vec<Case> {
    let mut noise = Noise::new(8);
    let mut cases = Vec::new();
    let shapes = [
        (1, 1),
        (2, 5),
        (3, 255),
        (1, 256),
        (4, 257),
        (7, 1000),
        (2, 4095),
        (3, 4096),
        (2, 4097),
        (2, 10_000),
        (33, 40),
    ];
    for (heads, tokens) in shapes {
        for kind in 0..5 {
            let score = |noise: &mut Noise| match kind {
                0 => noise.unit() - 0.5,
                1 => (noise.unit() * 4.0).floor() - 2.0,
                2 => [0.0, -0.0][(noise.unit() * 2.0) as usize],
                3 => 0.25,
                // Numbers that part in their last bits only.
                _ => f64::from_bits(0x3f80_0000_0000_0000 + (noise.unit() * 300.0) as u64),
            };
            let scores: Vec<f64> = (0..heads * tokens).map(|_| score(&mut noise)).collect();
            let scores = wide(scores, (heads, tokens));
            let splits = splits(&mut noise, heads, tokens);
            // Kinds take turns with the splits: each split meets every length.
            for wanted in splits.into_iter().skip(kind).step_by(5) {
                cases.push(best(
                    format!("{heads} x {tokens} of kind {kind}"),
                    &scores,
                    wanted,
                ));
            }
        }
    }
    for odd in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut scores = vec![0.5; 3 * 5000];
        scores[5000 + 4999] = odd;
        let wanted = splits(&mut noise, 3, 5000).remove(1);
        cases.push(best(
            format!("{odd} among numbers"),
            &wide(scores, (3, 5000)),
            wanted,
        ));
    }
    let long: Vec<f64> = (0..longest)
        .map(|_| (noise.unit() * 4096.0).floor())
        .collect();
    let wanted = Quotas {
        own: vec![longest / 7],
        shared: longest / 3,
        sinks: 4,
        window: 32,
    };
    cases.push(best(
        format!("{longest} tokens"),
        &wide(long, (1, longest)),
        wanted,
    ));
    cases
}

fn best(name: String, scores: &Tensor, wanted: Quotas) -> Case {
    Case {
        name: format!("{name}: {wanted:?}"),
        call: Call::LargestEntries(scores.clone(), wanted),
    }
}

/// Nothing but what stays, everything, all tokens shared, none, and some of each.
fn splits(noise: &mut Noise, heads: usize, tokens: usize) -> Vec<Quotas> {
    let mut draw = |from: usize, to: usize| from + (noise.unit() * (to - from + 1) as f64) as usize;
    let mut splits = Vec::new();
    for (sinks, window) in [(0, 0), (4, 32), (tokens, 1), (3, 2 * tokens)] {
        let forced = (sinks.min(tokens) + window.min(tokens)).min(tokens);
        let wanted = |own: Vec<usize>, shared: usize| Quotas {
            own,
            shared,
            sinks,
            window,
        };
        let all = heads * (tokens - forced);
        splits.push(wanted(vec![forced; heads], 0));
        splits.push(wanted(vec![forced; heads], draw(0, all)));
        splits.push(wanted(vec![forced; heads], all));
        splits.push(wanted(vec![tokens; heads], 0));
        let own: Vec<usize> = (0..heads).map(|_| draw(forced, tokens)).collect();
        splits.push(wanted(own.clone(), 0));
        let left = heads * tokens - own.iter().sum::<usize>();
        splits.push(wanted(own, draw(0, left)));
        if forced == tokens {
            splits.truncate(splits.len() - 4);
        }
    }
    splits
}

/// Falling weights of one to many tiles.
pub fn mass_sum_cases() -> Vec<Case> {
    let mut noise = Noise::new(21);
    let shapes = [(1, 1), (3, 255), (2, 256), (5, 257), (4, 3000)];
    let cases = shapes.map(|(heads, keys)| {
        let mut weights: Vec<f64> = (0..heads * keys).map(|_| noise.unit().powi(9)).collect();
        for head in weights.chunks_mut(keys) {
            head.sort_by(|a, b| b.total_cmp(a));
        }
        let sorted = Tensor::from_vec(weights, (heads, keys), &Device::Cpu).unwrap();
        Case {
            name: format!("masses of {heads} heads, {keys} keys"),
            call: Call::PrefixSums(sorted),
        }
    });
    cases.into()
}

/// What [`Quotas`] keep, by sorting rows.
pub fn kept_by_sorting(scores: &[Vec<f64>], wanted: &Quotas) -> Vec<Vec<u32>> {
    let tokens = scores[0].len();
    let stays = |slot: usize| slot < wanted.sinks || slot + wanted.window >= tokens;
    let (mut kept, mut rest) = (Vec::new(), Vec::new());
    for (head, own) in wanted.own.iter().enumerate() {
        let (mut slots, mut others): (Vec<usize>, Vec<usize>) =
            (0..tokens).partition(|slot| stays(*slot));
        let score = |slot: usize| scores[head][slot];
        others.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(b.cmp(&a)));
        let left = others.split_off(own - slots.len());
        slots.extend(others);
        kept.push(slots);
        rest.extend(left.into_iter().map(|slot| (head, slot)));
    }
    rest.sort_by(|&(g, a), &(h, b)| {
        let by_score = scores[h][b].total_cmp(&scores[g][a]);
        by_score.then(b.cmp(&a)).then(g.cmp(&h))
    });
    for &(head, slot) in &rest[..wanted.shared] {
        kept[head].push(slot);
    }
    let ascending = kept.into_iter().map(|mut slots| {
        slots.sort_unstable();
        slots.into_iter().map(|slot| slot as u32).collect()
    });
    ascending.collect()
}
