//! A cache that lives: it grows, and its residency chooses what is seen and lets tokens go.

use candle_core::Tensor;

use super::DECODE_ROOM;
use crate::error::{Error, Result};
use crate::model::attention::{AttentionProbe, NoProbe};
use crate::model::cache::KvCache;
use crate::model::decoder::Decoder;
use crate::model::residency::{RecallStep, Residency, ResidencyBytes, Unchanging};

/// A cache with its residency, and what it held at every step since it was cut.
#[derive(Debug)]
pub struct LiveCache {
    cache: KvCache,
    residency: Box<dyn Residency>,
    held: HeldRows,
}

/// Rows that KV heads held at the steps of a decoding, each step's new token included; where a step sees a part of what
/// is held, the rows that it saw.
///
/// Units: rows of a KV head; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeldRows {
    /// Steps that were counted.
    pub steps: usize,
    /// Rows of all heads of all layers, added up over steps.
    all: f64,
    /// KV heads of all layers.
    heads: usize,
    /// The most rows of any KV head at any step.
    pub peak: usize,
    /// The most bytes that were resident at any step.
    pub peak_resident: usize,
    /// Rows of all heads together that the residency let go since the cut; see [`Residency::rows_left`].
    pub left: Option<usize>,
}

impl HeldRows {
    /// Mean over steps, layers and KV heads; NaN without steps.
    pub fn mean(&self) -> f64 {
        self.all / (self.steps * self.heads) as f64
    }

    /// Counts a token that sees so much of every KV head; gives the rows of all of them.
    fn count(&mut self, lengths: &[Vec<usize>]) -> usize {
        let heads = || lengths.iter().flatten();
        let all = heads().sum::<usize>();
        self.all += all as f64;
        self.heads = heads().count();
        self.steps += 1;
        self.peak = self.peak.max(*heads().max().unwrap_or(&0));
        all
    }
}

impl LiveCache {
    /// Takes over a cache as its prompt's cut left it; what does not fit the residency leaves at once.
    ///
    /// Errors: the residency's.
    pub fn new(mut cache: KvCache, mut residency: Box<dyn Residency>) -> Result<Self> {
        let held = |cache: &KvCache| cache.lengths().iter().flatten().sum::<usize>();
        let before = held(&cache);
        residency.after_step(&mut cache)?;
        // Where much leaves at once, its room is given back; later it is what new tokens need.
        if held(&cache) * 8 < before * 7 {
            cache.compact(DECODE_ROOM)?;
        }
        Ok(Self {
            cache,
            residency,
            held: HeldRows::default(),
        })
    }

    /// A cache from which nothing leaves.
    pub fn keeping(cache: KvCache) -> Self {
        Self {
            cache,
            residency: Box::new(Unchanging),
            held: HeldRows::default(),
        }
    }

    /// The cache, without what made it live.
    pub fn into_cache(self) -> KvCache {
        self.cache
    }

    /// Keys, values and positions.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Rows that were held at the steps so far, those that were rewound among them.
    pub fn held(&self) -> HeldRows {
        HeldRows {
            left: self.residency.rows_left(),
            ..self.held
        }
    }

    /// Forgets what was counted, so that other steps are counted by themselves.
    pub fn count_anew(&mut self) {
        self.held = HeldRows::default();
    }

    /// What it holds where now.
    pub fn bytes(&self) -> ResidencyBytes {
        self.residency.bytes(&self.cache)
    }

    /// Whether it can go back; see [`LiveCache::rewind`].
    pub fn can_rewind(&self) -> bool {
        self.residency.can_rewind() && self.cache.holds_tokens_alone()
    }

    /// The most tokens that may be fed in one pass and give what they give one by one.
    pub fn at_once(&self) -> usize {
        self.residency.at_once().min(self.cache.at_once()).max(1)
    }

    /// Begins to measure what steps bring back of what others left out, or ends it; what was measured is forgotten.
    ///
    /// It costs a full attention per step; where nothing is left out, nothing is measured.
    pub fn measure_recall(&mut self, measured: bool) {
        self.residency.measure_recall(measured);
    }

    /// What the measured steps brought back; those that were rewound are not among them.
    pub fn recalled(&self) -> &[RecallStep] {
        self.residency.recalled()
    }

    /// Runs one token through the model.
    ///
    /// Shapes: float32 logits, `(vocab)`. Errors: those of the decoder and of the residency.
    pub fn step(&mut self, decoder: &Decoder, id: u32) -> Result<Tensor> {
        self.count_coming(1);
        let logits = decoder.step(id, &mut self.cache, &mut *self.residency)?;
        self.count_held();
        Ok(logits)
    }

    /// Logits after each of `ids`, as many at once as may come in one pass; none for no ids.
    ///
    /// Shapes: `[id][vocab]`. Errors: as [`LiveCache::step`].
    pub fn feed(&mut self, decoder: &Decoder, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        let (mut rows, mut left) = (Vec::with_capacity(ids.len()), ids);
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(self.at_once()));
            left = later;
            if let [id] = now {
                rows.push(self.step(decoder, *id)?.to_vec1()?);
            } else {
                rows.extend(self.feed_at_once(decoder, now, &mut NoProbe)?);
            }
        }
        Ok(rows)
    }

    /// Logits after the last of `ids`, fed as by [`LiveCache::feed`]; none for no ids.
    ///
    /// Shapes: `[vocab]`. Differs: the output head's products for the other ids are spared. Errors: as
    /// [`LiveCache::step`].
    pub fn feed_to_last(&mut self, decoder: &Decoder, ids: &[u32]) -> Result<Option<Vec<f32>>> {
        let (mut last, mut left) = (None, ids);
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(self.at_once()));
            left = later;
            last = Some(if let [id] = now {
                self.step(decoder, *id)?
            } else {
                self.feed_at_once_to_last(decoder, now, &mut NoProbe)?
            });
        }
        Ok(last.map(|logits| logits.to_vec1()).transpose()?)
    }

    /// Logits after each of `ids`, all fed at once, while `probe` watches; none for no ids.
    ///
    /// Shapes: as [`LiveCache::feed`]. Errors: as there; [`Error::Invalid`] for more than may come together.
    pub fn feed_watched(
        &mut self,
        decoder: &Decoder,
        ids: &[u32],
        probe: &mut dyn AttentionProbe,
    ) -> Result<Vec<Vec<f32>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.check_at_once(ids)?;
        self.feed_at_once(decoder, ids, probe)
    }

    /// Logits after the last of `ids`, all fed at once, while `probe` watches; none for no ids.
    ///
    /// Shapes and bits: as [`LiveCache::feed_to_last`]. Errors: as [`LiveCache::feed_watched`].
    pub fn feed_watched_to_last(
        &mut self,
        decoder: &Decoder,
        ids: &[u32],
        probe: &mut dyn AttentionProbe,
    ) -> Result<Option<Vec<f32>>> {
        if ids.is_empty() {
            return Ok(None);
        }
        self.check_at_once(ids)?;
        let logits = self.feed_at_once_to_last(decoder, ids, probe)?;
        Ok(Some(logits.to_vec1()?))
    }

    fn check_at_once(&self, ids: &[u32]) -> Result<()> {
        let most = self.at_once();
        if ids.len() <= most {
            return Ok(());
        }
        let bound = format!(
            "at most {most} may come in one pass: tokens leave this cache, are chosen step by step, or are coded together"
        );
        Err(Error::invalid("tokens fed at once", ids.len(), bound))
    }

    fn feed_at_once(
        &mut self,
        decoder: &Decoder,
        ids: &[u32],
        probe: &mut dyn AttentionProbe,
    ) -> Result<Vec<Vec<f32>>> {
        self.count_coming(ids.len());
        let rows = decoder.feed(ids, &mut self.cache, probe, &mut *self.residency)?;
        self.count_held();
        Ok(rows.to_vec2()?)
    }

    fn feed_at_once_to_last(
        &mut self,
        decoder: &Decoder,
        ids: &[u32],
        probe: &mut dyn AttentionProbe,
    ) -> Result<Tensor> {
        self.count_coming(ids.len());
        let (cache, residency) = (&mut self.cache, &mut *self.residency);
        let logits = decoder.feed_to_last(ids, cache, probe, residency)?;
        self.count_held();
        Ok(logits)
    }

    /// Counts what is resident now: where tokens leave a window that are coded together, others of the group stay.
    fn count_held(&mut self) {
        self.held.peak_resident = self.held.peak_resident.max(self.bytes().resident);
    }

    /// Goes back to a position, as if later tokens had never been.
    ///
    /// Errors: [`Error::Invalid`] where the residency cannot, and as [`KvCache::rewind`].
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        if !self.residency.can_rewind() {
            let bound = "tokens that left this cache while it lived cannot be brought back";
            return Err(Error::invalid("position to go back to", position, bound));
        }
        self.cache.rewind(position)?;
        self.residency.rewind(position);
        Ok(())
    }

    /// Counts what is seen while `steps` tokens come, before any can leave.
    fn count_coming(&mut self, steps: usize) {
        let rows = |steps| self.residency.rows_seen(&self.cache, steps);
        let now: usize = rows(0).iter().flatten().sum();
        let resident = self.bytes().resident;
        let row = self.cache.bytes_of(1) / self.cache.heads().max(1);
        for step in 1..=steps {
            // Where a window moves on, rows come and others are no longer seen.
            let then = self.held.count(&rows(step));
            let resident = (resident + row * then).saturating_sub(row * now);
            self.held.peak_resident = self.held.peak_resident.max(resident);
        }
    }
}
