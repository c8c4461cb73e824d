//! The layers of a model one by one: each is read, used and let go before the next.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::attention::AttentionProbe;
use super::cache::KvCache;
use super::config::{LayerKind, ModelConfig};
use super::decoder::{PREFILL_RUN, check_ids, output_side};
use super::decoder_layer::Layer;
use super::embedding::Embedding;
use super::header::ModelHeader;
use super::layer_run::{LayerPlace, Observers, TokenRun};
use super::precision::Precision;
use super::residency::Unchanging;
use super::weights::Weights;
use crate::error::{Error, Result};

/// The residual stream of one prompt between two layers, wherever it is kept.
///
/// A run of rows is taken once in every layer, and put back as the layer leaves it.
pub trait HiddenRows {
    /// The rows of a run.
    ///
    /// Shapes: `(rows, hidden)`. Errors: those of the place where they are kept.
    fn take(&mut self, rows: Range<usize>) -> Result<Tensor>;

    /// Puts the rows of a run back.
    ///
    /// Errors: those of the place where they are kept.
    fn put(&mut self, rows: Range<usize>, hidden: Tensor) -> Result<()>;
}

/// A model whose layers are read one by one.
///
/// Differs: the numbers are those of [`super::decoder::Decoder`] to the last bit; what is held at a time is one layer
/// instead of all, and the cache of one layer instead of that of all.
pub struct LayerStream<'a> {
    weights: Weights<'a>,
    config: &'a ModelConfig,
    device: &'a Device,
    precision: Precision,
}

/// One layer of a model, in memory.
pub struct StreamedLayer<'a> {
    number: usize,
    layer: Layer,
    config: &'a ModelConfig,
    device: &'a Device,
    precision: Precision,
}

impl ModelHeader {
    /// The layers of the model, to be read one by one.
    ///
    /// Errors: [`Error::Unsupported`] for tensors that the decoder does not know, [`Error::Format`] for missing ones, and as
    /// [`super::decoder::Decoder::load`] for those of the first layer and of the output side.
    pub fn layers<'a>(
        &'a mut self,
        device: &'a Device,
        precision: Precision,
    ) -> Result<LayerStream<'a>> {
        precision.check_products(device)?;
        let config = &self.config;
        let mut weights = Weights::new(self.weights.tensors(), device, precision);
        // Neither is of use here before the first layer is: damage in them should be told before hours of work, not after. That
        // of a later layer is told when it is read, which is not worth reading all of a large file twice.
        output_side(&mut weights, config)?;
        Embedding::load(&mut weights, config)?;
        Layer::load(&mut weights, config, 0)?;
        weights.take_layers_like_the_first(config.num_hidden_layers())?;
        weights.refuse_leftovers()?;
        Ok(LayerStream {
            weights,
            config,
            device,
            precision,
        })
    }
}

impl<'a> LayerStream<'a> {
    /// The model's geometry.
    pub fn config(&self) -> &'a ModelConfig {
        self.config
    }

    /// Where layers are read to.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Reads the embedding.
    ///
    /// Errors: as [`super::decoder::Decoder::load`].
    pub fn embedding(&mut self) -> Result<Embedding> {
        Embedding::load(&mut self.weights, self.config)
    }

    /// Reads a layer.
    ///
    /// Errors: as [`super::decoder::Decoder::load`].
    pub fn layer(&mut self, number: usize) -> Result<StreamedLayer<'a>> {
        let layer = Layer::load(&mut self.weights, self.config, number)?;
        if number + 1 == self.config.num_hidden_layers() {
            self.weights.remember_finite();
        }
        Ok(StreamedLayer {
            number,
            layer,
            config: self.config,
            device: self.device,
            precision: self.precision,
        })
    }

    /// Refuses a prompt that the model cannot read.
    ///
    /// Errors: [`Error::Invalid`] for no tokens, or one outside the vocabulary; [`Error::PromptTooLong`].
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            let bound = "at least one token is needed";
            return Err(Error::invalid("prompt length", 0, bound));
        }
        check_ids(self.config, ids, &KvCache::default())
    }
}

impl StreamedLayer<'_> {
    /// Its number, counted from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What its queries see.
    pub fn kind(&self) -> LayerKind {
        self.config.layers[self.number]
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.layer.bytes()
    }

    /// Runs a prompt of `tokens` through the layer, whose keys and values are made, shown to `probe` and let go.
    ///
    /// Errors: [`Error::Candle`]; whatever the probe and the rows return.
    pub fn prefill(
        &self,
        hidden: &mut dyn HiddenRows,
        tokens: usize,
        probe: &mut dyn AttentionProbe,
    ) -> Result<()> {
        let held_as = self.precision.cache;
        let mut cache = KvCache::of_layer(self.config, self.number, tokens, held_as, self.device)?;
        cache.begin(tokens);
        let place = LayerPlace {
            layer: self.number,
            in_cache: 0,
        };
        let mut observers = Observers {
            probe,
            residency: &mut Unchanging,
        };
        for start in (0..tokens).step_by(PREFILL_RUN) {
            let rows = start..tokens.min(start + PREFILL_RUN);
            let dtype = self.layer.attention_norm.dtype();
            let lengths = [tokens, tokens];
            let run = TokenRun::new(self.config, rows.clone(), lengths, (self.device, dtype))?;
            let before = hidden.take(rows.clone())?;
            let after = run.through(&self.layer, place, before, &mut cache, &mut observers)?;
            cache.advance(rows.len())?;
            hidden.put(rows, after)?;
        }
        Ok(())
    }
}
