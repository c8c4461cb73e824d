//! What a layer turns by its positions, and how it is taken back.

use kvprof::error::Result;
use kvprof::model::attention::{AttentionProbe, AttentionView};
use kvprof::model::turn_back;

use crate::T;
use crate::family_models::each;

/// Every query and every key of the first layer, before it was turned.
#[derive(Default)]
struct TurnedBack {
    turned: Vec<Vec<f64>>,
    queries: Vec<Vec<f64>>,
    keys: Vec<Vec<f64>>,
}

impl AttentionProbe for TurnedBack {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        if view.layer > 0 {
            return Ok(());
        }
        let back = |rows: &[Vec<f32>], first: usize| -> Vec<Vec<f64>> {
            let rows = rows.iter().enumerate().map(|(i, row)| {
                let turns: Vec<[f32; 2]> = view.rotation.at(first + i).collect();
                let mut row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                turn_back(&turns, &mut row);
                row
            });
            rows.collect()
        };
        let queries: Vec<Vec<Vec<f32>>> = view.queries.to_vec3()?;
        let turned = |row: &Vec<f32>| -> Vec<f64> { row.iter().map(|x| f64::from(*x)).collect() };
        self.turned.extend(queries[0].iter().map(turned));
        self.queries.extend(back(&queries[0], view.rows.start));
        if view.is_last() {
            self.keys = back(&view.cache.heads[0].keys()?.to_vec2()?, 0);
        }
        Ok(())
    }
}

/// One token again and again has one query and one key in the first layer, but for its positions: whatever the family's
/// norms, biases, frequencies and rotated part.
#[test]
fn queries_and_keys_of_one_token_are_the_same_once_turned_back() {
    each(|name, model| {
        let decoder = &model.decoder;
        let mut probe = TurnedBack::default();
        let mut cache = decoder.new_cache(T).unwrap();
        decoder
            .prefill(&[7; T], &mut cache, 16, &mut probe)
            .unwrap();
        let scale = |row: &[f64]| row.iter().fold(0f64, |m, x| m.max(x.abs()));
        let away = |rows: &[Vec<f64>]| -> f64 {
            let gaps = rows.iter().flat_map(|row| row.iter().zip(&rows[0]));
            gaps.fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale(&rows[0])
        };
        assert_eq!((probe.queries.len(), probe.keys.len()), (T, T), "{name}");
        let [queries, keys] = [&probe.queries, &probe.keys].map(|rows| away(rows));
        assert!(
            queries < 1e-5 && keys < 1e-5,
            "{name}: {queries:e} {keys:e}"
        );
        assert!(away(&probe.turned) > 0.01, "{name} turns nothing");
    });
}
