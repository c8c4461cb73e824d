//! What every family must keep, whatever its layers see: on tiny random models (fixtures/families). A new folder there
//! is tested by all of this as it lies.
#![allow(clippy::unwrap_used)]

#[path = "../binary/mod.rs"]
mod binary;
#[path = "../family_models/mod.rs"]
mod family_models;

mod budgets;
mod caches;
mod commands;
mod contract;
mod device;
mod evictions;
mod levels;
mod methods;
mod rotation;
mod sight;
mod spans;

use kvprof::budget::Floor;
use kvprof::method::prefill;
use kvprof::model::Model;
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::decoder::Decoder;
use kvprof::registry;
use kvprof::select::{SCORERS, Scorer, Slots};
use serde_json::Value;

/// T: longer than any window, and short enough that no text of these tests comes to where Phi-3 rotates otherwise.
const T: usize = 40;

/// What always stays.
const FLOOR: Floor = Floor {
    whole_windows: false,
    tokens: 6,
    sinks: 2,
    window: 4,
};

fn scorer(name: &str) -> Box<dyn Scorer> {
    registry::build("scorer", SCORERS, name, Value::Null).unwrap()
}

/// The full cache of a prompt.
fn prefilled(decoder: &Decoder, ids: &[u32]) -> KvCache {
    let full = prefill(decoder, ids, 24, Vec::new(), &mut NoProbe);
    full.unwrap().cache
}

/// The window of a layer.
fn window(model: &Model, layer: usize) -> Option<usize> {
    model.decoder.config().layers[layer].window
}

/// Slots of the prompt that differ by layer and head, sinks and the newest among them.
fn ragged(model: &Model, tokens: usize) -> Vec<Slots> {
    let config = model.decoder.config();
    let head = |l: usize, h: usize| {
        let stays = move |s: &usize| *s < 2 || *s + 4 >= tokens || !(s + l).is_multiple_of(h + 2);
        (0..tokens).filter(stays).map(|s| s as u32).collect()
    };
    let layers = 0..config.num_hidden_layers();
    layers
        .map(|l| {
            (0..config.num_key_value_heads)
                .map(|h| head(l, h))
                .collect()
        })
        .collect()
}
