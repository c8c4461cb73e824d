//! The kernels that decide what measuring and cutting cost: `cargo bench`.
#![allow(clippy::unwrap_used, missing_docs)]

mod one_layer;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use divan::{Bencher, black_box};
use kvprof::compute::exponentials::exponentials;
use kvprof::compute::linear::Products;
use kvprof::model::attention::attend;
use kvprof::model::gguf::Gguf;
use kvprof::profile::{Ranked, RowBudgets};
use kvprof::select::{HeadSplit, LayerScores, select_layers};
use one_layer::{OneLayer, one_layer};

const TOKENS: [usize; 2] = [1024, 4096];
const THRESHOLDS: [f64; 5] = [0.5, 0.8, 0.9, 0.95, 0.99];

fn main() {
    divan::main();
}

/// Scores of made-up attention: a few keys hold most of it.
fn logits(tokens: usize) -> Vec<f32> {
    (0..tokens)
        .map(|i| (i * 7919 % 1013) as f32 / 64.0)
        .collect()
}

fn attention(tokens: usize) -> Vec<f32> {
    let mut row = logits(tokens);
    let sum = exponentials(&mut row, 1.0);
    row.iter_mut().for_each(|p| *p /= sum);
    row
}

/// The exponentials of one row of the softmax.
#[divan::bench(args = TOKENS)]
fn row_exponentials(bencher: Bencher<'_, '_>, tokens: usize) {
    bencher
        .with_inputs(|| logits(tokens))
        .bench_local_refs(|row| black_box(exponentials(row, 0.125)));
}

/// MBA of one row at five thresholds, without ranking it.
#[divan::bench(args = TOKENS)]
fn row_mba(bencher: Bencher<'_, '_>, tokens: usize) {
    let row = attention(tokens);
    let mut budgets = RowBudgets::new(&THRESHOLDS);
    bencher.bench_local(|| budgets.measure(black_box(&row)));
}

/// The same row with its keys in order, which curves need.
#[divan::bench(args = TOKENS)]
fn row_ranked(bencher: Bencher<'_, '_>, tokens: usize) {
    let row: Vec<f64> = attention(tokens).into_iter().map(f64::from).collect();
    bencher.bench_local(|| Ranked::new(black_box(&row)));
}

/// Attention of a block of 64 queries at the end of a prompt.
#[divan::bench(args = TOKENS)]
fn attend_block(bencher: Bencher<'_, '_>, tokens: usize) {
    attended(bencher, tokens, 64);
}

/// Attention of one decoding step.
#[divan::bench(args = TOKENS)]
fn attend_step(bencher: Bencher<'_, '_>, tokens: usize) {
    attended(bencher, tokens, 1);
}

fn attended(bencher: Bencher<'_, '_>, tokens: usize, rows: usize) {
    let OneLayer { queries, cache } = one_layer(tokens, rows);
    let layer = cache.layer(0);
    bencher.bench_local(|| attend(black_box(&queries), layer, tokens - rows, &[]).unwrap());
}

/// The slots of 256 tokens per KV head in 30 layers, each head by itself.
#[divan::bench(args = TOKENS)]
fn select_per_head(bencher: Bencher<'_, '_>, tokens: usize) {
    selected(bencher, tokens, HeadSplit::PerHead);
}

/// The same with heads that compete for their layer's budget.
#[divan::bench(args = TOKENS)]
fn select_pooled(bencher: Bencher<'_, '_>, tokens: usize) {
    selected(bencher, tokens, HeadSplit::Pooled { safeguard: 0.2 });
}

fn selected(bencher: Bencher<'_, '_>, tokens: usize, split: HeadSplit) {
    let scores: Vec<f64> = logits(tokens).into_iter().map(f64::from).collect();
    let scores = LayerScores::of_heads(vec![scores; 3].concat(), 3, &Device::Cpu).unwrap();
    let scores = vec![scores; 30];
    let (budgets, firsts) = (vec![vec![256; 3]; 30], [0; 30]);
    bencher.bench_local(|| {
        select_layers(black_box(&scores), &firsts, &budgets, 4, 32, split).unwrap()
    });
}

/// One layer's cache cut to every fourth token.
#[divan::bench(args = TOKENS)]
fn cut_cache(bencher: Bencher<'_, '_>, tokens: usize) {
    let OneLayer { cache, .. } = one_layer(tokens, 1);
    let kept = vec![vec![(0..tokens as u32).step_by(4).collect(); 3]];
    bencher.bench_local(|| cache.cut(black_box(&kept), 32).unwrap());
}

/// A feed-forward matrix of four-bit blocks with the activations of one decoding step.
#[divan::bench]
fn packed_product_step(bencher: Bencher<'_, '_>) {
    multiplied(bencher, 1, DType::F32, Products::Float32);
}

/// The same with those of a prefill's run, which unpacks for a float32 product.
#[divan::bench]
fn packed_product_run(bencher: Bencher<'_, '_>) {
    multiplied(bencher, 1024, DType::F32, Products::Float32);
}

/// The same as bfloat16 pairs, where the processor has them.
#[divan::bench]
fn packed_product_run_bf16(bencher: Bencher<'_, '_>) {
    multiplied(bencher, 1024, DType::BF16, Products::Float32);
}

/// The same as integers, activations rounded to 16 bits.
#[divan::bench]
fn packed_product_run_i16(bencher: Bencher<'_, '_>) {
    multiplied(bencher, 1024, DType::F32, Products::Int16);
}

/// And to 8.
#[divan::bench]
fn packed_product_run_i8(bencher: Bencher<'_, '_>) {
    multiplied(bencher, 1024, DType::F32, Products::Int8);
}

fn multiplied(bencher: Bencher<'_, '_>, activations: usize, dtype: DType, products: Products) {
    const SHAPE: (usize, usize) = (1536, 576);
    let wave = |shape: (usize, usize)| {
        let values = (0..shape.0 * shape.1).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5);
        Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.gguf");
    let weights = QTensor::quantize(&wave(SHAPE), GgmlDType::Q4_1).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    gguf_file::write(&mut file, &[], &[("w", &weights)]).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let matrix = gguf
        .matrix("w", SHAPE.0, SHAPE.1, &Device::Cpu, dtype)
        .unwrap()
        .multiplied_as(products);
    let x = wave((activations, SHAPE.1));
    bencher.bench_local(|| matrix.multiply(black_box(&x)).unwrap());
}
