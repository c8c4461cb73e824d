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
    /// What the full cache says.
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

/// A cache at the end of what was prefilled, for one text after another.
pub(super) struct Standing<'a> {
    live: Option<LiveCache>,
    fresh: &'a dyn Fn() -> Result<LiveCache>,
}

impl<'a> Standing<'a> {
    /// A cache that stands there already; `fresh` makes another where it cannot come back.
    pub fn of(live: LiveCache, fresh: &'a dyn Fn() -> Result<LiveCache>) -> Self {
        let live = Some(live);
        Self { live, fresh }
    }

    /// Nothing yet; `fresh` makes a cache for every text.
    pub fn to_be_made(fresh: &'a dyn Fn() -> Result<LiveCache>) -> Self {
        Self { live: None, fresh }
    }

    /// The cache, to be given back.
    ///
    /// Errors: those of making one.
    pub fn take(&mut self) -> Result<LiveCache> {
        self.live.take().map_or_else(self.fresh, Ok)
    }

    /// Takes a cache back, as far as it can go back to `position`.
    fn give_back(&mut self, mut live: LiveCache, position: usize) -> Result<()> {
        if live.can_rewind() {
            live.rewind(position)?;
            live.count_anew();
            self.live = Some(live);
        }
        Ok(())
    }

    /// The cache after `ids` and `more`, the same as `live` was or a fresh one, and the logits after each of `more`.
    fn again(
        &mut self,
        decoder: &Decoder,
        live: LiveCache,
        [ids, more]: [&[u32]; 2],
        start: usize,
    ) -> Result<(LiveCache, Vec<Vec<f32>>)> {
        let mut live = live;
        if live.can_rewind() {
            live.rewind(start + ids.len())?;
        } else {
            // One copy at a time.
            drop(live);
            live = self.take()?;
            live.feed_to_last(decoder, ids)?;
        }
        let rows = live.feed(decoder, more)?;
        Ok((live, rows))
    }
}

impl Reference {
    /// Lets the full cache answer a case, and shows `probe` all that comes behind what was prefilled; a full cache that
    /// cannot be rewound is copied for every text instead, and shows nothing.
    ///
    /// `prefilled` are the logits of the last token that was prefilled.
    pub fn of(
        model: &Model,
        standing: &mut Standing<'_>,
        prefilled: &[f32],
        case: &Case,
        most: usize,
        probe: &mut dyn AttentionProbe,
    ) -> Result<Self> {
        let (decoder, question) = (&model.decoder, case.question());
        let mut live = standing.take()?;
        let start = live.cache().next_position();
        let first = if live.can_rewind() {
            live.feed_watched_to_last(decoder, question, probe)?
        } else {
            live.feed_to_last(decoder, question)?
        };
        let first = first.unwrap_or_else(|| prefilled.to_vec());
        let said = decode_on(model, &mut live, Vec::new(), most_likely(&first), most, &[])?;
        (live, _) = standing.again(decoder, live, [question, &[]], start)?;
        live.count_anew();
        let rows = if live.can_rewind() {
            live.feed_watched(decoder, &said.ids, probe)?
        } else {
            live.feed(decoder, &said.ids)?
        };
        let held = live.held();
        let (nll, live) = answer_nll(decoder, standing, live, &first, case, start)?;
        standing.give_back(live, start)?;
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
    pub fn of_itself(&self, case: &Case) -> Continued {
        let rows = self.compared(case);
        Continued {
            fidelity: fidelity(&rows, &rows),
            nll: self.nll,
            said: self.said.clone(),
            held: self.held,
            recall: Vec::new(),
        }
    }

    /// The rows in which another cache may differ: where the question was prefilled, the first token is the same for all.
    fn compared(&self, case: &Case) -> Vec<&[f32]> {
        compared(case, &self.first, &self.rows)
    }

    /// How far another cache's predictions of the continuation are from the full cache's, in nats.
    pub fn divergence(
        &self,
        model: &Model,
        standing: &mut Standing<'_>,
        case: &Case,
    ) -> Result<f64> {
        let (decoder, question) = (&model.decoder, case.question());
        let mut live = standing.take()?;
        let start = live.cache().next_position();
        let first = live.feed_to_last(decoder, question)?;
        let first = first.unwrap_or_else(|| self.first.clone());
        let rows = live.feed(decoder, &self.said.ids)?;
        standing.give_back(live, start)?;
        Ok(fidelity(&self.compared(case), &compared(case, &first, &rows)).kl)
    }

    /// Feeds question and continuation to another cache and lets it go its own way from where the two part.
    ///
    /// As long as the cache chooses the tokens of the continuation, feeding them at once is generating: only what comes
    /// after the first other choice is decoded step by step. What other caches have said (`drafts`) is tried in the
    /// same way after that, where tokens may come together. A cache that cannot be rewound goes step by step, from a
    /// fresh one for every text.
    pub fn against(
        &self,
        model: &Model,
        standing: &mut Standing<'_>,
        case: &Case,
        drafts: &[Vec<u32>],
    ) -> Result<Continued> {
        let (decoder, question) = (&model.decoder, case.question());
        let mut live = standing.take()?;
        let start = live.cache().next_position();
        let first = live.feed_to_last(decoder, question)?;
        let first = first.unwrap_or_else(|| self.first.clone());
        live.count_anew();
        live.measure_recall(true);
        let rows = live.feed(decoder, &self.said.ids)?;
        let recall = live.recalled().to_vec();
        live.measure_recall(false);
        let held = live.held();
        let tries_drafts = live.at_once() > 1 && live.can_rewind();
        let drafts = if tries_drafts { drafts } else { &[] };
        let own = compared(case, &first, &rows);
        let reference = self.compared(case);
        let fidelity = fidelity(&reference, &own);
        let mut pairs = reference.iter().zip(&own);
        // Tokens of the continuation that are said before the choice of a row.
        let before = |row: usize| row + 1 - usize::from(!question.is_empty());
        let parting = pairs
            .position(|(f, c)| most_likely(f) != most_likely(c))
            .filter(|row| before(*row) < self.most);
        let mut said = Continuation {
            ids: self.said.ids.clone(),
            ..Continuation::default()
        };
        if let Some(row) = parting {
            said.ids.truncate(before(row));
            let next = most_likely(own[row]);
            let texts = [question, &said.ids].concat();
            (live, _) = standing.again(decoder, live, [&texts, &[]], start)?;
            said = decode_on(model, &mut live, said.ids, next, self.most, drafts)?;
        }
        let (nll, live) = answer_nll(decoder, standing, live, &first, case, start)?;
        standing.give_back(live, start)?;
        Ok(Continued {
            fidelity,
            nll,
            said,
            held,
            recall,
        })
    }
}

/// Logits of a text in which caches may differ, the first token's where the question came after the cut.
fn compared<'r>(case: &Case, first: &'r [f32], rows: &'r [Vec<f32>]) -> Vec<&'r [f32]> {
    let first = (!case.question().is_empty()).then_some(first);
    first
        .into_iter()
        .chain(rows.iter().map(Vec::as_slice))
        .collect()
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
/// `first` is what the cache says after the prompt, `start` where what was prefilled ends.
fn answer_nll(
    decoder: &Decoder,
    standing: &mut Standing<'_>,
    live: LiveCache,
    first: &[f32],
    case: &Case,
    start: usize,
) -> Result<(f64, LiveCache)> {
    let (mut best, mut live) = (f64::NAN, live);
    for ids in case.answer_ids.iter().filter(|ids| !ids.is_empty()) {
        let mut rows = Vec::new();
        let fed = &ids[..ids.len() - 1];
        // The first token's likelihood needs nothing to be fed.
        if !fed.is_empty() {
            (live, rows) = standing.again(decoder, live, [case.question(), fed], start)?;
        }
        let before = std::iter::once(first).chain(rows.iter().map(Vec::as_slice));
        let surprises = before.zip(ids).map(|(row, &id)| surprise(row, id));
        let sum: f64 = surprises.sum();
        best = best.min(sum / ids.len() as f64); // the minimum of NaN and a number is the number
    }
    Ok((best, live))
}
