//! A cache under ClusterKV while it lives.

use candle_core::DType;
use rayon::prelude::*;

use super::ClusterKv;
use super::head::{Batch, HeadClusters, Taken};
use super::measures::{HeadChoice, RecallMeter};
use crate::error::{Error, Result};
use crate::model::attention::AttentionView;
use crate::model::cache::KvCache;
use crate::model::residency::{RecallStep, Residency, ResidencyBytes, Sight};

/// The residency itself.
#[derive(Debug)]
pub(super) struct Recall {
    options: ClusterKv,
    /// T.
    prompt_tokens: usize,
    /// Sinks and recalled tokens that a KV head sees at most.
    rows: usize,
    /// The most bytes that may be resident when decoding begins, where they are what is spent.
    limit: Option<usize>,
    /// `[layer][kv_head]`; no heads in layers that are left alone.
    layers: Vec<Vec<HeadClusters>>,
    /// The next position after each batch of clusters; the prompt's is the first, and there is none before it.
    batch_ends: Vec<usize>,
    meter: Option<RecallMeter>,
}

impl Recall {
    /// Before there is a cache.
    pub fn of(options: ClusterKv, prompt_tokens: usize, rows: usize, limit: Option<usize>) -> Self {
        Self {
            options,
            prompt_tokens,
            rows,
            limit,
            layers: Vec::new(),
            batch_ends: Vec::new(),
            meter: None,
        }
    }

    /// Layers and KV heads that choose, with what is clustered of them.
    fn heads(&self) -> impl Iterator<Item = (usize, usize, &HeadClusters)> {
        let layers = self.layers.iter().enumerate();
        layers.flat_map(|(l, heads)| heads.iter().enumerate().map(move |(h, head)| (l, h, head)))
    }

    /// Leaves the first layers alone, and those that see a window only.
    fn begin(&mut self, cache: &KvCache) {
        let sinks = self.options.sinks;
        let layer = |l: usize| {
            let layer = cache.layer(l);
            if l < self.options.full_layers || layer.window().is_some() {
                return Vec::new();
            }
            let heads = layer.heads.iter();
            heads
                .map(|head| HeadClusters::behind_sinks(head, sinks))
                .collect()
        };
        self.layers = (0..cache.num_layers()).map(layer).collect();
    }

    /// Makes `clusters` of what belongs to none yet in every KV head.
    fn cluster(&mut self, cache: &KvCache, clusters: usize) -> Result<()> {
        let batch = Batch {
            clusters,
            iterations: self.options.iterations,
            seed: self.options.seed.wrapping_add(self.batch_ends.len() as u64),
            stream: 0,
        };
        let layers = self.layers.iter_mut().enumerate();
        let heads: Vec<(usize, usize, &mut HeadClusters)> = layers
            .flat_map(|(l, heads)| {
                heads
                    .iter_mut()
                    .enumerate()
                    .map(move |(h, head)| (l, h, head))
            })
            .collect();
        heads.into_par_iter().try_for_each(|(l, h, head)| {
            let held = &cache.layer(l).heads;
            let stream = (l * held.len() + h) as u64;
            head.add(&held[h], Batch { stream, ..batch })
        })?;
        self.batch_ends.push(cache.next_position());
        Ok(())
    }

    /// Recalls as many tokens as the limit of resident bytes leaves room for.
    ///
    /// Errors: [`Error::Invalid`] where what is always resident takes more.
    fn keep_to_limit(&mut self, cache: &KvCache) -> Result<()> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        // Where all of it fits, nothing is left out and nothing lies elsewhere.
        if cache.bytes() <= limit {
            self.rows = usize::MAX;
            return Ok(());
        }
        let sinks = self.options.sinks;
        let mut fits = |rows: usize| {
            self.rows = rows;
            self.bytes(cache).resident <= limit
        };
        let (mut low, mut high) = (sinks, cache.next_position() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        if low > sinks {
            self.rows = low;
            return Ok(());
        }
        self.rows = sinks + 1;
        let whole = self.options.full_layers;
        let chosen = (0..whole).any(|layer| cache.layer(layer).window().is_none());
        let way_out = if chosen {
            "allow more, or lower full_layers"
        } else {
            "allow more"
        };
        let bound = format!(
            "layers that are read whole (the first {}, and any with a window), sinks, centroids and one recalled token \
             take {}: {way_out}",
            whole,
            self.bytes(cache).resident
        );
        Err(Error::invalid("budget in bytes", limit, bound))
    }

    /// What every KV head of a layer takes for the queries of one token.
    fn choose(&self, view: &AttentionView<'_>) -> Result<Vec<Taken>> {
        let (query_heads, tokens, width) = view.queries.dims3()?;
        if tokens != 1 {
            let bound = "every token recalls by its own queries: feed one at a time";
            return Err(Error::invalid("tokens fed at once", tokens, bound));
        }
        let queries: Vec<f32> = view
            .queries
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1()?;
        let heads = &self.layers[view.layer];
        let group = query_heads / heads.len().max(1);
        let taken = heads.iter().enumerate().map(|(h, head)| {
            let own = &queries[h * group * width..(h + 1) * group * width];
            let mut mean = vec![0.0; width];
            for query in own.chunks_exact(width) {
                mean.iter_mut()
                    .zip(query)
                    .for_each(|(m, q)| *m += f64::from(*q));
            }
            mean.iter_mut().for_each(|m| *m /= group as f64);
            head.choose(&mean, self.rows)
        });
        Ok(taken.collect())
    }

    /// Whether a layer sees all that it holds, whatever it is asked.
    fn sees_all(&self, layer: usize) -> bool {
        let whole = |head: &HeadClusters| head.recalled(self.rows) == head.clustered();
        self.layers[layer].iter().all(whole)
    }

    fn measure(&mut self, view: &AttentionView<'_>, taken: &[Taken]) -> Result<()> {
        let sees_all = self.sees_all(view.layer);
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        let rows = if sees_all {
            None
        } else {
            Some(view.rows_of_heads()?)
        };
        let heads = self.layers[view.layer].iter().zip(taken).enumerate();
        let choices = heads.map(|(h, (head, taken))| {
            let rows = rows.as_ref().map(|rows| &*rows[h]);
            HeadChoice::of(head, taken, rows, view.cache.heads[h].len())
        });
        meter.chose(view.rows.start, view.layer, choices.collect());
        Ok(())
    }
}

impl Residency for Recall {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let is_left_alone = self.layers.get(view.layer).is_none_or(Vec::is_empty);
        if is_left_alone {
            return Ok(Sight::Held);
        }
        let taken = self.choose(view)?;
        self.measure(view, &taken)?;
        if self.sees_all(view.layer) {
            return Ok(Sight::Held);
        }
        let heads = self.layers[view.layer]
            .iter()
            .zip(&taken)
            .zip(&view.cache.heads);
        let seen = heads.map(|((head, taken), held)| head.in_sight(taken, held.len()));
        Ok(Sight::Slots(seen.collect()))
    }

    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        let Some(&end) = self.batch_ends.last() else {
            self.begin(cache);
            self.cluster(cache, self.options.clusters(self.prompt_tokens))?;
            return self.keep_to_limit(cache);
        };
        if let Some(meter) = &mut self.meter {
            meter.end_step(cache.next_position().saturating_sub(1));
        }
        if cache.next_position().saturating_sub(end) >= self.options.every {
            self.cluster(cache, self.options.new)?;
        }
        Ok(())
    }

    fn at_once(&self) -> usize {
        1
    }

    fn rows_seen(&self, cache: &KvCache, steps: usize) -> Vec<Vec<usize>> {
        let mut seen = cache.lengths_after(steps);
        for (l, h, head) in self.heads() {
            let held = cache.layer(l).heads[h].len();
            seen[l][h] = head.seen(held, self.rows) + steps;
        }
        seen
    }

    fn measure_recall(&mut self, measured: bool) {
        self.meter = measured.then(RecallMeter::default);
    }

    fn recalled(&self) -> &[RecallStep] {
        self.meter.as_ref().map_or(&[], RecallMeter::steps)
    }

    fn rewind(&mut self, position: usize) {
        let kept = self.batch_ends.partition_point(|end| *end <= position);
        self.batch_ends.truncate(kept.max(1));
        let heads = self.layers.iter_mut().flatten();
        if kept > 0 {
            heads.for_each(|head| head.keep_batches(kept));
        } else {
            // The prompt's clusters hold tokens that are gone.
            self.batch_ends.iter_mut().for_each(|end| *end = position);
            heads.for_each(HeadClusters::forget_prompt);
        }
        if let Some(meter) = &mut self.meter {
            meter.rewind(position);
        }
    }

    fn bytes(&self, cache: &KvCache) -> ResidencyBytes {
        let mut bytes = ResidencyBytes {
            resident: cache.bytes(),
            offloaded: 0,
        };
        // Where everything is seen, nothing has to lie elsewhere or be chosen.
        if self.rows == usize::MAX {
            return bytes;
        }
        let row = cache.bytes_of(1) / cache.heads().max(1);
        for (l, h, head) in self.heads() {
            let held = cache.layer(l).heads[h].len();
            let seen = head.seen(held, self.rows);
            bytes.resident -= row * (held - seen);
            bytes.resident += head.bytes();
            bytes.offloaded += row * head.clustered();
        }
        bytes
    }
}
