//! Timing every mode on one prompt: one prefill, then repeats in turns.

use std::ops::Range;
use std::time::Instant;

use super::{Measurement, Mode, SpeedOptions};
use crate::budget::Floor;
use crate::compute::memory;
use crate::error::{Error, Result};
use crate::generate;
use crate::method::{LiveCache, Prefilled, Ranking, prefill};
use crate::model::attention::NoProbe;
use crate::model::decoder::{Decoder, PREFILL_RUN};
use crate::select::{Slots, select_layers};

/// A prompt to measure on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Length that was asked for, in tokens.
    pub length: usize,
    /// Its ids, nearly as many.
    pub ids: Vec<u32>,
}

/// A prefilled and scored prompt that decoding is timed after.
pub struct Decoding<'a> {
    decoder: &'a Decoder,
    full: Prefilled,
    floor: Floor,
    /// The full cache's greedy continuation, which every mode is fed: one id to warm up, then the steps.
    forced: Vec<u32>,
}

/// What all modes of a prompt share.
struct Bench<'a> {
    prompt: &'a Prompt,
    decoding: Decoding<'a>,
    options: &'a SpeedOptions,
}

/// Times every mode of `options` on a prompt that is prefilled once.
///
/// Modes take turns within a repeat, in opposite order in every other one, so that none has the warmer or
/// the calmer machine; each step ends when its token is known. One step before the timed ones is not
/// counted. `done` hears of every measurement.
/// Errors: [`Error::PromptTooLong`] if prompt and steps exceed the model's context; those of the decoder
/// and of the scorer.
pub fn measure(
    decoder: &Decoder,
    prompt: &Prompt,
    options: &SpeedOptions,
    ranking: &Ranking,
    floor: Floor,
    done: &mut dyn FnMut(&Measurement),
) -> Result<Vec<Measurement>> {
    let tokens = prompt.ids.len();
    let context = decoder.config().context_of(tokens);
    if tokens + options.steps + 1 > context {
        return Err(Error::PromptTooLong {
            prompt: format!("of length {} with its steps", prompt.length),
            tokens: tokens + options.steps + 1,
            context,
        });
    }
    let decoding = Decoding::prepare(decoder, &prompt.ids, options.steps, ranking, floor)?;
    let modes = options.modes(tokens);
    let kept = modes
        .iter()
        .map(|mode| decoding.kept(*mode, ranking))
        .collect::<Result<Vec<_>>>()?;
    let bench = Bench {
        prompt,
        decoding,
        options,
    };
    let mut all = Vec::new();
    for repeat in 0..options.repeats {
        let mut turns: Vec<_> = modes.iter().zip(&kept).collect();
        if repeat % 2 == 1 {
            turns.reverse();
        }
        for (mode, kept) in turns {
            let measurement = bench.measure(*mode, kept.as_deref(), repeat)?;
            done(&measurement);
            all.push(measurement);
        }
    }
    let place = |m: &Measurement| modes.iter().position(|mode| *mode == m.mode);
    all.sort_by_key(|m| (place(m), m.repeat));
    Ok(all)
}

/// The full cache's greedy continuation, stop ids included.
fn continuation(decoder: &Decoder, full: &Prefilled, tokens: usize) -> Result<Vec<u32>> {
    let mut live = LiveCache::keeping(full.cache.copy(tokens)?);
    let mut next = |logits: &_| settled(logits).map(Some);
    let done = generate::decode(decoder, &mut live, &full.logits, tokens, &mut next)?;
    Ok(done.ids)
}

impl<'a> Decoding<'a> {
    /// Prefills and scores a prompt, and finds the continuation that `steps` timed steps are fed.
    ///
    /// Errors: those of the decoder and of the scorer.
    pub fn prepare(
        decoder: &'a Decoder,
        ids: &[u32],
        steps: usize,
        ranking: &Ranking,
        floor: Floor,
    ) -> Result<Self> {
        let room = steps + 1;
        let scorers = vec![(&*ranking.scorer, floor.window)];
        let full = prefill(decoder, ids, room, scorers, &mut NoProbe)?;
        let forced = continuation(decoder, &full, room)?;
        Ok(Self {
            decoder,
            full,
            floor,
            forced,
        })
    }

    /// The slots that a budget keeps; `None` for the other modes.
    ///
    /// Errors: those of the selection.
    pub fn kept(&self, mode: Mode, ranking: &Ranking) -> Result<Option<Vec<Slots>>> {
        let Mode::Budget(budget) = mode else {
            return Ok(None);
        };
        let budgets: Vec<Vec<usize>> = (self.full.cache.lengths().iter())
            .map(|layer| layer.iter().map(|&held| budget.min(held)).collect())
            .collect();
        let scores = self.full.scores.first().map_or(&[][..], Vec::as_slice);
        let Floor { sinks, window, .. } = self.floor;
        let firsts = self.full.cache.firsts_in_sight();
        select_layers(scores, &firsts, &budgets, sinks, window, ranking.split).map(Some)
    }

    /// A cache of its own with room for the steps: of the `kept` slots, or all that later tokens see.
    ///
    /// Errors: those of [`crate::model::cache::KvCache::cut`].
    pub fn cache(&self, kept: Option<&[Slots]>) -> Result<LiveCache> {
        let cache = match kept {
            Some(kept) => self.full.cache.cut(kept, self.forced.len())?,
            None => {
                let whole = self.full.cache.slots_in_sight();
                self.full.cache.cut(&whole, self.forced.len())?
            }
        };
        Ok(LiveCache::keeping(cache))
    }

    /// Bytes that the prefilled cache occupies beside those that are timed.
    pub fn held_bytes(&self) -> usize {
        self.full.cache.allocated_bytes()
    }

    /// The step before the timed ones, which finds memory and caches cold.
    ///
    /// Errors: those of the decoder.
    pub fn warm_up(&self, cache: &mut LiveCache) -> Result<()> {
        self.feed(0..1, cache)
    }

    /// The timed steps; each ends when its token is known.
    ///
    /// Errors: those of the decoder.
    pub fn steps(&self, cache: &mut LiveCache) -> Result<()> {
        self.feed(1..self.forced.len(), cache)
    }

    fn feed(&self, steps: Range<usize>, cache: &mut LiveCache) -> Result<()> {
        for id in &self.forced[steps] {
            settled(&cache.step(self.decoder, *id)?)?;
        }
        Ok(())
    }
}

impl Bench<'_> {
    fn measure(&self, mode: Mode, kept: Option<&[Slots]>, repeat: usize) -> Result<Measurement> {
        let (ms_per_token, kv_bytes, resident_bytes) = match mode {
            Mode::NoCache => (self.uncached()?, 0, None),
            Mode::Full | Mode::Budget(_) => {
                let (mut cache, grown) = self.cache(kept)?;
                let bytes = cache.bytes().resident;
                (self.cached(&mut cache)?, bytes, grown)
            }
        };
        Ok(Measurement {
            length: self.prompt.length,
            tokens: self.prompt.ids.len(),
            mode,
            repeat,
            ms_per_token,
            kv_bytes,
            resident_bytes,
            prefill_s: self.decoding.full.seconds,
        })
    }

    /// A cache of its own, and by how much the process grew for it.
    fn cache(&self, kept: Option<&[Slots]>) -> Result<(LiveCache, Option<usize>)> {
        memory::return_freed();
        let before = memory::resident_bytes();
        let cache = self.decoding.cache(kept)?;
        memory::return_freed();
        let after = memory::resident_bytes();
        // A cache on a GPU is no part of the process's own memory.
        let on_cpu = self.decoding.decoder.device().is_cpu();
        let grown = (before.zip(after)).map(|(before, after)| after.saturating_sub(before));
        Ok((cache, grown.filter(|_| on_cpu)))
    }

    fn cached(&self, cache: &mut LiveCache) -> Result<f64> {
        self.decoding.warm_up(cache)?;
        let start = Instant::now();
        self.decoding.steps(cache)?;
        Ok(milliseconds(start, self.options.steps))
    }

    /// The whole prefix again for every token; keys and values are let go with it.
    fn uncached(&self) -> Result<f64> {
        let (decoder, steps) = (self.decoding.decoder, self.options.uncached_steps);
        let mut ids = self.prompt.ids.clone();
        let start = Instant::now();
        for id in self.decoding.forced.iter().take(steps) {
            ids.push(*id);
            let mut cache = decoder.new_cache(ids.len())?;
            let logits = decoder.prefill(&ids, &mut cache, PREFILL_RUN, &mut NoProbe)?;
            settled(&logits)?;
        }
        Ok(milliseconds(start, steps))
    }
}

/// The most likely id: known only when the device has finished.
fn settled(logits: &candle_core::Tensor) -> Result<u32> {
    Ok(logits.argmax(0)?.to_scalar::<u32>()?)
}

fn milliseconds(start: Instant, steps: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e3 / steps.max(1) as f64
}
