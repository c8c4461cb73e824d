//! Operations of `compute::device` on the CPU, against definitions that were written elsewhere.
#![allow(clippy::unwrap_used)]

mod kernel_cases;

use candle_core::{DType, Device, Tensor};
use kernel_cases::{
    Call, Noise, best_token_cases, kept_by_sorting, key_norm_cases, key_order_cases, pooling_cases,
    prefill_cases, ragged_cases, row_budget_cases,
};
use kvprof::compute::device::{
    GroupReduce, NOT_FINITE, Order, Pooling, Quotas, RowPooling, add_rows, add_rows_in_order,
    counts_to_mass, falling_order, largest_entries, pool_rows, prefix_sums, row_norms,
    running_sums,
};
use kvprof::model::attention::device::{
    has_prefill_attention, prefill_attention, ragged_attention,
};
use kvprof::model::ragged_heads::{RaggedHead, RaggedHeads};
use kvprof::profile::Ranked;

fn tensor(values: &[f32], shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn budgets_are_those_of_ranked_rows() {
    for case in row_budget_cases() {
        let Call::CountsToMass(rows, thresholds) = &case.call else {
            continue;
        };
        let found = counts_to_mass(rows, thresholds).unwrap();
        let found = found.to_vec3::<u32>().unwrap();
        let rows = rows.to_vec3::<f32>().unwrap();
        let heads = rows.len();
        for r in 0..rows[0].len() {
            let mut lines: Vec<Vec<f32>> = rows.iter().map(|head| head[r].clone()).collect();
            let mean = |key: usize| {
                let sum: f64 = lines.iter().map(|line| f64::from(line[key])).sum();
                (sum / heads as f64) as f32
            };
            lines.push((0..lines[0].len()).map(mean).collect());
            for (line, found) in lines.iter().zip(&found) {
                assert_ranked(line, thresholds, &found[r], &case.name);
            }
        }
    }
}

fn assert_ranked(line: &[f32], thresholds: &[f64], found: &[u32], name: &str) {
    if line.iter().any(|p| !p.is_finite() || *p < 0.0) {
        assert!(found.iter().all(|&f| f == NOT_FINITE), "{name}");
        return;
    }
    let wide: Vec<f64> = line.iter().map(|&p| f64::from(p + 0.0)).collect();
    let ranked = Ranked::new(&wide);
    for (&threshold, &found) in thresholds.iter().zip(found) {
        let want = ranked.minimum_budget(threshold.min(1.0));
        // A sum that lands on the target to the last bits may fall on either side of it.
        let nearly = |b: usize| {
            let sum = ranked.cumulative[b.max(1) - 1];
            (sum - threshold.min(1.0) * ranked.total()).abs() <= 1e-15 * ranked.total()
        };
        let between = want.min(found as usize)..want.max(found as usize);
        assert!(
            between.clone().all(nearly),
            "{name}: {found} instead of {want} at {threshold}"
        );
    }
}

#[test]
fn rows_are_added_where_the_sums_lie_in_any_order() {
    let mut noise = Noise::new(7);
    let values: Vec<f32> = (0..2 * 40 * 50)
        .map(|_| noise.unit().powi(9) as f32 / 7.0)
        .collect();
    let rows = tensor(&values, (2, 40, 50));
    let sums = || Tensor::zeros((4, 60), DType::F64, &Device::Cpu).unwrap();
    let (once, twice) = (sums(), sums());
    add_rows(&once.narrow(0, 1, 2).unwrap(), &rows, 3, 37).unwrap();
    for (from, count) in [(20, 20), (3, 17)] {
        let part = rows.narrow(1, from, count).unwrap();
        add_rows(&twice.narrow(0, 1, 2).unwrap(), &part, 0, 37).unwrap();
    }
    let [once, twice] = [once, twice].map(|sums| sums.to_vec2::<f64>().unwrap());
    assert_eq!(once, twice);
    for (line, sums) in once.iter().enumerate() {
        for (key, sum) in sums.iter().enumerate() {
            let of_head = |r: usize| f64::from(values[((line - 1) * 40 + r) * 50 + key]);
            let want = match (1..3).contains(&line) && key < 50 {
                true => (3..40).map(of_head).sum(),
                false => 0.0,
            };
            assert!(
                (sum - want).abs() <= 37.0 * 64.0 / 2f64.powi(52),
                "{line}, {key}"
            );
        }
    }
}

#[test]
fn ragged_attention_is_that_of_each_head_alone() {
    for case in ragged_cases() {
        let Call::RaggedAttention([q, k, v], heads, [room, appended]) = &case.call else {
            continue;
        };
        if q.dtype() != DType::F32 {
            continue;
        }
        let (h_q, d) = q.dims2().unwrap();
        let group = h_q / heads.len();
        let table = RaggedHeads::new(heads, *room, &Device::Cpu).unwrap();
        let got = ragged_attention(q, k, v, &table, *appended).unwrap();
        for (h, head) in heads.iter().enumerate() {
            let own = |t: &Tensor| t.narrow(0, head.start, head.length + appended).unwrap();
            let query = q.narrow(0, h * group, group).unwrap();
            let logits = query.matmul(&own(k).t().unwrap()).unwrap();
            let logits = (logits / (d as f64).sqrt()).unwrap();
            let p = candle_nn::ops::softmax_last_dim(&logits).unwrap();
            let want = p.matmul(&own(v)).unwrap();
            let gap = (got.narrow(0, h * group, group).unwrap() - want).unwrap();
            let largest = gap.abs().unwrap().max_all().unwrap();
            let largest = largest.to_scalar::<f32>().unwrap();
            // Logits in the hundreds lose their last digits in float32.
            let allowed = if case.name.contains("hundreds") {
                1e-4
            } else {
                3e-6
            };
            assert!(largest < allowed, "{}, head {h}: {largest}", case.name);
        }
    }
}

#[test]
fn prefill_attention_is_that_of_each_query_alone() {
    for case in prefill_cases() {
        let Call::PrefillAttention([q, k, v], heads, output) = &case.call else {
            continue;
        };
        if *output != DType::F32 {
            continue;
        }
        let (h_q, n, d) = q.dims3().unwrap();
        let group = h_q / heads.len();
        let got = prefill_attention(q, k, v, heads, DType::F32).unwrap();
        let got = got.reshape((n, h_q, d)).unwrap();
        let wide = [q, k, v].map(|t| t.to_dtype(DType::F64).unwrap());
        for (h, head) in heads.iter().enumerate() {
            for i in [0, n / 2, n - 1] {
                let seen = head.length - (n - 1 - i);
                let own = |t: &Tensor| t.narrow(0, head.start, seen).unwrap();
                let query = wide[0].narrow(0, h * group, group).unwrap();
                let query = query.narrow(1, i, 1).unwrap().squeeze(1).unwrap();
                let logits = query.contiguous().unwrap();
                let logits = logits.matmul(&own(&wide[1]).t().unwrap()).unwrap();
                let p = candle_nn::ops::softmax_last_dim(&(logits / (d as f64).sqrt()).unwrap());
                let want = p.unwrap().matmul(&own(&wide[2])).unwrap();
                let got = got.get(i).unwrap().narrow(0, h * group, group).unwrap();
                let gap = (got.to_dtype(DType::F64).unwrap() - want).unwrap();
                let largest = gap.abs().unwrap().max_all().unwrap();
                let largest = largest.to_scalar::<f64>().unwrap();
                // Float32 outputs below 2.
                assert!(largest < 1.2e-7, "{}, head {h}, {i}: {largest}", case.name);
            }
        }
    }
}

#[test]
fn prefill_attention_refuses_what_it_does_not_take() {
    let half = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap();
    let (queries, keys) = (half(&[4, 5, 16]), half(&[30, 16]));
    let head = |start, length| RaggedHead { start, length };
    let attend = |heads: &[RaggedHead], output| {
        let found = prefill_attention(&queries, &keys, &keys, heads, output);
        found.map(|rows| rows.dims().to_vec())
    };
    let two = [head(0, 5), head(10, 20)];
    assert_eq!(attend(&two, DType::BF16).unwrap(), [5, 64]);
    assert!(attend(&[head(0, 4), head(10, 20)], DType::BF16).is_err());
    assert!(attend(&[head(0, 5), head(11, 20)], DType::BF16).is_err());
    assert!(attend(&[head(0, 5); 3], DType::BF16).is_err());
    assert!(attend(&[], DType::BF16).is_err());
    assert!(attend(&two, DType::F16).is_err());
    let single = [&queries, &keys].map(|t| t.to_dtype(DType::F32).unwrap());
    assert!(prefill_attention(&single[0], &single[1], &single[1], &two, DType::F32).is_err());
    assert!(prefill_attention(&queries, &keys, &half(&[30, 8]), &two, DType::BF16).is_err());
    for (dtype, d, takes) in [
        (DType::F16, 8, true),
        (DType::BF16, 256, true),
        (DType::BF16, 100, false),
        (DType::F16, 264, false),
        (DType::F16, 0, false),
        (DType::F32, 64, false),
    ] {
        let found = has_prefill_attention(&Device::Cpu, dtype, d);
        assert_eq!(found, takes, "{dtype:?} {d}");
    }
    let odd = half(&[4, 5, 12]);
    assert!(
        prefill_attention(&odd, &half(&[30, 12]), &half(&[30, 12]), &two, DType::BF16).is_err()
    );
}

#[test]
fn orders_are_those_of_ranked_vectors() {
    for case in key_order_cases(6000) {
        let Call::FallingOrder(weights) = &case.call else {
            continue;
        };
        let weights = weights.to_dtype(DType::F64).unwrap().abs().unwrap();
        let orders = falling_order(&weights).unwrap().to_vec2::<u32>().unwrap();
        for (line, order) in weights.to_vec2::<f64>().unwrap().iter().zip(orders) {
            assert_eq!(order, Ranked::new(line).order, "{}", case.name);
        }
    }
}

#[test]
fn running_sums_are_those_of_one_loop() {
    let values = Noise::new(9).floats(500 * 7);
    // Columns that do not lie next to each other.
    let turned = tensor(&values, (7, 500)).t().unwrap();
    let got = running_sums(&turned).unwrap().to_vec2::<f32>().unwrap();
    for column in 0..7 {
        let mut sum = 0f64;
        for (row, got) in got.iter().enumerate() {
            sum += f64::from(values[column * 500 + row]);
            let gap = (f64::from(got[column]) - sum).abs();
            assert!(gap <= sum.abs() * 2f64.powi(-23), "{row}, {column}");
        }
    }
    assert_eq!(running_sums(&tensor(&[], (0, 3))).unwrap().dims(), [0, 3]);
}

#[test]
fn rows_are_added_one_after_another() {
    // The small one is lost if it comes alone, and not if the large one comes last.
    let rows = tensor(&[1e-17, 1e-17, 1.0, 1.0, 1e-17, 1e-17], (2, 3, 1));
    let sums = Tensor::new(&[[0.0], [0.0]], &Device::Cpu).unwrap();
    add_rows_in_order(&sums, &rows).unwrap();
    let small = f64::from(1e-17f32);
    assert_eq!(
        sums.to_vec2::<f64>().unwrap(),
        [[small + small + 1.0], [1.0]]
    );
    // They go on from what is there.
    add_rows_in_order(&sums, &rows).unwrap();
    assert_eq!(sums.to_vec2::<f64>().unwrap(), [[2.0], [2.0]]);
}

#[test]
fn pooled_heads_are_those_of_loops() {
    for case in pooling_cases() {
        let Call::PoolRows(attention, how) = &case.call else {
            continue;
        };
        let rows = attention.to_vec2::<f64>().unwrap();
        let scores = pool_rows(attention, *how).unwrap();
        let scores = scores.to_vec2::<f64>().unwrap();
        for (heads, scores) in rows.chunks(how.rows).zip(scores) {
            for (key, got) in scores.into_iter().enumerate() {
                let want = pooled_by_hand(heads, key, how);
                let same = got == want || (got - want).abs() <= 1e-15 * want.abs();
                assert!(
                    same || (got.is_nan() && want.is_nan()),
                    "{} at {key}: {got} instead of {want}",
                    case.name
                );
            }
        }
    }
}

fn pooled_by_hand(heads: &[Vec<f64>], key: usize, how: &RowPooling) -> f64 {
    let prefix = how.prefix.min(heads[0].len());
    if key >= prefix {
        return 0.0;
    }
    let pool = |value: &dyn Fn(usize) -> f64| {
        let reach = how.kernel as isize / 2;
        let mut pool = Vec::new();
        for k in key as isize - reach..=key as isize + reach {
            let inside = (0..prefix as isize).contains(&k);
            pool.push(if inside { value(k as usize) } else { 0.0 });
        }
        match how.pooling {
            Pooling::Max => pool.into_iter().fold(0.0, f64::max),
            Pooling::Avg => pool.iter().sum::<f64>() / how.kernel as f64,
            Pooling::None => value(key),
        }
    };
    let reduce = |value: &dyn Fn(usize) -> f64| match how.group {
        GroupReduce::Mean => (0..how.rows).map(value).sum::<f64>() / how.rows as f64,
        GroupReduce::Max => (0..how.rows).map(value).fold(0.0, f64::max),
    };
    match how.order {
        Order::PoolFirst => reduce(&|head| pool(&|k| heads[head][k])),
        Order::ReduceFirst => pool(&|k| reduce(&|head| heads[head][k])),
    }
}

#[test]
fn norms_are_those_of_loops() {
    for case in key_norm_cases() {
        let Call::RowNorms(keys) = &case.call else {
            continue;
        };
        let norms = row_norms(keys).unwrap().to_vec1::<f64>().unwrap();
        let keys = keys.to_dtype(DType::F64).unwrap();
        for (key, norm) in keys.to_vec2::<f64>().unwrap().iter().zip(norms) {
            let squares: f64 = key.iter().map(|x| x * x).sum();
            assert_eq!(norm, squares.sqrt(), "{}", case.name);
        }
    }
}

#[test]
fn largest_entries_are_those_of_sorted_rows() {
    for case in best_token_cases(20_000) {
        let Call::LargestEntries(scores, wanted) = &case.call else {
            continue;
        };
        let found = largest_entries(scores, wanted).unwrap();
        let found = found.to_vec1::<u32>().unwrap();
        let scores = scores.to_vec2::<f64>().unwrap();
        let finite = scores.iter().flatten().all(|score| score.is_finite());
        assert_eq!(found[0], u32::from(!finite), "{}", case.name);
        let kept = kept_by_sorting(&scores, wanted);
        let counts: Vec<u32> = kept.iter().map(|slots| slots.len() as u32).collect();
        assert_eq!(found[1..][..kept.len()], counts, "{}", case.name);
        assert_eq!(found[1 + kept.len()..], kept.concat(), "{}", case.name);
    }
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let scores = Tensor::zeros((2, 10), DType::F64, &Device::Cpu).unwrap();
    let with = |own: &[usize], shared| Quotas {
        own: own.to_vec(),
        shared,
        sinks: 2,
        window: 3,
    };
    assert!(largest_entries(&scores, &with(&[5, 10], 5)).is_ok());
    let wrong = [
        with(&[4, 10], 0), // less than what stays
        with(&[5, 11], 0), // more than there are
        with(&[5, 10], 6),
        with(&[5], 0),
        with(&[5, 5, 5], 0),
    ];
    for wanted in wrong {
        assert!(largest_entries(&scores, &wanted).is_err(), "{wanted:?}");
    }
    let narrow = scores.to_dtype(DType::F32).unwrap();
    assert!(largest_entries(&narrow, &with(&[5, 10], 5)).is_err());
    let nothing = Quotas {
        sinks: 0,
        window: 0,
        ..with(&[0, 0], 0)
    };
    let found = largest_entries(&scores.narrow(1, 0, 0).unwrap(), &nothing).unwrap();
    assert_eq!(found.to_vec1::<u32>().unwrap(), [0, 0, 0]);

    let mean = RowPooling::mean_of_groups;
    assert!(pool_rows(&scores, mean(2, 10)).is_ok());
    for (heads, kernel) in [(0, 1), (3, 1), (4, 1), (1, 4)] {
        let how = RowPooling {
            kernel,
            ..mean(heads, 10)
        };
        assert!(pool_rows(&scores, how).is_err(), "{how:?}");
    }
    assert!(pool_rows(&narrow, mean(2, 10)).is_err());
    assert_eq!(
        row_norms(&scores).unwrap().to_vec1::<f64>().unwrap(),
        [0.0; 2]
    );
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let rows = tensor(&[0.5; 12], (2, 3, 2));
    for threshold in [f64::NAN, -0.1] {
        let error = counts_to_mass(&rows, &[0.9, threshold]).unwrap_err();
        assert!(error.to_string().contains("at least 0"), "{error}");
    }
    assert!(counts_to_mass(&rows.to_dtype(DType::F64).unwrap(), &[0.9]).is_err());
    let sums = |heads, keys| Tensor::zeros((heads, keys), DType::F64, &Device::Cpu).unwrap();
    assert!(add_rows(&sums(3, 2), &rows, 0, 3).is_err());
    assert!(add_rows(&sums(2, 1), &rows, 0, 3).is_err());
    let single = sums(2, 2).to_dtype(DType::F32).unwrap();
    assert!(add_rows(&single, &rows, 0, 3).is_err());
    assert!(falling_order(&rows.get(0).unwrap().to_dtype(DType::U32).unwrap()).is_err());

    let keys = tensor(&[0.1; 10 * 4], (10, 4));
    let query = tensor(&[0.1; 2 * 4], (2, 4));
    let heads = |start, length, room| {
        RaggedHeads::new(&[RaggedHead { start, length }], room, &Device::Cpu).unwrap()
    };
    assert!(ragged_attention(&query, &keys, &keys, &heads(2, 7, 1), 1).is_ok());
    let wrong = [
        (heads(2, 7, 1), 2), // more than there is room for
        (heads(2, 0, 3), 0), // nothing to attend to
        (heads(2, 8, 1), 1), // beyond the rows
    ];
    for (heads, appended) in wrong {
        assert!(ragged_attention(&query, &keys, &keys, &heads, appended).is_err());
    }
    let narrow = tensor(&[0.1; 10 * 3], (10, 3));
    let one = heads(0, 10, 0);
    assert!(ragged_attention(&query, &keys, &narrow, &one, 0).is_err());
    assert!(ragged_attention(&query, &narrow, &narrow, &one, 0).is_err());
    let half = keys.to_dtype(DType::F16).unwrap();
    assert!(ragged_attention(&query, &half, &half, &one, 0).is_err());
}

#[test]
fn masses_are_those_that_ranked_vectors_hold() {
    let mut noise = Noise::new(22);
    let plain: Vec<f64> = (0..700).map(|_| noise.unit().powi(7)).collect();
    let ranked = Ranked::new(&plain);
    let sorted = Tensor::from_slice(&ranked.sorted, (1, 700), &Device::Cpu).unwrap();
    let sums = prefix_sums(&sorted).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(sums[0], ranked.cumulative);
    let none = Tensor::zeros((0, 3), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(prefix_sums(&none).unwrap().dims(), [0, 3]);
}
