//! The two probes: one lets the prompt's windows vote, one compares generated tokens with these votes.

use candle_core::Device;

use super::counts::{HeadHits, WindowHits};
use super::options::HitRateOptions;
use super::vote::{Vote, Voting};
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Attention rows of a block of positions.
struct Block {
    flat: Vec<f32>,
    rows: usize,
    seen: usize,
}

impl Block {
    fn read(view: &AttentionView<'_>, positions: std::ops::Range<usize>) -> Result<Self> {
        let block = view.probabilities(positions)?.to_device(&Device::Cpu)?;
        let (_, rows, seen) = block.dims3()?;
        Ok(Self {
            flat: block.flatten_all()?.to_vec1::<f32>()?,
            rows,
            seen,
        })
    }

    /// The part of a query head's row that lies in the prefix.
    fn row(&self, head: usize, row: usize, prefix: usize) -> &[f32] {
        &self.flat[(head * self.rows + row) * self.seen..][..prefix]
    }
}

/// Lets the last windows of a prompt vote during its prefill.
pub(super) struct PromptProbe<'a> {
    options: &'a HitRateOptions,
    layers: Vec<Voting>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> PromptProbe<'a> {
    pub(super) fn new(options: &'a HitRateOptions, on_layer: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            options,
            layers: Vec::new(),
            on_layer,
        }
    }

    /// The votes, `[layer][window]`.
    pub(super) fn finish(self) -> Vec<Vec<Vote>> {
        self.layers.into_iter().map(Voting::finish).collect()
    }
}

impl AttentionProbe for PromptProbe<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, run, _) = view.queries.dims3()?;
        let prefix = self.options.prefix(view.prompt_tokens);
        if self.layers.len() <= view.layer {
            let named = self.options.named_keys(prefix);
            let voting = Voting::new(h_q, prefix, self.options.window, named);
            self.layers.push(voting);
        }
        let voting = &mut self.layers[view.layer];
        let mut start = view.rows.start.max(prefix);
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = Block::read(view, start..end)?;
            for row in 0..block.rows {
                voting.add(|head| block.row(head, row, prefix))?;
            }
            start = end;
        }
        (self.on_layer)(run);
        Ok(())
    }
}

/// One layer while tokens are generated.
struct LayerSteps {
    /// Of the prompt's windows.
    votes: Vec<Vote>,
    voting: Voting,
    heads: Vec<HeadHits>,
    steps: usize,
}

/// Compares every generated token's row with the votes of the prompt, and lets generated windows vote.
pub(super) struct StepProbe<'a> {
    options: &'a HitRateOptions,
    prefix: usize,
    votes: Vec<Vec<Vote>>,
    layers: Vec<LayerSteps>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> StepProbe<'a> {
    /// A probe for the steps after a prompt whose windows voted `[layer][window]`.
    pub(super) fn new(
        options: &'a HitRateOptions,
        prefix: usize,
        votes: Vec<Vec<Vote>>,
        on_layer: &'a mut dyn FnMut(usize),
    ) -> Self {
        Self {
            options,
            prefix,
            votes,
            layers: Vec::new(),
            on_layer,
        }
    }

    /// `[layer][query head]`.
    pub(super) fn finish(self) -> Vec<Vec<HeadHits>> {
        self.layers.into_iter().map(LayerSteps::finish).collect()
    }
}

impl AttentionProbe for StepProbe<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, run, _) = view.queries.dims3()?;
        let (options, prefix) = (self.options, self.prefix);
        if self.layers.len() <= view.layer {
            let named = options.named_keys(prefix);
            let hits = HeadHits {
                prompt: vec![WindowHits::default(); options.windows],
                generated: vec![WindowHits::default(); options.generated_windows],
            };
            self.layers.push(LayerSteps {
                votes: std::mem::take(&mut self.votes[view.layer]),
                voting: Voting::new(h_q, prefix, options.window, named),
                heads: vec![hits; h_q],
                steps: 0,
            });
        }
        let block = Block::read(view, view.rows.clone())?;
        for row in 0..block.rows {
            let layer = &mut self.layers[view.layer];
            layer.step(|head| block.row(head, row, prefix), options)?;
        }
        (self.on_layer)(run);
        Ok(())
    }
}

impl LayerSteps {
    fn step<'r>(
        &mut self,
        row: impl Fn(usize) -> &'r [f32],
        options: &HitRateOptions,
    ) -> Result<()> {
        let theta = options.theta;
        for (h, head) in self.heads.iter_mut().enumerate() {
            let keys = row(h).iter().enumerate();
            let important: Vec<usize> = keys
                .filter(|(_, p)| f64::from(**p) > theta)
                .map(|(key, _)| key)
                .collect();
            for (hits, vote) in head.prompt.iter_mut().zip(&self.votes) {
                hits.step(&important, h, vote);
            }
            let own = head.generated.get_mut(self.steps / options.window);
            if let (Some(hits), Some(last)) = (own, self.votes.last()) {
                hits.step(&important, h, last);
            }
        }
        self.steps += 1;
        self.voting.add(row)
    }

    fn finish(self) -> Vec<HeadHits> {
        let Self {
            votes,
            voting,
            mut heads,
            ..
        } = self;
        let Some(last) = votes.last() else {
            return heads;
        };
        for (window, vote) in votes.iter().enumerate() {
            for (head, overlap) in heads.iter_mut().zip(vote.overlap(last)) {
                head.prompt[window].overlap = overlap;
            }
        }
        for (window, vote) in voting.finish().iter().enumerate() {
            for (head, overlap) in heads.iter_mut().zip(vote.overlap(last)) {
                head.generated[window].overlap = overlap;
            }
        }
        heads
    }
}
