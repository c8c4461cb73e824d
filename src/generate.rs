//! The algorithm box: observe a prompt in its prefill, allocate, select, cut, decode.

use std::time::Instant;

use candle_core::Tensor;

use crate::budget::{CacheBudget, Floor};
use crate::compute::memory;
use crate::error::Result;
use crate::method::{DECODE_ROOM, HeldRows, LiveCache, Method, Observed, observe};
use crate::model::Model;
use crate::model::decoder::Decoder;
use crate::model::residency::ResidencyBytes;
use crate::select::Slots;

/// Tokens that a full cache gets as room for an answer; longer ones make it grow.
pub const MOST_ROOM: usize = 1024;

/// A model, and how it holds its cache.
pub struct Generator<'a> {
    /// The model that answers.
    pub model: &'a Model,
    /// What of a prompt stays, and how.
    pub method: &'a Method,
    /// How much of it, where the method does not say so itself.
    pub budget: Option<CacheBudget>,
    /// Sinks and window.
    pub floor: Floor,
    /// Last tokens of the prompt that are not prefilled but fed to the cut cache: a question that comes after its context.
    pub question_tokens: usize,
    /// Most tokens to generate.
    pub most: usize,
}

/// What is told while an answer is generated.
pub trait Listener {
    /// Sees the prefilled prompt and the slots that will be kept, before the rest is freed.
    ///
    /// Errors: any error ends the generation.
    fn before_cut(&mut self, observed: &Observed<'_>, kept: &[Slots]) -> Result<()>;

    /// Picks the next token from float32 logits, `(vocab)`.
    ///
    /// Errors: as [`Listener::before_cut`].
    fn choose(&mut self, logits: &Tensor) -> Result<u32>;

    /// Hears of every token that was picked, but for the one that ends the answer.
    ///
    /// Errors: as [`Listener::before_cut`].
    fn emit(&mut self, id: u32) -> Result<()>;

    /// The next token: the one that was picked, unless it ends the answer.
    ///
    /// Errors: as [`Listener::before_cut`].
    fn next(&mut self, model: &Model, logits: &Tensor) -> Result<Option<u32>> {
        let id = self.choose(logits)?;
        if model.tokenizer.stop_ids().contains(&id) {
            return Ok(None);
        }
        self.emit(id)?;
        Ok(Some(id))
    }
}

/// An answer, and what the cache took.
pub struct Generated {
    /// The answer.
    pub said: Continuation,
    /// T: tokens that were prefilled and cut.
    pub prompt_tokens: usize,
    /// Tokens of a question that was fed to the cut cache.
    pub question_tokens: usize,
    /// Seconds of the prefill, in which the prompt is observed.
    pub prefill_s: f64,
    /// Seconds of passes that the method's scorer reads the prompt again in; none for most.
    pub replay_s: f64,
    /// Bytes of the full cache after prefill.
    pub full_bytes: usize,
    /// What the cut left.
    pub cut: CutCache,
    /// The cache's buffers at their largest.
    pub most_bytes: usize,
    /// Rows that KV heads held while decoding.
    pub held: HeldRows,
    /// What is held at the end.
    pub bytes: ResidencyBytes,
}

/// A cache as its cut left it.
pub struct CutCache {
    /// Tokens that the cut kept of every KV head, `[layer][kv_head]`.
    pub lengths: Vec<Vec<usize>>,
    /// Bytes of keys and values when decoding begins.
    pub held_bytes: usize,
    /// Bytes of the buffers, with room for tokens to come.
    pub allocated_bytes: usize,
    /// Seconds to allocate, select and cut.
    pub seconds: f64,
    /// Memory of the process before and after; `None` where the system does not tell.
    pub resident: Option<(usize, usize)>,
}

impl Generator<'_> {
    /// Answers a prompt.
    ///
    /// Paper: the box that SnapKV (arXiv:2404.14469, algorithm 1) and ZigZagKV (arXiv:2412.09036, section 4) share.
    /// Errors: those of the model, the method and the listener.
    pub fn generate(&self, ids: &[u32], listener: &mut dyn Listener) -> Result<Generated> {
        let methods = std::slice::from_ref(self.method);
        let (context, question) = self.parts(ids);
        let room = self.prompt_room();
        let observed = observe(self.model, context, room, methods, self.floor)?;
        let start = Instant::now();
        let kept = if let Some(cut) = &self.method.cut {
            let budgets = observed.allocate(self.method, cut, self.budget)?;
            observed.select(&cut.ranking, &budgets)?
        } else {
            observed.cache.slots_in_sight()
        };
        let chosen_s = start.elapsed().as_secs_f64();
        listener.before_cut(&observed, &kept)?;
        let (prefill_s, replay_s) = (observed.seconds, observed.replay_seconds(self.method));
        let full_bytes = observed.cache.bytes();
        let mut logits = observed.logits.clone();
        let (mut live, cut) = self.cut(observed, &kept, chosen_s)?;
        if let Some(last) = live.feed_to_last(&self.model.decoder, question)? {
            logits = Tensor::new(last, logits.device())?;
        }
        let mut next = |logits: &Tensor| listener.next(self.model, logits);
        let said = decode(
            &self.model.decoder,
            &mut live,
            &logits,
            self.most,
            &mut next,
        )?;
        Ok(Generated {
            said,
            prompt_tokens: context.len(),
            question_tokens: question.len(),
            prefill_s,
            replay_s,
            full_bytes,
            cut,
            most_bytes: live.cache().most_allocated_bytes(),
            held: live.held(),
            bytes: live.bytes(),
        })
    }

    /// What of a prompt is prefilled and cut, and what is fed to the cut cache.
    pub fn parts<'i>(&self, ids: &'i [u32]) -> (&'i [u32], &'i [u32]) {
        ids.split_at(ids.len().saturating_sub(self.question_tokens))
    }

    /// A cache that will be cut, or that tokens leave, needs no room for an answer before.
    fn prompt_room(&self) -> usize {
        if self.method.cut.is_some() || !self.method.residency.can_rewind() {
            0
        } else {
            self.question_tokens + self.most.min(MOST_ROOM)
        }
    }

    /// Cuts, and sees what that frees.
    fn cut(
        &self,
        observed: Observed<'_>,
        kept: &[Slots],
        chosen_s: f64,
    ) -> Result<(LiveCache, CutCache)> {
        memory::return_freed();
        let resident_before = memory::resident_bytes();
        let start = Instant::now();
        let room = self.question_tokens + self.most.min(DECODE_ROOM);
        let live = observed.into_cut(self.method, kept, self.budget, room)?;
        let by_level = self.method.residency.holds_as().is_some();
        let cut = CutCache {
            lengths: if by_level {
                live.cache().lengths()
            } else {
                let layers = kept.iter();
                layers.map(|l| l.iter().map(Vec::len).collect()).collect()
            },
            held_bytes: live.bytes().resident,
            allocated_bytes: live.cache().allocated_bytes(),
            seconds: chosen_s + start.elapsed().as_secs_f64(),
            resident: resident_before.zip(memory::resident_bytes()),
        };
        Ok((live, cut))
    }
}

/// Tokens that were generated, and the time that they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Continuation {
    /// Ids, without the stop id.
    pub ids: Vec<u32>,
    /// Seconds from the first choice to the last.
    pub seconds: f64,
    /// Steps of the decoder in that time.
    pub steps: usize,
}

impl Continuation {
    /// Steps per second; `None` where there was no step to time.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.steps > 0 && self.seconds > 0.0).then(|| self.steps as f64 / self.seconds)
    }
}

/// Generates up to `most` tokens; `next` picks one from logits, or ends the text with none.
///
/// Errors: those of the decoder, of the residency and of `next`.
pub fn decode(
    decoder: &Decoder,
    live: &mut LiveCache,
    logits: &Tensor,
    most: usize,
    next: &mut dyn FnMut(&Tensor) -> Result<Option<u32>>,
) -> Result<Continuation> {
    let start = Instant::now();
    let mut done = Continuation::default();
    let mut logits = logits.clone();
    while done.ids.len() < most {
        let Some(id) = next(&logits)? else { break };
        done.ids.push(id);
        if done.ids.len() < most {
            logits = live.step(decoder, id)?;
            done.steps += 1;
        }
    }
    done.seconds = start.elapsed().as_secs_f64();
    Ok(done)
}
