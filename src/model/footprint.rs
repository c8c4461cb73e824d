//! What a prefill takes in memory, computed before anything is loaded.

use candle_core::{DType, Device};
use serde::Serialize;

use super::attention::device::has_prefill_attention;
use super::attention::{STRIP, block_bytes};
use super::cache::{Elements, Representation};
use super::config::ModelConfig;
use super::decoder::PREFILL_RUN;
use super::gguf::{WeightMemory, dense_type};
use super::precision::Precision;
use crate::compute::linear::Products;

/// What the process takes whatever it works on: code, vocabulary, thread stacks, freed memory kept by the
/// allocator.
const PROCESS: usize = 64 << 20;

/// Budgets whose outputs a device computes together.
pub(crate) const BUDGETS: usize = 1024;

/// Bytes of a prefill that is measured layer by layer.
///
/// Differs: `weights`, `cache` and `hidden` are exact; `workspace` is a bound put together from the largest tensors that
/// live at the same time, not what a run was seen to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Weights of the largest layer, or of embedding or output head where these are larger; on the CPU packed ones are pages of
    /// the mapped file, which the system may drop.
    pub weights: usize,
    /// Keys and values of all tokens in one layer.
    pub cache: usize,
    /// Residual streams of the prompts at work.
    pub hidden: usize,
    /// Activations of one run, attention, measures, and reading the weights before.
    pub workspace: usize,
}

/// What a prefill layer by layer is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Prefill<'a> {
    /// The model's geometry.
    pub config: &'a ModelConfig,
    /// Its weights.
    pub weights: WeightMemory,
    /// Where it runs.
    pub device: &'a Device,
    /// In which types it computes and caches.
    pub precision: Precision,
    /// Rows that are measured; `None` is every row.
    pub window: Option<usize>,
    /// Whether outputs are compared with those of a layer in other types.
    pub compares_types: bool,
    /// Prompts that run side by side.
    pub jobs: usize,
}

impl Footprint {
    /// Bytes that it holds at most.
    pub fn total(&self) -> usize {
        self.weights + self.cache + self.hidden + self.workspace
    }
}

impl Prefill<'_> {
    /// The footprint of a prompt of `tokens`.
    pub fn footprint(&self, tokens: usize) -> Footprint {
        let measured = self.measures(tokens) + self.types(tokens);
        let at_work = self.activations(tokens) + self.attention(tokens) + measured;
        let process = if self.device.is_cpu() { PROCESS } else { 0 };
        Footprint {
            weights: self.weights.largest,
            cache: self.jobs * self.cache(tokens),
            hidden: self.jobs * self.hidden(tokens),
            workspace: process + (self.jobs * at_work).max(self.weights.unpacking),
        }
    }

    /// The longest prompt that fits into `bytes`, at most the model's context; 0 if none does.
    pub fn most_tokens(&self, bytes: usize) -> usize {
        self.most(|tokens| self.footprint(tokens).total() <= bytes)
    }

    /// The longest part of one prompt that a layer can be timed on within `bytes`: its residual stream is there twice, before
    /// and behind the layer. At most the model's context; 0 if none can.
    pub fn most_timed_tokens(&self, bytes: usize) -> usize {
        let alone = Self { jobs: 1, ..*self };
        let needed = |tokens| alone.footprint(tokens).total() + alone.hidden(tokens);
        self.most(|tokens| needed(tokens) <= bytes)
    }

    /// The longest prompt that fits, of those within the context; 0 if none does.
    fn most(&self, fits: impl Fn(usize) -> bool) -> usize {
        let context = self.config.max_position_embeddings;
        let (mut least, mut most) = (0, context + 1);
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            if fits(middle) {
                least = middle;
            } else {
                most = middle;
            }
        }
        least
    }

    /// The residual stream of a prompt.
    pub fn hidden(&self, tokens: usize) -> usize {
        tokens * self.config.hidden_size * self.element()
    }

    /// Keys and values of all tokens in one layer; where they are coded together, those of a run wait in float16 until it
    /// ends.
    fn cache(&self, tokens: usize) -> usize {
        let (c, held_as) = (self.config, self.precision.cache);
        let waiting = if held_as.holds_tokens_alone() {
            0
        } else {
            c.cache_bytes(
                tokens.min(PREFILL_RUN),
                Representation::both(Elements::Float16),
            )
        };
        (c.cache_bytes(tokens, held_as) + waiting) / c.num_hidden_layers().max(1)
    }

    /// Of one run: the residual stream twice and its norm, queries, keys and values in three shapes, what
    /// attention gives, and the feed-forward layer's two wide tensors and their product.
    fn activations(&self, tokens: usize) -> usize {
        let c = self.config;
        let width = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
        let attended = c.num_attention_heads * c.head_dim;
        let numbers = 4 * c.hidden_size + 3 * width + 2 * attended + 3 * c.intermediate_size;
        let run = tokens.min(PREFILL_RUN);
        // Rounded for products on the CPU: two bytes each for bfloat16; for integers scales and sums beside codes of two
        // bytes, or of one as well where some formats take one and some the other.
        let operands = if !self.on_slices() {
            0
        } else {
            let widest = run * c.hidden_size.max(attended).max(c.intermediate_size);
            match (self.precision.products, self.precision.dtype) {
                (Products::Int16, _) => widest * 5 / 2,
                (Products::Int8, _) => widest * 17 / 4,
                (Products::Float32, DType::BF16) => widest * 2,
                (Products::Float32, _) => 0,
            }
        };
        // Logits of the last token, in float32 and as they came.
        run * numbers * self.element() + operands + c.vocab_size * (4 + self.element())
    }

    /// Of attention: on the CPU, rows of a strip on every thread; elsewhere see
    /// [`Prefill::attention_on_device`].
    fn attention(&self, tokens: usize) -> usize {
        let c = self.config;
        if self.on_slices() {
            let strip = STRIP * c.group().div_ceil(STRIP);
            return rayon::current_num_threads() * strip * (tokens + 64) * 4;
        }
        let by_kernel = has_prefill_attention(self.device, self.precision.dtype, c.head_dim);
        self.attention_on_device(tokens, by_kernel)
    }

    /// Float32 keys and values of a layer twice, and three tensors of the probabilities of a block. A kernel that
    /// computes outputs needs nothing of it: then blocks are those of measured rows, and of keys alone.
    fn attention_on_device(&self, tokens: usize, by_kernel: bool) -> usize {
        let c = self.config;
        let keys = c.num_key_value_heads * tokens * c.head_dim * 4;
        let run = tokens.min(PREFILL_RUN);
        let (layer, rows) = if by_kernel {
            (keys, run.min(self.window.unwrap_or(run)))
        } else {
            (2 * keys, run)
        };
        match rows {
            0 => 0,
            _ => 2 * layer + 3 * block_bytes(c.num_attention_heads, rows, tokens),
        }
    }

    /// Rows that are measured, and the layers in which they wait for the prompt's end: one where they come from several
    /// runs.
    fn measured_rows(&self, tokens: usize) -> (usize, usize) {
        let rows = self.window.unwrap_or(tokens).min(tokens);
        let last_run = match tokens % PREFILL_RUN {
            0 => PREFILL_RUN,
            rest => rest,
        };
        (rows, usize::from(rows > last_run))
    }

    /// Of comparing types: the rows' queries where they wait, joined, and what attention gives of them
    /// twice; a layer's keys and values in at most float32; its output projection.
    fn types(&self, tokens: usize) -> usize {
        if !self.compares_types {
            return 0;
        }
        let c = self.config;
        let (rows, layers) = self.measured_rows(tokens);
        let width = c.num_attention_heads * c.head_dim;
        let layer = 2 * c.num_key_value_heads * tokens * c.head_dim;
        4 * (rows * width * (layers + 4) + layer + 2 * c.hidden_size * width)
    }

    /// Of measuring: sums over rows in float64, once more where rows come from several runs; order, values
    /// and running sums of two vectors of a layer; its values and output projection in float32.
    fn measures(&self, tokens: usize) -> usize {
        let c = self.config;
        let (_, layers) = self.measured_rows(tokens);
        let vector = c.num_attention_heads * tokens;
        let width = c.num_attention_heads * c.head_dim;
        let projection = 2 * c.hidden_size * width * 4;
        if !self.on_slices() {
            // Sums, last rows and two rankings; outputs of every budget twice, while heads are joined; those of
            // a block of budgets before and after the projection, in float32 and float64.
            let sums = 8 * vector * (layers + 1) + 4 * 12 * vector;
            let outputs = 2 * 4 * tokens * width;
            let block = BUDGETS.min(tokens) * (3 * 4 * width + c.hidden_size * (4 + 3 * 8));
            return sums + outputs + block + projection;
        }
        let sums = 8 * vector * (layers + rayon::current_num_threads());
        let ranked = 2 * vector * (8 + 4 + 8 + 8);
        let values = 2 * c.num_key_value_heads * tokens * c.head_dim * 4;
        sums + ranked + values + projection
    }

    fn on_slices(&self) -> bool {
        self.device.is_cpu()
    }

    /// Bytes of an activation.
    fn element(&self) -> usize {
        dense_type(self.device, self.precision.dtype).size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{FAMILIES, LayerKind};

    fn config() -> ModelConfig {
        ModelConfig {
            family: FAMILIES[0],
            vocab_size: 1000,
            hidden_size: 64,
            intermediate_size: 128,
            layers: vec![LayerKind::GLOBAL; 4],
            num_attention_heads: 8,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 8192,
            rms_norm_eps: 1e-5,
            ropes: vec![],
            attention_scale: None,
            tie_word_embeddings: true,
        }
    }

    fn prefill(config: &ModelConfig) -> Prefill<'_> {
        Prefill {
            config,
            weights: WeightMemory {
                held: 1 << 20,
                unpacking: 1 << 16,
                largest: 1 << 18,
            },
            device: &Device::Cpu,
            precision: Precision::FLOAT32,
            window: Some(32),
            compares_types: false,
            jobs: 1,
        }
    }

    #[test]
    fn cache_and_weights_are_exact_and_all_grows_with_the_prompt() {
        let config = config();
        let prefill = prefill(&config);
        let found = prefill.footprint(100);
        assert_eq!(found.weights, 1 << 18);
        assert_eq!(found.cache, 100 * 2 * 2 * 8 * 4, "of one layer");
        assert_eq!(found.hidden, 100 * 64 * 4);
        let mut before = 0;
        for tokens in [1, 2, 64, 1024, 1025, 8192] {
            let total = prefill.footprint(tokens).total();
            assert!(total > before, "{tokens}");
            before = total;
        }
        let two = Prefill { jobs: 2, ..prefill };
        assert_eq!(two.footprint(100).cache, 2 * found.cache);
        assert!(two.footprint(100).workspace > found.workspace);
        // Queries, joined and attended three times; keys and values; the projection twice.
        let types = Prefill {
            compares_types: true,
            ..prefill
        };
        let more = types.footprint(2048).workspace - prefill.footprint(2048).workspace;
        assert_eq!(more, 4 * (32 * 64 * 4 + 2 * 2 * 2048 * 8 + 2 * 64 * 64));
    }

    #[test]
    fn the_longest_prompt_that_fits_is_found() {
        let config = config();
        let prefill = prefill(&config);
        for tokens in [1, 500, 8191] {
            let bytes = prefill.footprint(tokens).total();
            assert_eq!(prefill.most_tokens(bytes), tokens);
            assert_eq!(prefill.most_tokens(bytes - 1), tokens - 1);
        }
        assert_eq!(prefill.most_tokens(usize::MAX), 8192);
        assert_eq!(prefill.most_tokens(0), 0);
        let two = Prefill { jobs: 2, ..prefill };
        for tokens in [1, 500, 8191] {
            let bytes = prefill.footprint(tokens).total() + prefill.hidden(tokens);
            assert_eq!(two.most_timed_tokens(bytes), tokens, "one prompt, twice");
            assert_eq!(two.most_timed_tokens(bytes - 1), tokens - 1);
        }
    }

    #[test]
    fn a_kernel_needs_blocks_of_measured_rows_alone() {
        let config = config();
        let with = |window| Prefill {
            window,
            ..prefill(&config)
        };
        let (keys, row) = (2 * 8192 * 8 * 4, 8 * 8192 * 4);
        let blocks = with(Some(32)).attention_on_device(8192, false);
        assert_eq!(blocks, 4 * keys + 3 * (256 << 20));
        assert_eq!(with(None).attention_on_device(8192, false), blocks);
        for (window, rows) in [(1, 1), (32, 32), (1000, 1000)] {
            let found = with(Some(window)).attention_on_device(8192, true);
            assert_eq!(found, 2 * keys + 3 * rows * row);
        }
        assert_eq!(with(Some(0)).attention_on_device(8192, true), 0);
        let all = with(None).attention_on_device(8192, true);
        assert_eq!(all, 2 * keys + 3 * (256 << 20));
        // A row that is larger than a block should be is a block all the same.
        let long = with(Some(32)).attention_on_device(1 << 24, true);
        assert_eq!(long, (1 << 24) * 4 * (2 * 2 * 8 + 3 * 8));
    }

    #[test]
    fn rows_of_several_runs_are_held_once_more() {
        let config = config();
        let last = prefill(&config);
        let all = Prefill {
            window: None,
            ..last
        };
        let more = all.footprint(4096).workspace - last.footprint(4096).workspace;
        assert_eq!(more, 8 * 8 * 4096);
        assert_eq!(
            all.footprint(1024).workspace,
            last.footprint(1024).workspace
        );
    }
}
