//! One prompt: prefill, vote, generate from the full cache, compare.

use super::super::fidelity::most_likely;
use super::counts::HeadHits;
use super::options::HitRateOptions;
use super::probe::{PromptProbe, StepProbe};
use crate::error::Result;
use crate::method::{LiveCache, prefill};
use crate::model::decoder::Decoder;

/// One prompt's hits.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptHits {
    /// `[layer][query head]`.
    pub layers: Vec<Vec<HeadHits>>,
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// Tokens before the first one that would have ended the answer; all of them if none would.
    pub answer_tokens: usize,
}

/// Prefills a prompt, lets its last windows vote, feeds the `question` that comes after it, if there is one, and
/// generates from the full cache.
///
/// Paper: arXiv:2404.14469 (SnapKV), section 3, both observations. Differs: the text is generated greedily
/// and past every stop id, since the windows need all of their tokens, where the paper reads recorded
/// answers; a step is the row of a generated token, so the row that predicts the first of them belongs to
/// the prompt's last window; hit rates are kept per query head, and apart for keys beyond the sinks.
/// Generated windows are compared in both ways that the observation can be read: the important keys of
/// their steps against the last prompt window's vote (`hits`), and their own votes against it (`overlap`).
/// Errors: those of [`HitRateOptions::check`] and [`HitRateOptions::check_prompt`], and the decoder's.
pub fn measure(
    decoder: &Decoder,
    ids: &[u32],
    question: &[u32],
    stop_ids: &[u32],
    options: &HitRateOptions,
    on_layer: &mut dyn FnMut(usize),
) -> Result<PromptHits> {
    options.check()?;
    let context = decoder.config().context_of(ids.len() + question.len());
    let context = context.saturating_sub(question.len());
    options.check_prompt("to measure", ids.len(), context)?;
    let steps = options.generated_tokens();
    let mut prompt = PromptProbe::new(options, on_layer);
    let prefilled = prefill(
        decoder,
        ids,
        question.len() + steps,
        Vec::new(),
        &mut prompt,
    )?;
    let votes = prompt.finish();
    let prefix = options.prefix(ids.len());
    let mut probe = StepProbe::new(options, prefix, votes, on_layer);
    let mut generated = Vec::with_capacity(steps);
    let mut live = LiveCache::keeping(prefilled.cache);
    let asked = live.feed_to_last(decoder, question)?;
    let mut logits = asked.map_or_else(|| prefilled.logits.to_vec1::<f32>(), Ok)?;
    for _ in 0..steps {
        let id = most_likely(&logits);
        generated.push(id);
        logits = live.feed_watched(decoder, &[id], &mut probe)?.concat();
    }
    let stop = generated.iter().position(|id| stop_ids.contains(id));
    Ok(PromptHits {
        layers: probe.finish(),
        answer_tokens: stop.unwrap_or(steps),
        ids: generated,
    })
}
