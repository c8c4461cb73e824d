//! What the full cache says after a prompt, and how a cut cache answers to the same tokens.

use std::time::Instant;

use rayon::prelude::*;

use super::case::Case;
use crate::error::Result;
use crate::generate::{self, Continuation};
use crate::model::Model;
use crate::model::attention::{AttentionProbe, NoProbe};
use crate::model::cache::KvCache;
use crate::model::decoder::Decoder;

/// The full cache's greedy continuation and everything that cut caches are compared with.
pub(super) struct Reference {
    /// Ids without the stop id; the first follows from the prompt's own logits, whatever is cut.
    pub ids: Vec<u32>,
    /// Logits after each of `ids`, all fed at once.
    pub rows: Vec<Vec<f32>>,
    /// Logits of the prompt's last token.
    pub first: Vec<f32>,
    /// Most tokens that any cache may generate.
    pub most: usize,
    /// The full cache's own stepwise decoding.
    pub decoded: Continuation,
    /// Mean negative log-likelihood of the best accepted answer, in nats per token; NaN without one.
    pub nll: f64,
}

/// How one cache continues: fidelity to the full cache, and its own text.
pub(super) struct Continued {
    pub kl: f64,
    pub top1: f64,
    pub nll: f64,
    pub ids: Vec<u32>,
    /// Decoding steps that were needed for the text, and their seconds.
    pub steps: usize,
    pub seconds: f64,
}

impl Reference {
    /// Decodes from the full cache, shows `probe` what the continuation attends to, and rewinds.
    pub fn of(
        model: &Model,
        cache: &mut KvCache,
        first: Vec<f32>,
        case: &Case,
        most: usize,
        probe: &mut dyn AttentionProbe,
    ) -> Result<Self> {
        let decoder = &model.decoder;
        let start = cache.next_position();
        let decoded = decode_on(model, cache, generate::most_likely(&first), most)?;
        cache.rewind(start)?;
        let rows = match decoded.ids.is_empty() {
            true => Vec::new(),
            false => decoder
                .continue_with(&decoded.ids, cache, probe)?
                .to_vec2()?,
        };
        cache.rewind(start)?;
        let nll = answer_nll(decoder, cache, &first, case)?;
        Ok(Self {
            ids: decoded.ids.clone(),
            rows,
            first,
            most,
            decoded,
            nll,
        })
    }

    /// The full cache against itself.
    pub fn of_itself(&self) -> Continued {
        let none = self.rows.is_empty();
        Continued {
            kl: if none { f64::NAN } else { 0.0 },
            top1: if none { f64::NAN } else { 1.0 },
            nll: self.nll,
            ids: self.ids.clone(),
            steps: self.decoded.steps,
            seconds: self.decoded.seconds,
        }
    }

    /// Feeds the continuation to a cut cache and lets it go its own way from where the two part.
    ///
    /// As long as the cut cache chooses the tokens of the continuation, feeding them at once is generating:
    /// only what comes after the first other choice is decoded step by step.
    /// What other caches have said (`drafts`) is tried in the same way after that.
    pub fn against(
        &self,
        model: &Model,
        cache: &mut KvCache,
        case: &Case,
        drafts: &[Vec<u32>],
    ) -> Result<Continued> {
        let decoder = &model.decoder;
        let start = cache.next_position();
        let rows: Vec<Vec<f32>> = match self.ids.is_empty() {
            true => Vec::new(),
            false => (decoder.continue_with(&self.ids, cache, &mut NoProbe)?).to_vec2()?,
        };
        let pairs = || self.rows.iter().zip(&rows);
        let agrees: Vec<bool> = pairs()
            .map(|(f, c)| generate::most_likely(f) == generate::most_likely(c))
            .collect();
        let divergences: Vec<f64> = (self.rows.par_iter().zip(&rows))
            .map(|(f, c)| generate::divergence(f, c))
            .collect();
        let steps = rows.len() as f64; // 0 / 0 is NaN: nothing was predicted
        let mut ids = self.ids.clone();
        let (mut decode_steps, mut seconds) = (0, 0.0);
        let parting = agrees
            .iter()
            .position(|a| !a)
            .filter(|at| at + 1 < self.most);
        if let Some(at) = parting {
            ids.truncate(at + 1);
            cache.rewind(start + at + 1)?;
            let next = generate::most_likely(&rows[at]);
            let own = decode_drafted(model, cache, ids, next, self.most, drafts)?;
            (ids, decode_steps, seconds) = (own.ids, own.steps, own.seconds);
        }
        cache.rewind(start)?;
        Ok(Continued {
            kl: divergences.iter().sum::<f64>() / steps,
            top1: agrees.iter().filter(|a| **a).count() as f64 / steps,
            nll: answer_nll(decoder, cache, &self.first, case)?,
            ids,
            steps: decode_steps,
            seconds,
        })
    }
}

/// Greedy decoding that starts with a token already chosen.
fn decode_on(model: &Model, cache: &mut KvCache, first: u32, most: usize) -> Result<Continuation> {
    let stop_ids = model.tokenizer.stop_ids();
    let start = Instant::now();
    let mut done = Continuation::default();
    let mut id = first;
    while done.ids.len() < most && !stop_ids.contains(&id) {
        done.ids.push(id);
        if done.ids.len() < most {
            let logits = model.decoder.decode(id, cache)?.to_vec1::<f32>()?;
            done.steps += 1;
            id = generate::most_likely(&logits);
        }
    }
    done.seconds = start.elapsed().as_secs_f64();
    Ok(done)
}

/// Greedy decoding from `said`, all of it in the cache, and the token that was chosen next.
///
/// Where a draft goes on as the text does, all its tokens are fed at once and kept as far as they are the
/// cache's own choices: the same text, in fewer passes over the weights. Steps and seconds are those of the
/// tokens that were decoded one by one.
fn decode_drafted(
    model: &Model,
    cache: &mut KvCache,
    said: Vec<u32>,
    next: u32,
    most: usize,
    drafts: &[Vec<u32>],
) -> Result<Continuation> {
    let stop_ids = model.tokenizer.stop_ids();
    let start = cache.next_position() - said.len();
    let mut done = Continuation {
        ids: said,
        ..Continuation::default()
    };
    let mut id = next;
    while done.ids.len() < most && !stop_ids.contains(&id) {
        let held = done.ids.len();
        done.ids.push(id);
        if done.ids.len() == most {
            break;
        }
        let draft = drafts
            .iter()
            .find(|d| d.len() > done.ids.len() + 1 && d.starts_with(&done.ids));
        let Some(draft) = draft else {
            let clock = Instant::now();
            let logits = model.decoder.decode(id, cache)?.to_vec1::<f32>()?;
            done.seconds += clock.elapsed().as_secs_f64();
            done.steps += 1;
            id = generate::most_likely(&logits);
            continue;
        };
        let rows: Vec<Vec<f32>> =
            (model
                .decoder
                .continue_with(&draft[held..], cache, &mut NoProbe)?)
            .to_vec2()?;
        let choices: Vec<u32> = rows.iter().map(|row| generate::most_likely(row)).collect();
        let agreed = choices
            .iter()
            .zip(&draft[held + 1..])
            .take_while(|(c, d)| c == d);
        let agreed = agreed.count();
        done.ids.extend(&draft[held + 1..held + 1 + agreed]);
        cache.rewind(start + done.ids.len())?;
        id = choices[agreed];
    }
    Ok(done)
}

/// Mean negative log-likelihood per token of the accepted answer that is likeliest, in nats.
///
/// The first token's likelihood is the prompt's own, whatever the cache holds.
fn answer_nll(decoder: &Decoder, cache: &mut KvCache, first: &[f32], case: &Case) -> Result<f64> {
    let start = cache.next_position();
    let context = decoder.config().max_position_embeddings;
    let mut best = f64::NAN;
    for ids in case.answer_ids.iter().filter(|ids| !ids.is_empty()) {
        if start + ids.len() > context {
            continue;
        }
        let mut sum = generate::surprise(first, ids[0]);
        if ids.len() > 1 {
            let fed = &ids[..ids.len() - 1];
            let rows: Vec<Vec<f32>> = decoder.continue_with(fed, cache, &mut NoProbe)?.to_vec2()?;
            cache.rewind(start)?;
            let later = rows.iter().zip(&ids[1..]);
            sum += later
                .map(|(row, &id)| generate::surprise(row, id))
                .sum::<f64>();
        }
        best = best.min(sum / ids.len() as f64); // the minimum of NaN and a number is the number
    }
    Ok(best)
}
