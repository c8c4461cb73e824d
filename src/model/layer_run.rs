//! One layer over one run of consecutive tokens.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::rms_norm;

use super::attention::{self, AttentionProbe, AttentionRun, AttentionView};
use super::cache::KvCache;
use super::config::ModelConfig;
use super::decoder_layer::Layer;
use super::residency::{Residency, Sight};
use super::rotation::{Rotation, TextRotation};
use crate::compute::linear::Linear;
use crate::error::Result;

/// A run of tokens, and what is the same for it in all layers.
pub(super) struct TokenRun<'a> {
    config: &'a ModelConfig,
    /// Positions of the tokens.
    rows: Range<usize>,
    /// T, the length of the whole prompt.
    prompt_tokens: usize,
    begun_for: usize,
    /// One for every rotary embedding of the model.
    rotations: Vec<Rotation>,
    as_on_device: bool,
}

/// A layer of the model, and its place in a cache, which may hold this one alone.
#[derive(Clone, Copy)]
pub(super) struct LayerPlace {
    pub(super) layer: usize,
    pub(super) in_cache: usize,
}

/// Who looks at a run, and who decides what it sees.
pub(super) struct Observers<'a> {
    pub(super) probe: &'a mut dyn AttentionProbe,
    pub(super) residency: &'a mut dyn Residency,
}

impl<'a> TokenRun<'a> {
    /// The tokens at `rows` of a text of `prompt_tokens` that is in a cache begun for `begun_for`.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub(super) fn new(
        config: &'a ModelConfig,
        rows: Range<usize>,
        [prompt_tokens, begun_for]: [usize; 2],
        (device, dtype): (&Device, DType),
    ) -> Result<Self> {
        let ropes = config.ropes.iter();
        let rotations =
            ropes.map(|rope| Rotation::new(rope, begun_for, rows.clone(), device, dtype));
        Ok(Self {
            config,
            prompt_tokens,
            begun_for,
            rotations: rotations.collect::<Result<_>>()?,
            rows,
            as_on_device: false,
        })
    }

    /// With attention as a device computes it, or not.
    pub(super) fn computed(self, as_on_device: bool) -> Self {
        Self {
            as_on_device,
            ..self
        }
    }

    /// The residual stream behind a layer, whose cache gets the run's keys and values.
    ///
    /// Shapes: `hidden` `(rows, hidden)` -> the same.
    /// Errors: [`crate::error::Error::Candle`]; whatever the observers return.
    pub(super) fn through(
        &self,
        layer: &Layer,
        place: LayerPlace,
        hidden: Tensor,
        cache: &mut KvCache,
        observers: &mut Observers<'_>,
    ) -> Result<Tensor> {
        let attended = self.attended(layer, place, &hidden, cache, observers)?;
        let [after_attention, after_feed_forward] = match &layer.branch_norms {
            Some([attention, feed_forward]) => [Some(attention), Some(feed_forward)],
            None => [None, None],
        };
        let attended = layer.output.forward(&attended)?;
        let before = hidden;
        let hidden = (&before + self.normed_by(attended, after_attention)?)?;
        let probe = &mut observers.probe;
        probe.observe_residual(place.layer, &before, &hidden)?;
        drop(before);
        let normed = self.normed(&hidden, &layer.feed_forward_norm)?;
        let fed = layer.feed_forward.forward(&normed)?;
        Ok((hidden + self.normed_by(fed, after_feed_forward)?)?)
    }

    /// What attention gives, before the output projection.
    fn attended(
        &self,
        layer: &Layer,
        place: LayerPlace,
        hidden: &Tensor,
        cache: &mut KvCache,
        Observers { probe, residency }: &mut Observers<'_>,
    ) -> Result<Tensor> {
        let (config, l) = (self.config, place.layer);
        let normed = self.normed(hidden, &layer.attention_norm)?;
        probe.observe_input(l, &normed)?;
        let [queries, keys, values] = self.projected(layer, l, &normed)?;
        drop(normed);
        cache.append(place.in_cache, &keys, &values)?;
        let run = AttentionRun {
            layer: l,
            rows: self.rows.clone(),
            prompt_tokens: self.prompt_tokens,
            query_heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
        };
        let held = cache.layer(place.in_cache);
        let view = AttentionView {
            layer: l,
            rows: self.rows.clone(),
            prompt_tokens: self.prompt_tokens,
            queries: &queries,
            cache: held,
            projection: &layer.output.matrix,
            rotation: TextRotation::new(&config.ropes[config.layers[l].rope], self.begun_for),
            as_on_device: self.as_on_device,
        };
        let chosen = match residency.before_attention(&view)? {
            Sight::Held => None,
            Sight::Slots(slots) => Some(held.seen(&slots)?),
        };
        let seen = chosen.as_ref().unwrap_or(held);
        let mut watches = Vec::new();
        probe.watch(&run, &mut watches)?;
        let attend = if self.as_on_device {
            attention::attend_on_device
        } else {
            attention::attend
        };
        let attended = attend(&queries, seen, self.rows.start, &watches)?;
        probe.observe(&AttentionView {
            cache: seen,
            ..view
        })?;
        Ok(attended)
    }

    /// Queries, keys and values as attention and cache take them, `(heads, rows, D)`.
    fn projected(&self, layer: &Layer, l: usize, normed: &Tensor) -> Result<[Tensor; 3]> {
        let config = self.config;
        let projections = [&layer.query, &layer.key, &layer.value];
        let [queries, keys, values] = Linear::forward_all(projections, normed)?;
        let rotation = &self.rotations[config.layers[l].rope];
        let [query_norm, key_norm] = match &layer.head_norms {
            Some([query, key]) => [Some(query), Some(key)],
            None => [None, None],
        };
        let mut queries = rotation.apply(&self.heads(&queries, query_norm)?)?;
        if let Some(scale) = config.attention_scale {
            // Attention divides by the root of D.
            queries = (queries * (scale * (config.head_dim as f64).sqrt()))?;
        }
        let keys = rotation.apply(&self.heads(&keys, key_norm)?)?;
        Ok([queries, keys, self.heads(&values, None)?])
    }

    /// `(n, heads * D)` -> `(heads, n, D)`, contiguous, every head normalised where it has a norm.
    fn heads(&self, x: &Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let d = self.config.head_dim;
        let heads = x.reshape((n, width / d, d))?.transpose(0, 1)?;
        self.normed_by(heads.contiguous()?, norm)
    }

    fn normed(&self, x: &Tensor, norm: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, norm, self.config.rms_norm_eps as f32)?)
    }

    fn normed_by(&self, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        norm.map_or_else(|| Ok(x.clone()), |norm| self.normed(&x, norm))
    }
}
