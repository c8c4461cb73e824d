//! The decoder: embedding, layers of grouped-query attention and gated feed-forward, output head.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::ops::rms_norm;
use serde::Serialize;

use super::attention::{self, AttentionProbe};
use super::cache::{KvCache, Representation};
use super::config::ModelConfig;
use super::decoder_layer::Layer;
use super::embedding::Embedding;
use super::layer_run::{LayerPlace, Observers, TokenRun};
use super::precision::Precision;
use super::residency::{Residency, Unchanging};
use super::weights::{TensorSource, Weights};
use crate::compute::finite::all_finite;
use crate::compute::linear::{Linear, tensor_bytes};
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
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Option<Linear>,
    as_on_device: bool,
    precision: Precision,
}

impl Decoder {
    /// Reads all weights; quantised matrices stay as they are where they can.
    ///
    /// Differs: on the CPU activations, norms, logits and all sums are float32 whatever the type is: for bfloat16, on
    /// processors that multiply its pairs, it is the type of the operands of products with packed matrices and many
    /// activations; integer products round activations there and nowhere else. On other devices everything is of that type.
    /// Caches are what the precision or [`Decoder::hold_as`] says.
    /// Errors: [`Error::Format`] for missing or misshapen tensors, [`Error::Unsupported`] for
    /// tensors that this decoder does not know, [`Error::NotFinite`].
    pub fn load(
        source: &mut dyn TensorSource,
        config: ModelConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        precision.check_products(device)?;
        let c = &config;
        let mut weights = Weights::new(source, device, precision);
        let embedding = Embedding::load(&mut weights, c)?;
        let layers = (0..c.num_hidden_layers())
            .map(|l| Layer::load(&mut weights, c, l))
            .collect::<Result<_>>()?;
        let (norm, head) = output_side(&mut weights, c)?;
        weights.refuse_leftovers()?;
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            head,
            as_on_device: false,
            precision,
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

    /// The type that the model computes in and its products, as [`Decoder::load`] says, and the elements of its caches.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of the weights as they lie in memory.
    pub fn weight_bytes(&self) -> WeightBytes {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        let (embedding, head) = (
            self.embedding.matrix.bytes(),
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
        let mut hidden = self.embedding.rows_of(ids)?;
        let begun_for = cache.begun_for();
        let run = TokenRun::new(
            &self.config,
            first..first + ids.len(),
            [prompt_tokens, begun_for],
            (self.device(), self.norm.dtype()),
        )?
        .computed(self.as_on_device);
        let mut observers = Observers { probe, residency };
        for (l, layer) in self.layers.iter().enumerate() {
            let place = LayerPlace {
                layer: l,
                in_cache: l,
            };
            hidden = run.through(layer, place, hidden, cache, &mut observers)?;
        }
        cache.advance(ids.len())?;
        observers.residency.after_step(cache)?;
        Ok(hidden)
    }

    /// Float32 logits of rows of the residual stream, `(rows, vocab)`.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(hidden, &self.norm, self.config.rms_norm_eps as f32)?;
        let logits = match &self.head {
            Some(head) => head.forward(&normed)?,
            None => self.embedding.matrix.multiply(&normed)?,
        };
        let logits = logits.to_dtype(DType::F32)?;
        if !all_finite(&logits)? {
            return Err(Error::NotFinite {
                place: "the model's output".into(),
                advice: "the weights are damaged, or --dtype is too narrow for them: try f32"
                    .into(),
            });
        }
        Ok(logits)
    }

    fn check_ids(&self, ids: &[u32], cache: &KvCache) -> Result<()> {
        check_ids(&self.config, ids, cache)
    }
}

/// Refuses tokens that the model does not know, and texts that are longer than its context.
pub(super) fn check_ids(config: &ModelConfig, ids: &[u32], cache: &KvCache) -> Result<()> {
    let first = cache.next_position();
    let vocab = config.vocab_size;
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
    let context = config.context_of(begun_for);
    if first + ids.len() > context {
        return Err(Error::PromptTooLong {
            prompt: "text".into(),
            tokens: first + ids.len(),
            context,
        });
    }
    Ok(())
}

/// The last norm, and the output head of models in which it is not the embedding.
pub(super) fn output_side(
    weights: &mut Weights<'_>,
    c: &ModelConfig,
) -> Result<(Tensor, Option<Linear>)> {
    let norm = weights.tensor("output_norm.weight", &[c.hidden_size])?;
    let head = if c.tie_word_embeddings {
        None
    } else {
        Some(weights.linear("output", c.vocab_size, c.hidden_size)?)
    };
    Ok((norm, head))
}

fn nothing_to_continue() -> Error {
    let bound = "at least one token is needed";
    Error::invalid("continuation length", 0, bound)
}
