//! What a query sees of a cache that was cut: the tokens that were kept and lie in its layer's window, and no others.

use std::collections::BTreeMap;

use kvprof::error::Result;
use kvprof::method::LiveCache;
use kvprof::model::Model;
use kvprof::model::attention::{AttentionProbe, AttentionView, NoProbe};
use kvprof::model::residency::{Residency, Sight};
use kvprof::select::Slots;

use crate::family_models::{assert_close, each, numbers, prompt};
use crate::{T, prefilled, ragged, window};

/// Whether a query of a layer may see a position: the definition, with the kept slots of the prompt.
fn sees(model: &Model, kept: &[u32], layer: usize, query: usize, position: usize) -> bool {
    let is_held = position >= T || kept.contains(&(position as u32));
    let near = |window: usize| position + window > query;
    is_held && position <= query && window(model, layer).is_none_or(near)
}

/// Shows attention a full cache of which only so much is left as the definition allows: no row is held that must be
/// hidden, so nothing rests on how windows are computed.
struct Allowed<'a> {
    model: &'a Model,
    kept: &'a [Slots],
}

impl std::fmt::Debug for Allowed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Allowed")
    }
}

impl Residency for Allowed<'_> {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let query = view.rows.start;
        let heads = self.kept[view.layer].iter().zip(&view.cache.heads);
        let slots = heads.map(|(kept, head)| {
            let positions = head.positions().iter().enumerate();
            let seen =
                positions.filter(|(_, p)| sees(self.model, kept, view.layer, query, **p as usize));
            seen.map(|(slot, _)| slot as u32).collect()
        });
        Ok(Sight::Slots(slots.collect()))
    }
}

#[test]
fn a_cut_cache_is_the_full_one_with_the_rest_masked_also_past_the_window() {
    each(|name, model| {
        let (decoder, ids, kept) = (&model.decoder, prompt(T), ragged(model, T));
        let mut full = prefilled(decoder, &ids);
        let mut cut = full.cut(&kept, 24).unwrap();
        let mut allowed = Allowed { model, kept: &kept };
        for step in 0..20u32 {
            let id = step * 29 % 290;
            let want = numbers(&decoder.step(id, &mut full, &mut allowed).unwrap());
            let got = numbers(&decoder.decode(id, &mut cut).unwrap());
            assert_close(&want, &got, 1e-5, &format!("{name}, step {step}"));
        }
    });
}

/// Compares the rows of every step with softmax over the keys that may be seen, in float64.
struct ByDefinition<'a> {
    model: &'a Model,
    kept: &'a [Slots],
    /// Most that a probability was off by.
    worst: f64,
    rows: usize,
}

impl AttentionProbe for ByDefinition<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let queries = view.queries.to_vec3::<f32>()?;
        let group = queries.len() / view.cache.heads.len();
        let all = view.rows_of_heads()?;
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for (h, head) in view.cache.heads.iter().enumerate() {
            let keys = head.keys()?.to_vec2::<f32>()?;
            let kept = &self.kept[view.layer][h];
            for (g, queries) in queries[h * group..][..group].iter().enumerate() {
                for (i, (query, position)) in queries.iter().zip(view.rows.clone()).enumerate() {
                    // Queries are scaled beforehand where a model scales them by another number.
                    let root = (query.len() as f64).sqrt();
                    let positions = head.positions().iter().map(|p| *p as usize);
                    let weights: BTreeMap<usize, f64> = positions
                        .enumerate()
                        .filter(|(_, p)| sees(self.model, kept, view.layer, position, *p))
                        .map(|(slot, _)| (slot, (dot(query, &keys[slot]) / root).exp()))
                        .collect();
                    let sum: f64 = weights.values().sum();
                    let row = &all[h][(g * queries.len() + i) * keys.len()..][..keys.len()];
                    for (slot, got) in row.iter().enumerate() {
                        let want = weights.get(&slot).map_or(0.0, |weight| weight / sum);
                        assert!(want > 0.0 || *got == 0.0, "slot {slot} is hidden");
                        self.worst = self.worst.max((f64::from(*got) - want).abs());
                    }
                    self.rows += 1;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn rows_after_a_cut_equal_the_definition() {
    each(|name, model| {
        let (decoder, kept) = (&model.decoder, ragged(model, T));
        let full = prefilled(decoder, &prompt(T));
        let mut cut = full.cut(&kept, 24).unwrap();
        let mut check = ByDefinition {
            model,
            kept: &kept,
            worst: 0.0,
            rows: 0,
        };
        // One at a time, several at once, and past every window.
        for ids in [&[3][..], &[5, 7, 11], &prompt(17), &[2]] {
            decoder.continue_with(ids, &mut cut, &mut check).unwrap();
        }
        let config = decoder.config();
        let rows = 22 * config.num_hidden_layers() * config.num_attention_heads;
        assert_eq!(check.rows, rows, "{name}");
        assert!(check.worst < 1e-5, "{name}: {}", check.worst);
    });
}

#[test]
fn tokens_fed_at_once_are_seen_as_one_by_one() {
    each(|name, model| {
        let (decoder, kept) = (&model.decoder, ragged(model, T));
        let full = prefilled(decoder, &prompt(T));
        let ids = [
            9, 200, 31, 77, 5, 5, 120, 284, 66, 1, 2, 3, 4, 250, 18, 7, 8, 90,
        ];
        let live = || LiveCache::keeping(full.cut(&kept, 0).unwrap());
        let (mut together, mut alone, mut halves) = (live(), live(), live());
        let all = together.feed(decoder, &ids).unwrap();
        let mut parts = halves.feed(decoder, &ids[..7]).unwrap();
        parts.extend(
            halves
                .feed_watched(decoder, &ids[7..], &mut NoProbe)
                .unwrap(),
        );
        for (i, id) in ids.iter().enumerate() {
            let one = numbers(&alone.step(decoder, *id).unwrap());
            assert_close(&one, &all[i], 1e-5, &format!("{name}, token {i}"));
            assert_close(
                &one,
                &parts[i],
                1e-5,
                &format!("{name}, token {i} in halves"),
            );
        }
        // What was held is counted alike.
        assert_eq!(together.held(), alone.held(), "{name}");
        assert_eq!(halves.held(), alone.held(), "{name}");
        assert_eq!(together.cache().lengths(), alone.cache().lengths());
    });
}
