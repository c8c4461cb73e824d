//! Hit rates of the real model against the definition, worked out from whole rows of attention.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use kvprof::error::Result;
use kvprof::eval::hit_rate::{HeadHits, HitRateOptions, measure};
use kvprof::model::attention::{AttentionProbe, AttentionView};
use kvprof::model::{Model, source};
use kvprof::profile::SINKS;

/// Every row of attention, `[layer][row][head][key]`.
#[derive(Default)]
struct AllRows(Vec<Vec<Vec<Vec<f32>>>>);

impl AttentionProbe for AllRows {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        if self.0.len() <= view.layer {
            self.0.push(Vec::new());
        }
        let block = view.probabilities(view.rows.clone())?;
        let rows = block.transpose(0, 1)?.to_vec3::<f32>()?;
        self.0[view.layer].extend(rows);
        Ok(())
    }
}

/// The `count` best keys of the prefix by the mean of `rows`, ties to the later.
fn named(rows: &[Vec<Vec<f32>>], head: usize, prefix: usize, count: usize) -> Vec<usize> {
    let mean: Vec<f64> = (0..prefix)
        .map(|k| rows.iter().map(|r| f64::from(r[head][k])).sum::<f64>() / rows.len() as f64)
        .collect();
    let mut keys: Vec<usize> = (0..prefix).collect();
    keys.sort_by(|&a, &b| mean[b].total_cmp(&mean[a]).then(b.cmp(&a)));
    keys.truncate(count);
    keys
}

/// Hits, counted steps and important keys of `steps` against `named`.
fn hits(
    steps: &[Vec<Vec<f32>>],
    head: usize,
    named: &[usize],
    keys: &[usize],
) -> (f64, usize, usize) {
    let mut total = (0.0, 0, 0);
    for step in steps {
        let important = keys.iter().filter(|k| step[head][**k] > 0.05);
        let count = important.clone().count();
        if count > 0 {
            let found = important.filter(|k| named.contains(k)).count();
            total.0 += found as f64 / count as f64;
            total.1 += 1;
            total.2 += count;
        }
    }
    total
}

#[test]
fn hits_equal_the_definition() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let model = Model::load(files, &Device::Cpu, DType::F32).unwrap();
    let text =
        "The river Aune rises near Holm. It passes the mill at Ferne and the bridge of Oss. "
            .repeat(4);
    let ids = model.tokenizer.encode(&text).unwrap()[..70].to_vec();
    let options = HitRateOptions {
        windows: 3,
        window: 8,
        generated_windows: 2,
        top: 0.1,
        theta: 0.05,
    };
    let (prefix, named_keys) = (46, 4);
    assert_eq!(options.prefix(ids.len()), prefix);
    let mut observed = 0;
    // A stop id that is certain to be generated does not end the text.
    let measured = measure(&model.decoder, &ids, &[], &[], &options, &mut |n| {
        observed += n
    })
    .unwrap();
    let stop = measured.ids[5];
    let first = measured.ids.iter().position(|id| *id == stop).unwrap();
    let again = measure(&model.decoder, &ids, &[], &[stop], &options, &mut |_| ()).unwrap();
    assert_eq!((measured.answer_tokens, again.answer_tokens), (16, first));
    assert_eq!(
        (&again.layers, &again.ids),
        (&measured.layers, &measured.ids)
    );
    assert_eq!(observed, 30 * (70 + 16));
    // A question after the prompt: windows of what comes before it vote, and the text is that of both.
    let (context, question) = ids.split_at(60);
    let after = measure(
        &model.decoder,
        context,
        question,
        &[],
        &options,
        &mut |_| (),
    )
    .unwrap();
    assert_eq!(after.ids, measured.ids);
    assert_ne!(after.layers, measured.layers);

    // The same rows in one prefill of prompt and generated tokens, and one step more.
    let whole = [ids.as_slice(), &measured.ids].concat();
    let mut rows = AllRows::default();
    let mut cache = model.decoder.new_cache(whole.len()).unwrap();
    model
        .decoder
        .prefill(&ids, &mut cache, 70, &mut rows)
        .unwrap();
    for id in &measured.ids {
        model
            .decoder
            .prefill(&[*id], &mut cache, 1, &mut rows)
            .unwrap();
    }
    let all: Vec<usize> = (0..prefix).collect();
    let mut counted = 0;
    for (layer, heads) in rows.0.iter().zip(&measured.layers) {
        for (head, HeadHits { prompt, generated }) in heads.iter().enumerate() {
            let vote = |start: usize| named(&layer[start..start + 8], head, prefix, named_keys);
            let last = vote(62);
            let shared = |vote: &[usize]| {
                vote.iter().filter(|k| last.contains(k)).count() as f64 / named_keys as f64
            };
            assert_eq!((prompt.len(), generated.len()), (3, 2));
            for (w, window) in prompt.iter().enumerate() {
                let vote = vote(prefix + 8 * w);
                for (counts, keys) in [(window.all, &all[..]), (window.beyond_sinks, &all[SINKS..])]
                {
                    let want = hits(&layer[70..], head, &vote, keys);
                    assert_eq!((counts.hits, counts.steps, counts.important), want);
                    assert_eq!(counts.steps + counts.skipped, 16);
                    counted += counts.steps;
                }
                assert_eq!(window.overlap, shared(&vote));
            }
            for (w, window) in generated.iter().enumerate() {
                let start = 70 + 8 * w;
                let want = hits(&layer[start..start + 8], head, &last, &all);
                assert_eq!(
                    (window.all.hits, window.all.steps, window.all.important),
                    want
                );
                assert_eq!(window.overlap, shared(&vote(start)));
            }
        }
    }
    assert!(counted > 1000, "a test of nothing: {counted} steps");
}
