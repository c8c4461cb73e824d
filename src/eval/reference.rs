//! What the full cache says after a prompt, and how another cache answers to the same tokens.

use std::time::Instant;

use super::case::Case;
use super::fidelity::{Fidelity, fidelity, most_likely, surprise};
use crate::error::Result;
use crate::generate::Continuation;
use crate::method::{HeldRows, LiveCache};
use crate::model::Model;
use crate::model::attention::AttentionProbe;
use crate::model::decoder::Decoder;
use crate::model::residency::RecallStep;

/// The full cache's greedy continuation and everything that other caches are compared with.
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
    /// Rows that the full cache holds while it is fed its continuation.
    pub held: HeldRows,
}

/// How one cache continues: fidelity to the full cache, and its own text.
pub(super) struct Continued {
    pub fidelity: Fidelity,
    pub nll: f64,
    /// The text, with steps and seconds of what was decoded token by token.
    pub said: Continuation,
    /// Rows that it holds while it is fed the full cache's continuation.
    pub held: HeldRows,
    /// What the steps of that brought back; none where nothing is left out.
    pub recall: Vec<RecallStep>,
}

impl Reference {
    /// Decodes from the full cache, shows `probe` what the continuation attends to, and rewinds; a full cache that cannot
    /// be rewound is copied for every text instead, and shows nothing.
    pub fn of(
        model: &Model,
        live: &mut LiveCache,
        first: Vec<f32>,
        case: &Case,
        most: usize,
        probe: &mut dyn AttentionProbe,
    ) -> Result<Self> {
        let decoder = &model.decoder;
        if !live.can_rewind() {
            return Self::of_copies(model, live, first, case, most);
        }
        let start = live.cache().next_position();
        let said = decode_on(model, live, Vec::new(), most_likely(&first), most, &[])?;
        live.rewind(start)?;
        live.count_anew();
        let rows = live.feed_watched(decoder, &said.ids, probe)?;
        let held = live.held();
        live.rewind(start)?;
        let nll = answer_nll(decoder, &mut Again::Rewound(live), &first, case)?;
        Ok(Self {
            said,
            rows,
            first,
            most,
            nll,
            held,
        })
    }

    fn of_copies(
        model: &Model,
        live: &LiveCache,
        first: Vec<f32>,
        case: &Case,
        most: usize,
    ) -> Result<Self> {
        let copy = || Ok(LiveCache::keeping(live.cache().copy(most)?));
        let next = most_likely(&first);
        let said = decode_on(model, &mut copy()?, Vec::new(), next, most, &[])?;
        let mut fed = copy()?;
        let rows = fed.feed(&model.decoder, &said.ids)?;
        let held = fed.held();
        drop(fed);
        let nll = answer_nll(&model.decoder, &mut Again::Fresh(&copy), &first, case)?;
        Ok(Self {
            said,
            rows,
            first,
            most,
            nll,
            held,
        })
    }

    /// The full cache against itself.
    pub fn of_itself(&self) -> Continued {
        Continued {
            fidelity: fidelity(&self.rows, &self.rows),
            nll: self.nll,
            said: self.said.clone(),
            held: self.held,
            recall: Vec::new(),
        }
    }

    /// Feeds the continuation to another cache and lets it go its own way from where the two part.
    ///
    /// As long as the cache chooses the tokens of the continuation, feeding them at once is generating: only what comes
    /// after the first other choice is decoded step by step. What other caches have said (`drafts`) is tried in the
    /// same way after that, where tokens may come together. A cache that cannot be rewound goes step by step, from a
    /// `fresh` one for every text.
    pub fn against(
        &self,
        model: &Model,
        mut live: LiveCache,
        case: &Case,
        drafts: &[Vec<u32>],
        fresh: &dyn Fn() -> Result<LiveCache>,
    ) -> Result<Continued> {
        let decoder = &model.decoder;
        let start = live.cache().next_position();
        live.measure_recall(true);
        let rows = live.feed(decoder, &self.said.ids)?;
        let recall = live.recalled().to_vec();
        live.measure_recall(false);
        let held = live.held();
        let drafts = if live.at_once() > 1 { drafts } else { &[] };
        let mut pairs = self.rows.iter().zip(&rows);
        let parting = pairs
            .position(|(f, c)| most_likely(f) != most_likely(c))
            .filter(|at| at + 1 < self.most);
        let mut said = Continuation {
            ids: self.said.ids.clone(),
            ..Continuation::default()
        };
        if let Some(at) = parting {
            said.ids.truncate(at + 1);
            let next = most_likely(&rows[at]);
            said = if live.can_rewind() {
                live.rewind(start + at + 1)?;
                decode_on(model, &mut live, said.ids, next, self.most, drafts)?
            } else {
                // One copy at a time.
                drop(live);
                live = fresh()?;
                live.feed(decoder, &said.ids)?;
                decode_on(model, &mut live, said.ids, next, self.most, &[])?
            };
        }
        let mut again = if live.can_rewind() {
            live.rewind(start)?;
            Again::Rewound(&mut live)
        } else {
            drop(live);
            Again::Fresh(fresh)
        };
        Ok(Continued {
            fidelity: fidelity(&self.rows, &rows),
            nll: answer_nll(decoder, &mut again, &self.first, case)?,
            said,
            held,
            recall,
        })
    }
}

/// A cache at the prompt's end, for one text after another.
enum Again<'a> {
    /// The same, rewound after each.
    Rewound(&'a mut LiveCache),
    /// A new one for each.
    Fresh(&'a dyn Fn() -> Result<LiveCache>),
}

impl Again<'_> {
    /// Logits after each of `ids`.
    fn feed(&mut self, decoder: &Decoder, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Fresh(fresh) => fresh()?.feed(decoder, ids),
            Self::Rewound(live) => {
                let start = live.cache().next_position();
                let rows = live.feed(decoder, ids)?;
                live.rewind(start)?;
                Ok(rows)
            }
        }
    }
}

/// Greedy decoding from `said`, all of it in the cache, and the token that was chosen next.
///
/// Where a draft goes on as the text does, all its tokens are fed at once and kept as far as they are the
/// cache's own choices: the same text, in fewer passes over the weights. Steps and seconds are those of the
/// tokens that were decoded one by one.
fn decode_on(
    model: &Model,
    live: &mut LiveCache,
    said: Vec<u32>,
    next: u32,
    most: usize,
    drafts: &[Vec<u32>],
) -> Result<Continuation> {
    let stop_ids = model.tokenizer.stop_ids();
    let start = live.cache().next_position() - said.len();
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
            let logits = live.step(&model.decoder, id)?.to_vec1::<f32>()?;
            done.seconds += clock.elapsed().as_secs_f64();
            done.steps += 1;
            id = most_likely(&logits);
            continue;
        };
        let rows = live.feed(&model.decoder, &draft[held..])?;
        let choices: Vec<u32> = rows.iter().map(|row| most_likely(row)).collect();
        let agreed = choices
            .iter()
            .zip(&draft[held + 1..])
            .take_while(|(c, d)| c == d);
        let agreed = agreed.count();
        done.ids.extend(&draft[held + 1..held + 1 + agreed]);
        live.rewind(start + done.ids.len())?;
        id = choices[agreed];
    }
    Ok(done)
}

/// Mean negative log-likelihood per token of the accepted answer that is likeliest, in nats.
///
/// The first token's likelihood is the prompt's own, whatever the cache holds.
fn answer_nll(decoder: &Decoder, again: &mut Again<'_>, first: &[f32], case: &Case) -> Result<f64> {
    let mut best = f64::NAN;
    for ids in case.answer_ids.iter().filter(|ids| !ids.is_empty()) {
        let rows = again.feed(decoder, &ids[..ids.len() - 1])?;
        let before = std::iter::once(first).chain(rows.iter().map(Vec::as_slice));
        let surprises = before.zip(ids).map(|(row, &id)| surprise(row, id));
        let sum: f64 = surprises.sum();
        best = best.min(sum / ids.len() as f64); // the minimum of NaN and a number is the number
    }
    Ok(best)
}
