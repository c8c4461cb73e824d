//! Prefill, measures and scores.

use kvprof::error::Result;
use kvprof::method::prefill;
use kvprof::model::Model;
use kvprof::model::attention::{AttentionProbe, AttentionView, NoProbe, Tee};
use kvprof::model::decoder::Decoder;
use kvprof::profile::{
    HeadMeasures, LayerMeasures, MeasureOptions, Profiler, Ranked, budget_grid, entropy, share,
};
use kvprof::select::{
    ContinuationProbe, HeadSplit, LayerScores, ReplayNeeds, ReplayProbe, SCORERS, Scorer,
    ScoringProbe, select_layers,
};

use crate::family_models::{assert_close, each, numbers, prompt};
use crate::{FLOOR, T, scorer, window};

/// Float32 in another order, on probabilities.
const TOLERANCE: f64 = 5e-6;

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < TOLERANCE
}

/// Every row of every layer, `[layer][query head][row][key]`, up to the row's own key.
#[derive(Default)]
struct Rows(Vec<Vec<Vec<Vec<f64>>>>);

impl AttentionProbe for Rows {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let block = view.probabilities(view.rows.clone())?.to_vec3::<f32>()?;
        if self.0.len() <= view.layer {
            self.0.push(vec![Vec::new(); block.len()]);
        }
        for (head, rows) in block.iter().enumerate() {
            for (row, position) in rows.iter().zip(view.rows.clone()) {
                assert!(row[position + 1..].iter().all(|p| *p == 0.0), "causal");
                let row = row[..=position].iter().map(|&p| f64::from(p)).collect();
                self.0[view.layer][head].push(row);
            }
        }
        Ok(())
    }
}

fn measure(
    decoder: &Decoder,
    ids: &[u32],
    run: usize,
    options: &MeasureOptions,
) -> (Vec<LayerMeasures>, Rows, Vec<f32>) {
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(options, &mut ignore);
    let mut rows = Rows::default();
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut probe = Tee(&mut profiler, &mut rows);
    let logits = decoder.prefill(ids, &mut cache, run, &mut probe).unwrap();
    (profiler.finish(), rows, numbers(&logits))
}

#[test]
fn prefill_in_runs_of_any_length_gives_the_same_rows_and_measures() {
    each(|name, model| {
        let (options, ids) = (MeasureOptions::default(), prompt(T));
        let (whole, rows, logits) = measure(&model.decoder, &ids, T, &options);
        for run in [1, 7, 23, T - 1] {
            let what = format!("{name} in runs of {run}");
            let (parts, part_rows, part_logits) = measure(&model.decoder, &ids, run, &options);
            assert_close(&logits, &part_logits, 1e-5, &what);
            let flat = |rows: &Rows| rows.0.concat().concat().concat();
            let (rows, part_rows) = (flat(&rows), flat(&part_rows));
            assert_eq!(rows.len(), part_rows.len());
            // A row that is computed alone goes through another kernel than many.
            let gaps = rows.iter().zip(&part_rows).map(|(a, b)| (a - b).abs());
            let worst = gaps.fold(0.0, f64::max);
            assert!(worst < 2e-5, "{what}: {worst}");
            for (a, b) in whole.iter().zip(&parts) {
                for (a, b) in a.heads.iter().zip(&b.heads) {
                    assert!((a.entropy - b.entropy).abs() < 1e-4, "{what}");
                    let mut masses = a.mass_pooled.iter().zip(&b.mass_pooled);
                    assert!(masses.all(|(a, b)| near(*a, *b)), "{what}");
                }
                let cosines = |layer: &LayerMeasures| layer.output_pooled.raw.cosine.clone();
                let cosines = cosines(a).into_iter().zip(cosines(b));
                cosines.for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{what}: {a} {b}"));
            }
        }
    });
}

/// The least and the most keys that hold a share of a row, by the definition: a sum next to the threshold may be
/// rounded to either side.
fn bounds(row: &[f64], threshold: f64) -> [f64; 2] {
    let mut sorted = row.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let total: f64 = sorted.iter().sum();
    [threshold - TOLERANCE, threshold + TOLERANCE].map(|threshold| {
        let mut sum = 0.0;
        let needed = sorted.iter().take_while(|a| {
            let more = sum < threshold * total;
            sum += **a;
            more
        });
        needed.count() as f64
    })
}

fn mean_row(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; rows.last().unwrap().len()];
    for row in rows {
        let sums = mean.iter_mut().zip(row);
        sums.for_each(|(m, p)| *m += p / rows.len() as f64);
    }
    mean
}

#[test]
fn measures_equal_their_definitions_within_what_a_layer_sees() {
    each(|name, model| {
        for (tokens, rows_observed) in [(1, Some(3)), (5, None), (T, Some(3)), (T, Some(32))] {
            let options = MeasureOptions {
                window: rows_observed,
                ..MeasureOptions::default()
            };
            let (layers, rows, _) = measure(&model.decoder, &prompt(tokens), 64, &options);
            let observed = rows_observed.unwrap_or(tokens).min(tokens);
            for (l, (layer, rows)) in layers.iter().zip(&rows.0).enumerate() {
                let what = format!("{name}, {tokens} tokens, layer {l}");
                assert_eq!(layer.window, window(model, l), "{what}");
                let span = model.decoder.config().span(l, tokens);
                for (head, rows) in layer.heads.iter().zip(rows) {
                    check_rows(rows, span, &what);
                    check_head(head, &rows[tokens - observed..], span, &options, &what);
                }
                for curve in [&layer.output_last, &layer.output_pooled] {
                    for curve in [&curve.renormalised, &curve.raw] {
                        let [cosine, relative_l2] = curve.at(tokens);
                        assert!(near(cosine, 1.0) && near(relative_l2, 0.0), "{what}");
                    }
                }
                // What the last row does not see adds nothing to its output.
                let curve = &layer.output_last.raw;
                let budget = curve.budgets.iter().find(|b| **b as usize >= span);
                let [cosine, relative_l2] = curve.at(*budget.unwrap() as usize);
                assert!(
                    near(cosine, 1.0) && relative_l2 < 1e-4,
                    "{what}: {cosine} {relative_l2}"
                );
            }
        }
    });
}

fn check_rows(rows: &[Vec<f64>], span: usize, what: &str) {
    for row in rows {
        assert!(near(row.iter().sum(), 1.0), "{what}");
        let unseen = &row[..row.len().saturating_sub(span)];
        assert!(unseen.iter().all(|p| *p == 0.0), "{what}");
    }
}

fn check_head(
    head: &HeadMeasures,
    rows: &[Vec<f64>],
    span: usize,
    options: &MeasureOptions,
    what: &str,
) {
    let (pooled, last) = (mean_row(rows), &rows[rows.len() - 1]);
    let tokens = last.len();
    let within = |got: f64, [least, most]: [f64; 2]| (least..=most).contains(&got);
    for (i, &threshold) in options.thresholds.iter().enumerate() {
        let got = f64::from(head.budgets.last[i]);
        assert!(within(got, bounds(last, threshold)), "{what}: {got}");
        assert!(got >= 1.0 && got <= span as f64, "{what}: {got}");
        let got = f64::from(head.budgets.pooled[i]);
        assert!(within(got, bounds(&pooled, threshold)), "{what}: {got}");
        assert!(got >= 1.0 && got <= (span + rows.len() - 1).min(tokens) as f64);
        let each = rows.iter().map(|row| bounds(row, threshold));
        let sums = each.fold([0.0; 2], |[a, b], [least, most]| [a + least, b + most]);
        let mean = sums.map(|sum| sum / rows.len() as f64);
        let got = head.budgets.rows[i];
        assert!(
            within(got, [mean[0] - 1e-9, mean[1] + 1e-9]),
            "{what}: {got}"
        );
        assert!(got <= span as f64, "{what}: {got}");
    }
    assert!(head.budgets.last.is_sorted() && head.budgets.pooled.is_sorted());
    assert!((head.entropy - entropy(&pooled)).abs() < 1e-4, "{what}");
    assert!(near(head.sink_mass, share(&pooled, 0..tokens.min(4))));
    assert!(near(
        head.window_mass,
        share(&pooled, tokens - rows.len()..tokens)
    ));
    let ranked = Ranked::new(&pooled);
    assert!(head.mass_pooled.is_sorted());
    for (mass, budget) in head.mass_pooled.iter().zip(budget_grid(tokens)) {
        assert!(near(*mass, ranked.retained_mass(budget)), "{what}");
    }
}

/// Scores `[layer][kv_head][token]`.
fn scores_of(model: &Model, ids: &[u32], run: usize, scorer: &dyn Scorer) -> Vec<Vec<Vec<f64>>> {
    let decoder = &model.decoder;
    let rows = |layers: Vec<LayerScores>| layers.iter().map(|s| s.to_rows().unwrap()).collect();
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    if scorer.needs(3).continuation {
        decoder.prefill(ids, &mut cache, run, &mut NoProbe).unwrap();
        let mut ahead = ContinuationProbe::new(ids.len());
        (decoder.continue_with(&[1, 2, 3], &mut cache, &mut ahead)).unwrap();
        return rows(ahead.score(scorer, 3).unwrap());
    }
    if let Some(needs) = scorer.needs(3).replay {
        // Short enough for these models' contexts.
        let needs = ReplayNeeds { chunk: 16, ..needs };
        decoder.prefill(ids, &mut cache, run, &mut NoProbe).unwrap();
        let mut probe = ReplayProbe::new(ids.len(), needs);
        for chunk in needs.chunks(0, ids.len()) {
            probe.begin(chunk.clone());
            (decoder.prefill(&ids[chunk], &mut cache, run, &mut probe)).unwrap();
            cache.rewind(ids.len()).unwrap();
        }
        return rows(probe.score(scorer, 3).unwrap());
    }
    let mut probe = ScoringProbe::new(vec![(scorer, 3)]);
    decoder.prefill(ids, &mut cache, run, &mut probe).unwrap();
    rows(probe.finish().remove(0))
}

#[test]
fn scorers_score_every_token_of_every_kv_head_whatever_the_runs() {
    each(|name, model| {
        let config = model.decoder.config();
        for entry in SCORERS {
            let scorer = scorer(entry.name);
            for tokens in [1, 2, T] {
                let ids = prompt(tokens);
                let whole = scores_of(model, &ids, 64, &*scorer);
                assert_eq!(whole.len(), config.num_hidden_layers());
                for layer in &whole {
                    assert_eq!(layer.len(), config.num_key_value_heads);
                    assert!(layer.iter().all(|head| head.len() == tokens));
                }
                let parts = scores_of(model, &ids, 7, &*scorer);
                let flat = |scores: Vec<Vec<Vec<f64>>>| scores.concat().concat();
                for (a, b) in flat(whole).into_iter().zip(flat(parts)) {
                    let close = (a - b).abs() <= 1e-4 * a.abs().max(1.0);
                    assert!(a.is_finite() && close, "{name}, {}: {a} {b}", entry.name);
                }
            }
        }
    });
}

#[test]
fn a_budget_of_all_that_is_seen_changes_no_bit() {
    each(|name, model| {
        let (decoder, ids) = (&model.decoder, prompt(T));
        for entry in SCORERS
            .iter()
            .filter(|e| !["oracle", "kvzip"].contains(&e.name))
        {
            let scorer = scorer(entry.name);
            let mut full = prefill(decoder, &ids, 8, vec![(&*scorer, 4)], &mut NoProbe).unwrap();
            let firsts = full.cache.firsts_in_sight();
            let seen = full.cache.lengths();
            let all = vec![vec![T; seen[0].len()]; seen.len()];
            let mut cuts = Vec::new();
            for (budgets, split) in [
                (&seen, HeadSplit::PerHead),
                (&seen, HeadSplit::Pooled { safeguard: 0.2 }),
                (&all, HeadSplit::PerHead),
            ] {
                let (scores, floor) = (&full.scores[0], FLOOR);
                let (sinks, last) = (floor.sinks, floor.window);
                let kept = select_layers(scores, &firsts, budgets, sinks, last, split).unwrap();
                assert_eq!(kept, full.cache.slots_in_sight(), "{name}, {}", entry.name);
                cuts.push(full.cache.cut(&kept, 0).unwrap());
            }
            for id in [3, 5, 7, 11] {
                let want = numbers(&decoder.decode(id, &mut full.cache).unwrap());
                for cut in &mut cuts {
                    let got = numbers(&decoder.decode(id, cut).unwrap());
                    let same = want
                        .iter()
                        .zip(&got)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{name}, {}", entry.name);
                }
            }
        }
    });
}
