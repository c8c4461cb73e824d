//! The decoder: embedding, layers of grouped-query attention and gated feed-forward, output head.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::ops::rms_norm;
use serde::Serialize;

use super::attention::{self, AttentionProbe, AttentionRun, AttentionView};
use super::cache::{KvCache, Representation};
use super::config::ModelConfig;
use super::decoder_layer::Layer;
use super::precision::Precision;
use super::residency::{Residency, Sight, Unchanging};
use super::rotation::{Rotation, TextRotation};
use super::weights::{TensorSource, Weights};
use crate::compute::linear::{Linear, Matrix, tensor_bytes};
use crate::error::{Error, Result};

/// Tokens prefilled at once: activations stay a few megabytes whatever the prompt's length.
pub const PREFILL_RUN: usize = 1024;

/// Bytes of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WeightBytes {
    /// All that are held.
    pub held: usize,
    /// Those that one pass reads: all but an embedding that is not the output head too.
    pub per_pass: usize,
}

/// The weights of a model on its device, and the forward pass.
///
/// Paper: none: the Llama architecture. Differs: attention is computed for a block of queries at a
/// time and can be observed; positions and cache lengths are different things.
pub struct Decoder {
    config: ModelConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Option<Linear>,
    as_on_device: bool,
    precision: Precision,
}

impl Decoder {
    /// Reads all weights; quantised matrices stay as they are where they can.
    ///
    /// Differs: on the CPU activations, norms, logits and all sums are float32 whatever `dtype` is: for bfloat16, on
    /// processors that multiply its pairs, it is the type of the operands of products with packed matrices and many
    /// activations. On other devices everything is of that type. Caches are too, unless [`Decoder::hold_as`] says
    /// otherwise.
    /// Errors: [`Error::Format`] for missing or misshapen tensors, [`Error::Unsupported`] for
    /// tensors that this decoder does not know, [`Error::NotFinite`].
    pub fn load(
        source: &mut dyn TensorSource,
        config: ModelConfig,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let c = &config;
        let mut weights = Weights::new(source, device, dtype);
        let embedding = weights.matrix("token_embd.weight", c.vocab_size, c.hidden_size)?;
        let layers = (0..c.num_hidden_layers())
            .map(|l| Layer::load(&mut weights, c, l))
            .collect::<Result<_>>()?;
        let norm = weights.tensor("output_norm.weight", &[c.hidden_size])?;
        let head = if c.tie_word_embeddings {
            None
        } else {
            Some(weights.linear("output", c.vocab_size, c.hidden_size)?)
        };
        weights.refuse_leftovers()?;
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            head,
            as_on_device: false,
            precision: Precision::of(dtype)?,
        })
    }

    /// Computes attention from now on as on a device, with the CPU's twins of its kernels.
    ///
    /// Differs: much slower; it is there so that what runs on a device can be followed without one.
    pub fn work_as_on_device(&mut self) {
        self.as_on_device = true;
    }

    /// Makes caches of other elements from now on; [`Precision::check`] tells whether attention can read them.
    pub fn hold_as(&mut self, cache: Representation) {
        self.precision.cache = cache;
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        self.norm.device()
    }

    /// The type that the model computes in, as [`Decoder::load`] says, and the elements of its caches.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of the weights as they lie in memory.
    pub fn weight_bytes(&self) -> WeightBytes {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        let (embedding, head) = (
            self.embedding.bytes(),
            self.head.as_ref().map_or(0, Linear::bytes),
        );
        let rest = layers + tensor_bytes(&self.norm);
        WeightBytes {
            held: rest + embedding + head,
            per_pass: rest + if self.head.is_some() { head } else { embedding },
        }
    }

    /// An empty cache with room for `tokens`.
    ///
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn new_cache(&self, tokens: usize) -> Result<KvCache> {
        KvCache::new(&self.config, tokens, self.precision.cache, self.device())
    }

    /// Runs the prompt through the model in runs of `run` tokens, showing every layer to `probe`.
    ///
    /// Shapes: float32 logits of the last token, `(vocab)`.
    /// Errors: [`Error::Invalid`] for an empty prompt, a token outside the vocabulary or a run of
    /// zero; [`Error::PromptTooLong`]; [`Error::NotFinite`]; whatever the probe returns.
    pub fn prefill(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        run: usize,
        probe: &mut dyn AttentionProbe,
    ) -> Result<Tensor> {
        if ids.is_empty() {
            return Err(Error::invalid(
                "prompt length",
                0,
                "at least one token is needed",
            ));
        }
        if run == 0 {
            return Err(Error::invalid(
                "prefill run",
                0,
                "at least one token at a time is needed",
            ));
        }
        self.to_last(ids, cache, run, probe, &mut Unchanging)
    }

    /// Continues a text with all of `ids` at once, and says what would follow each of them.
    ///
    /// Shapes: float32 logits `(ids, vocab)`. Differs: one pass over the weights for all tokens, so that
    /// float32 sums come in another order than token by token.
    /// Errors: as [`Decoder::prefill`].
    pub fn continue_with(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        probe: &mut dyn AttentionProbe,
    ) -> Result<Tensor> {
        self.feed(ids, cache, probe, &mut Unchanging)
    }

    /// [`Decoder::continue_with`], while `residency` says what is seen and what stays.
    ///
    /// Shapes and errors: as there; whatever `residency` returns.
    pub fn feed(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        probe: &mut dyn AttentionProbe,
        residency: &mut dyn Residency,
    ) -> Result<Tensor> {
        self.check_ids(ids, cache)?;
        let total = cache.next_position() + ids.len();
        let rows = ids.chunks(PREFILL_RUN).map(|chunk| {
            let hidden = self.forward(chunk, cache, total, probe, residency)?;
            self.logits(&hidden)
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Err(nothing_to_continue());
        }
        Ok(Tensor::cat(&rows, 0)?)
    }

    /// [`Decoder::feed`], where only what would follow the last of `ids` is asked.
    ///
    /// Shapes: float32 logits, `(vocab)`. Differs: the output head multiplies one row; for all of them it is a fifth to
    /// a quarter of a small model's work.
    /// Errors: as there.
    pub fn feed_to_last(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        probe: &mut dyn AttentionProbe,
        residency: &mut dyn Residency,
    ) -> Result<Tensor> {
        self.to_last(ids, cache, PREFILL_RUN, probe, residency)
    }

    /// Feeds `ids` in runs of `run`, and says what would follow the last.
    fn to_last(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        run: usize,
        probe: &mut dyn AttentionProbe,
        residency: &mut dyn Residency,
    ) -> Result<Tensor> {
        self.check_ids(ids, cache)?;
        let total = cache.next_position() + ids.len();
        let mut hidden = None;
        for chunk in ids.chunks(run) {
            // The last run's rows must not live through the next.
            drop(hidden.take());
            hidden = Some(self.forward(chunk, cache, total, probe, residency)?);
        }
        let hidden = hidden.ok_or_else(nothing_to_continue)?;
        let row = hidden.i(hidden.dim(0)? - 1..)?.contiguous()?;
        Ok(self.logits(&row)?.i(0)?)
    }

    /// Runs one token through the model; all that the cache holds is seen and stays.
    ///
    /// Shapes: float32 logits, `(vocab)`. Errors: as [`Decoder::prefill`].
    pub fn decode(&self, id: u32, cache: &mut KvCache) -> Result<Tensor> {
        self.step(id, cache, &mut Unchanging)
    }

    /// Runs one token through the model, while `residency` says what is seen and what stays.
    ///
    /// Shapes: float32 logits, `(vocab)`. Errors: as [`Decoder::prefill`]; whatever `residency` returns.
    pub fn step(
        &self,
        id: u32,
        cache: &mut KvCache,
        residency: &mut dyn Residency,
    ) -> Result<Tensor> {
        // A step is hundreds of short parallel regions: entering the thread pool once is cheaper than
        // handing every region over to it.
        rayon::scope(|_| {
            let logits = self.feed(&[id], cache, &mut attention::NoProbe, residency)?;
            Ok(logits.i(0)?)
        })
    }

    fn forward(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        prompt_tokens: usize,
        probe: &mut dyn AttentionProbe,
        residency: &mut dyn Residency,
    ) -> Result<Tensor> {
        let first = cache.next_position();
        if first == 0 {
            cache.begin(prompt_tokens);
        }
        let config = &self.config;
        let mut hidden = self.embedding.select(ids)?; // (n, hidden)
        if config.family.scaled_embedding {
            let root = (config.hidden_size as f64).sqrt();
            hidden = (hidden * root)?;
        }
        let begun_for = cache.begun_for();
        let rotations = self.rotations(first, ids.len(), begun_for)?;
        for (l, layer) in self.layers.iter().enumerate() {
            let normed = self.normed(&hidden, &layer.attention_norm)?;
            probe.observe_input(l, &normed)?;
            let projections = [&layer.query, &layer.key, &layer.value];
            let [queries, keys, values] = Linear::forward_all(projections, &normed)?;
            let rotation = &rotations[config.layers[l].rope];
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
            let values = self.heads(&values, None)?;
            cache.append(l, &keys, &values)?;
            let rows = first..first + ids.len();
            let run = AttentionRun {
                layer: l,
                rows: rows.clone(),
                prompt_tokens,
                query_heads: self.config.num_attention_heads,
                kv_heads: self.config.num_key_value_heads,
            };
            let held = cache.layer(l);
            let view = AttentionView {
                layer: l,
                rows,
                prompt_tokens,
                queries: &queries,
                cache: held,
                projection: &layer.output.matrix,
                rotation: TextRotation::new(&config.ropes[config.layers[l].rope], begun_for),
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
            let attended = attend(&queries, seen, first, &watches)?;
            probe.observe(&AttentionView {
                cache: seen,
                ..view
            })?;
            let [after_attention, after_feed_forward] = match &layer.branch_norms {
                Some([attention, feed_forward]) => [Some(attention), Some(feed_forward)],
                None => [None, None],
            };
            let attended = layer.output.forward(&attended)?;
            let before = hidden;
            hidden = (&before + self.normed_by(attended, after_attention)?)?;
            probe.observe_residual(l, &before, &hidden)?;
            drop(before);
            let normed = self.normed(&hidden, &layer.feed_forward_norm)?;
            let fed = layer.feed_forward.forward(&normed)?;
            hidden = (hidden + self.normed_by(fed, after_feed_forward)?)?;
        }
        cache.advance(ids.len())?;
        residency.after_step(cache)?;
        Ok(hidden)
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

    /// Cosines and sines of `tokens` positions for every rotary embedding, in a text that began with `begun_for`.
    fn rotations(&self, first: usize, tokens: usize, begun_for: usize) -> Result<Vec<Rotation>> {
        let ropes = self.config.ropes.iter();
        let (device, dtype) = (self.device(), self.norm.dtype());
        let positions = || first..first + tokens;
        ropes
            .map(|rope| Rotation::new(rope, begun_for, positions(), device, dtype))
            .collect()
    }

    /// Float32 logits of rows of the residual stream, `(rows, vocab)`.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let normed = self.normed(hidden, &self.norm)?;
        let logits = match &self.head {
            Some(head) => head.forward(&normed)?,
            None => self.embedding.multiply(&normed)?,
        };
        let logits = logits.to_dtype(DType::F32)?;
        if !logits.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(Error::NotFinite {
                place: "the model's output".into(),
                advice: "the weights are damaged, or --dtype is too narrow for them: try f32"
                    .into(),
            });
        }
        Ok(logits)
    }

    fn check_ids(&self, ids: &[u32], cache: &KvCache) -> Result<()> {
        let first = cache.next_position();
        let vocab = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(Error::invalid(
                "token id",
                id,
                format!("the vocabulary ends at {}", vocab - 1),
            ));
        }
        let begun_for = if first == 0 {
            ids.len()
        } else {
            cache.begun_for()
        };
        let context = self.config.context_of(begun_for);
        if first + ids.len() > context {
            return Err(Error::PromptTooLong {
                prompt: "text".into(),
                tokens: first + ids.len(),
                context,
            });
        }
        Ok(())
    }
}

fn nothing_to_continue() -> Error {
    let bound = "at least one token is needed";
    Error::invalid("continuation length", 0, bound)
}
