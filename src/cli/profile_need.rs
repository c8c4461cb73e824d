//! What a profile takes in memory and on disk, and how many prompts pass through the model at a time.

use std::str::FromStr;

use kvprof::budget::CacheBudget;
use kvprof::compute::memory::available_bytes;
use kvprof::model::cache::Representation;
use kvprof::model::footprint::{Footprint, Prefill};
use kvprof::profile::{Prompt, budget_grid};
use serde::Serialize;

use super::memory_need::amount;

/// An amount of memory as the command line says it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBound(usize);

impl FromStr for MemoryBound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(CacheBudget::Bytes(bytes)) if bytes >= 1.0 => Ok(Self(bytes as usize)),
            _ => Err("expected bytes, such as 900MB, 2GB or 1.5GiB".to_owned()),
        }
    }
}

/// What the prompts of a batch may take beside the layer that they pass through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRoom {
    /// Bytes of residual streams that stay in memory; the rest waits in a file.
    pub in_memory: usize,
    /// Bytes of residual streams and rows of tables of all prompts of a batch.
    pub at_once: usize,
    /// Of a token of the residual stream.
    hidden: usize,
    /// Query heads of all layers, which have a row for every budget of the grid.
    heads: usize,
}

/// Bytes of a row of a profile's largest table while it is in memory.
const ROW: usize = 192;

impl BatchRoom {
    /// Bytes that a prompt of `tokens` takes until its batch ends.
    pub fn of_prompt(&self, tokens: usize) -> usize {
        tokens * self.hidden + self.heads * budget_grid(tokens).len() * ROW
    }
}

/// The memory and disk that a run needs, and what there is.
#[derive(Debug, Serialize)]
pub struct ProfileNeed {
    pub(super) device: String,
    pub(super) dtype: String,
    pub(super) prompts: usize,
    pub(super) longest_prompt_tokens: usize,
    pub(super) prompts_at_once: usize,
    pub(super) cache_bytes_per_token: usize,
    #[serde(flatten)]
    pub(super) footprint: Footprint,
    pub(super) total: usize,
    /// What the run keeps to: --memory, or half of what is available.
    pub(super) bound: Option<usize>,
    /// `None` where the device does not tell.
    pub(super) available: Option<usize>,
    /// Tokens of the longest prompt that would fit; `None` as for `available`.
    pub(super) most_prompt_tokens: Option<usize>,
    pub(super) context: usize,
    /// Times that all weights are read.
    pub(super) batches: usize,
    /// Bytes of residual streams that wait in a file, at most.
    pub(super) scratch: usize,
    /// Bytes that are kept on disk for --resume, at most: twice, while the next are written.
    pub(super) kept: usize,
    /// Weights and cache of a run that holds all layers, as `eval` and `generate` do.
    pub(super) all_layers: usize,
    #[serde(skip)]
    pub(super) room: BatchRoom,
    /// Tokens of one prompt that layers can be timed on.
    #[serde(skip)]
    pub(super) calibrated_tokens: usize,
    /// Whether keys and values are float32.
    #[serde(skip)]
    pub(super) holds_float32: bool,
    /// Whether weights that were read once are still in memory when they are read again.
    #[serde(skip)]
    pub(super) weights_stay: bool,
}

impl ProfileNeed {
    /// Of prompts that are prefilled and measured within `memory`.
    pub fn of(prefill: &Prefill<'_>, prompts: &[Prompt], memory: Option<MemoryBound>) -> Self {
        let lengths: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let fixed = prefill.footprint(longest);
        let available = available_bytes(prefill.device);
        let share = available.map(|bytes| (bytes / 2).max(fixed.total().min(bytes)));
        let bound = memory.map(|bound| bound.0).or(share);
        let left = bound.map_or(usize::MAX / 2, |bound| {
            bound.saturating_sub(fixed.total() - fixed.hidden)
        });
        let config = prefill.config;
        // Where weights are read from disk in every batch, residual streams may go there as well.
        let stay = available.is_none_or(|available| prefill.weights.held < available);
        let room = BatchRoom {
            in_memory: left,
            at_once: if stay {
                left
            } else {
                left.max(prefill.weights.held)
            },
            hidden: prefill.hidden(1),
            heads: config.num_hidden_layers() * config.num_attention_heads,
        };
        let (batches, most_hidden) = batches(&room, &lengths);
        let footprint = Footprint {
            hidden: most_hidden.min(left),
            ..fixed
        };
        Self {
            device: format!("{:?}", prefill.device.location()),
            dtype: prefill.precision.to_string(),
            prompts: prompts.len(),
            longest_prompt_tokens: longest,
            prompts_at_once: prefill.jobs,
            cache_bytes_per_token: config.cache_bytes_per_token(prefill.precision.cache),
            total: footprint.total(),
            footprint,
            bound,
            available,
            most_prompt_tokens: bound.map(|bytes| prefill.most_tokens(bytes)),
            context: config.max_position_embeddings,
            batches,
            scratch: most_hidden.saturating_sub(left),
            kept: most_hidden,
            all_layers: prefill.weights.held + config.cache_bytes(longest, prefill.precision.cache),
            room,
            calibrated_tokens: bound.map_or(longest, |bytes| prefill.most_timed_tokens(bytes)),
            holds_float32: prefill.precision.cache == Representation::FLOAT32,
            weights_stay: stay,
        }
    }

    /// What a batch may take.
    pub fn room(&self) -> BatchRoom {
        self.room
    }

    /// An error where a layer and its cache alone are more than may be taken; a warning where only the bound of everything
    /// together is.
    pub fn refuse_what_cannot_fit(&self) -> anyhow::Result<()> {
        let Some(bound) = self.bound else {
            return Ok(());
        };
        let least = self.footprint.weights + self.footprint.cache;
        anyhow::ensure!(
            least <= bound,
            "a layer and its cache take {}, {}; {}",
            amount(least),
            self.limit(bound),
            self.advice()
        );
        if self.total > bound {
            eprintln!(
                "warning: up to {} may be needed, {}; {}",
                amount(self.total),
                self.limit(bound),
                self.advice()
            );
        }
        Ok(())
    }

    /// Why no layer can be timed, where none can.
    pub fn cannot_be_timed(&self) -> Option<String> {
        let bound = self.bound.filter(|_| self.calibrated_tokens == 0)?;
        Some(format!(
            "a layer on one token does not fit, {}; {}",
            self.limit(bound),
            self.advice()
        ))
    }

    fn limit(&self, bound: usize) -> String {
        match self.available {
            Some(available) if bound <= available => format!(
                "{} may be taken of the {} that {} has left",
                amount(bound),
                amount(available),
                self.device
            ),
            Some(available) => format!("{} has {} left", self.device, amount(available)),
            None => format!("{} may be taken", amount(bound)),
        }
    }

    pub(super) fn advice(&self) -> String {
        let mut ways = Vec::new();
        if let Some(most) = self.most_prompt_tokens.filter(|most| *most > 0) {
            ways.push(format!("cut prompts with --max-prompt-tokens {most}"));
        }
        if self.prompts_at_once > 1 {
            ways.push("lower --jobs".to_owned());
        }
        let half = self.available.map(|available| available / 2);
        if self.bound <= half {
            ways.push("allow more with --memory".to_owned());
        }
        if self.holds_float32 {
            ways.push("hold keys and values in half the bytes with --cache-dtype bf16".to_owned());
        }
        ways.push("take a smaller model".to_owned());
        ways.join(", or ")
    }
}

/// How many batches prompts of these lengths make, and the most bytes of residual streams in one.
fn batches(room: &BatchRoom, lengths: &[usize]) -> (usize, usize) {
    let (mut batches, mut most) = (0, 0);
    for batch in room.batches(lengths) {
        batches += 1;
        let hidden: usize = batch
            .iter()
            .map(|&place| lengths[place] * room.hidden)
            .sum();
        most = most.max(hidden);
    }
    (batches, most)
}

impl BatchRoom {
    /// Places of prompts of these lengths, batch by batch.
    pub fn batches(&self, lengths: &[usize]) -> Vec<Vec<usize>> {
        let (mut batches, mut taken) = (Vec::<Vec<usize>>::new(), 0);
        for (place, &tokens) in lengths.iter().enumerate() {
            let bytes = self.of_prompt(tokens);
            match batches.last_mut() {
                Some(batch) if taken + bytes <= self.at_once => batch.push(place),
                _ => {
                    batches.push(vec![place]);
                    taken = 0;
                }
            }
            taken += bytes;
        }
        batches
    }
}
