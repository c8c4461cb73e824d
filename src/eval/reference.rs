//! What the full cache says after a prompt, and how a cut cache answers to the same tokens.

use std::time::Instant;

use super::case::Case;
use crate::error::Result;
use crate::generate::{self, Continuation, Fidelity};
use crate::model::Model;
use crate::model::attention::{AttentionProbe, NoProbe};
use crate::model::cache::KvCache;
use crate::model::decoder::Decoder;

/// The full cache's greedy continuation and everything that cut caches are compared with.
pub(super) struct Reference {
    /// What the full cache says; the first token follows from the prompt's own logits, whatever is cut.
    pub said: Continuation,
    /// Logits after each of its tokens, all fed at once.
    pub rows: Vec<Vec<f32>>,
    /// Logits of the prompt's last token.
    pub first: Vec<f32>,
    /// Most tokens that any cache may generate.
    pub most: usize,
    /// Mean negative log-likelihood of the best accepted answer, in nats per token; NaN without one.
    pub nll: f64,
}

/// How one cache continues: fidelity to the full cache, and its own text.
pub(super) struct Continued {
    pub fidelity: Fidelity,
    pub nll: f64,
    /// The text, with steps and seconds of what was decoded token by token.
    pub said: Continuation,
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
        let chosen = generate::most_likely(&first);
        let said = decode_on(model, cache, Vec::new(), chosen, most, &[])?;
        cache.rewind(start)?;
        let rows = rows_after(decoder, cache, &said.ids, probe)?;
        cache.rewind(start)?;
        let nll = answer_nll(decoder, cache, &first, case)?;
        Ok(Self {
            said,
            rows,
            first,
            most,
            nll,
        })
    }

    /// The full cache against itself.
    pub fn of_itself(&self) -> Continued {
        Continued {
            fidelity: generate::fidelity(&self.rows, &self.rows),
            nll: self.nll,
            said: self.said.clone(),
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
        let rows = rows_after(decoder, cache, &self.said.ids, &mut NoProbe)?;
        let mut pairs = self.rows.iter().zip(&rows);
        let parting = pairs
            .position(|(f, c)| generate::most_likely(f) != generate::most_likely(c))
            .filter(|at| at + 1 < self.most);
        let mut said = Continuation {
            ids: self.said.ids.clone(),
            ..Continuation::default()
        };
        if let Some(at) = parting {
            said.ids.truncate(at + 1);
            cache.rewind(start + at + 1)?;
            let next = generate::most_likely(&rows[at]);
            said = decode_on(model, cache, said.ids, next, self.most, drafts)?;
        }
        cache.rewind(start)?;
        Ok(Continued {
            fidelity: generate::fidelity(&self.rows, &rows),
            nll: answer_nll(decoder, cache, &self.first, case)?,
            said,
        })
    }
}

/// Logits after each of `ids`, all fed at once; none for no ids.
fn rows_after(
    decoder: &Decoder,
    cache: &mut KvCache,
    ids: &[u32],
    probe: &mut dyn AttentionProbe,
) -> Result<Vec<Vec<f32>>> {
    match ids.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(decoder.continue_with(ids, cache, probe)?.to_vec2()?),
    }
}

/// Greedy decoding from `said`, all of it in the cache, and the token that was chosen next.
///
/// Where a draft goes on as the text does, all its tokens are fed at once and kept as far as they are the
/// cache's own choices: the same text, in fewer passes over the weights. Steps and seconds are those of the
/// tokens that were decoded one by one.
fn decode_on(
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
        let rows = rows_after(&model.decoder, cache, &draft[held..], &mut NoProbe)?;
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
    let mut best = f64::NAN;
    for ids in case.answer_ids.iter().filter(|ids| !ids.is_empty()) {
        let rows = rows_after(decoder, cache, &ids[..ids.len() - 1], &mut NoProbe)?;
        cache.rewind(start)?;
        let before = std::iter::once(first).chain(rows.iter().map(Vec::as_slice));
        let surprises = before
            .zip(ids)
            .map(|(row, &id)| generate::surprise(row, id));
        let sum: f64 = surprises.sum();
        best = best.min(sum / ids.len() as f64); // the minimum of NaN and a number is the number
    }
    Ok(best)
}
