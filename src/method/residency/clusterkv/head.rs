//! The clusters of one KV head's keys.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::compute::cosine_clusters::cosine_clusters;
use crate::error::Result;
use crate::model::cache::HeadCache;

use candle_core::DType;

/// How keys are clustered together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Clusters, if there are as many keys.
    pub clusters: usize,
    /// Most rounds.
    pub iterations: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Stream of the draws, another for every KV head of the model.
    pub stream: u64,
}

/// Clusters of a KV head's slots: sinks lie before them, tokens that belong to none yet behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeadClusters {
    sinks: usize,
    /// The first slot behind the clusters.
    end: usize,
    /// Dimensions of a key.
    width: usize,
    /// Means of the members' keys, `(clusters, width)`.
    centroids: Vec<f32>,
    /// Slots of every cluster, ascending.
    members: Vec<Vec<u32>>,
    /// Clusters and end after each batch; the prompt's is the first.
    batches: Vec<(usize, usize)>,
}

/// What a step takes: clusters, and how many of the earliest tokens of each.
pub(super) type Taken = Vec<(u32, u32)>;

impl HeadClusters {
    /// Without clusters, behind the first `sinks` tokens of the text as far as they are held.
    pub fn behind_sinks(head: &HeadCache, sinks: usize) -> Self {
        let sinks = head.positions().partition_point(|&p| (p as usize) < sinks);
        Self {
            sinks,
            end: sinks,
            ..Self::default()
        }
    }

    /// Makes clusters of all keys behind those that are clustered; old ones stay as they are.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn add(&mut self, head: &HeadCache, batch: Batch) -> Result<()> {
        let (held, start) = (head.len(), self.end);
        if held > start {
            let keys = head.keys()?.narrow(0, start, held - start)?;
            self.width = keys.dim(1)?;
            let keys: Vec<f32> = keys.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let mut generator = ChaCha8Rng::seed_from_u64(batch.seed);
            generator.set_stream(batch.stream);
            let mut random = || (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let (count, rounds) = (batch.clusters, batch.iterations);
            let found = cosine_clusters(&keys, self.width, count, rounds, &mut random);
            self.centroids
                .extend(found.centroids.iter().map(|x| *x as f32));
            for mut members in found.members {
                members.iter_mut().for_each(|slot| *slot += start as u32);
                self.members.push(members);
            }
            self.end = held;
        }
        self.batches.push((self.members.len(), self.end));
        Ok(())
    }

    /// Forgets all but the first `batches`; their tokens belong to no cluster then.
    pub fn keep_batches(&mut self, batches: usize) {
        self.batches.truncate(batches);
        let (clusters, end) = self.batches.last().copied().unwrap_or((0, self.sinks));
        self.members.truncate(clusters);
        self.centroids.truncate(clusters * self.width);
        self.end = end;
    }

    /// Forgets the prompt's clusters and all later ones.
    pub fn forget_prompt(&mut self) {
        self.keep_batches(0);
        self.batches.push((0, self.end));
    }

    /// Clusters that there are.
    pub fn clusters(&self) -> usize {
        self.members.len()
    }

    /// Tokens that belong to clusters.
    pub fn clustered(&self) -> usize {
        self.end - self.sinks
    }

    /// Tokens that a step recalls where a KV head may see `rows` of sinks and recalled ones.
    pub fn recalled(&self, rows: usize) -> usize {
        rows.saturating_sub(self.sinks).min(self.clustered())
    }

    /// Tokens of `held` that a step sees under the same bound.
    pub fn seen(&self, held: usize, rows: usize) -> usize {
        // A text that went back before its own sinks holds fewer.
        held.min(self.sinks) + self.recalled(rows) + held.saturating_sub(self.end)
    }

    /// Bytes of centroids and lists of members.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.centroids) + self.clustered() * size_of::<u32>()
    }

    /// Chooses whole clusters by falling product of query and centroid, the lower index of equals first, until the
    /// bound; of the last one the earliest tokens.
    pub fn choose(&self, query: &[f64], rows: usize) -> Taken {
        let product = |centroid: &[f32]| {
            let pairs = query.iter().zip(centroid);
            pairs.fold(0.0, |sum, (q, c)| sum + q * f64::from(*c))
        };
        let centroids = self.centroids.chunks_exact(self.width.max(1));
        let scores: Vec<f64> = centroids.map(product).collect();
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        let mut room = self.recalled(rows);
        let mut taken = Taken::new();
        for cluster in order {
            let tokens = self.members[cluster as usize].len().min(room);
            if tokens == 0 {
                break;
            }
            taken.push((cluster, tokens as u32));
            room -= tokens;
        }
        taken
    }

    /// Slots of what was taken, ascending.
    pub fn slots(&self, taken: &Taken) -> Vec<u32> {
        let of_cluster = |&(cluster, tokens): &(u32, u32)| {
            let members = &self.members[cluster as usize];
            members.iter().take(tokens as usize).copied()
        };
        let mut slots: Vec<u32> = taken.iter().flat_map(of_cluster).collect();
        slots.sort_unstable();
        slots
    }

    /// Slots that are seen: sinks, what was taken, and what belongs to no cluster.
    pub fn in_sight(&self, taken: &Taken, held: usize) -> Vec<u32> {
        let mut seen: Vec<u32> = (0..self.sinks.min(held) as u32).collect();
        seen.extend(self.slots(taken));
        seen.extend(self.end as u32..held as u32);
        seen
    }

    /// Slots that belong to clusters.
    pub fn clustered_slots(&self) -> std::ops::Range<usize> {
        self.sinks..self.end
    }
}

#[cfg(test)]
impl HeadClusters {
    /// From clusters that are written down; `members` ascend from `sinks` on without a gap.
    pub fn written(sinks: usize, centroids: &[[f32; 2]], members: &[&[u32]]) -> Self {
        let clustered = members.iter().map(|m| m.len()).sum::<usize>();
        Self {
            sinks,
            end: sinks + clustered,
            width: 2,
            centroids: centroids.concat(),
            members: members.iter().map(|m| m.to_vec()).collect(),
            batches: vec![(members.len(), sinks + clustered)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sinks, then clusters {2, 5}, {3, 4, 8} and {6, 7} with centroids (1, 0), (0, 1) and (2, 2).
    fn head() -> HeadClusters {
        let centroids = [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]];
        HeadClusters::written(2, &centroids, &[&[2, 5], &[3, 4, 8], &[6, 7]])
    }

    /// For the query (1, 3) products are 1, 3 and 8: the third cluster, then the second, then the first.
    #[test]
    fn clusters_are_taken_by_their_products_and_the_last_in_part() {
        let (head, query) = (head(), [1.0, 3.0]);
        for (rows, taken, seen) in [
            (3, vec![(2, 1)], vec![0, 1, 6, 9, 10]),
            (4, vec![(2, 2)], vec![0, 1, 6, 7, 9, 10]),
            (6, vec![(2, 2), (1, 2)], vec![0, 1, 3, 4, 6, 7, 9, 10]),
            (
                8,
                vec![(2, 2), (1, 3), (0, 1)],
                vec![0, 1, 2, 3, 4, 6, 7, 8, 9, 10],
            ),
            (usize::MAX, vec![(2, 2), (1, 3), (0, 2)], (0..11).collect()),
        ] {
            assert_eq!(head.choose(&query, rows), taken, "{rows}");
            assert_eq!(head.in_sight(&taken, 11), seen, "{rows}");
            assert_eq!(head.seen(11, rows), seen.len(), "{rows}");
        }
        assert_eq!(head.choose(&query, 2), [], "the sinks take all");
    }

    /// (3, 0) has products 3, 0 and 6 with the three; (1, 1) has 1, 1 and 4: of equals the lower index.
    #[test]
    fn another_query_takes_others_and_equals_have_an_order() {
        assert_eq!(head().choose(&[3.0, 0.0], 6), [(2, 2), (0, 2)]);
        assert_eq!(head().choose(&[1.0, 1.0], 6), [(2, 2), (0, 2)]);
        // Products may be negative: (-1, -1) has -1, -1 and -4.
        assert_eq!(head().choose(&[-1.0, -1.0], 8), [(0, 2), (1, 3), (2, 1)]);
    }

    /// Six numbers of four bytes are the centroids, seven of four bytes the lists.
    #[test]
    fn bytes_are_those_of_centroids_and_lists() {
        assert_eq!(head().bytes(), 6 * 4 + 7 * 4);
        let mut head = head();
        head.forget_prompt();
        assert_eq!((head.bytes(), head.clusters(), head.clustered()), (0, 0, 0));
        assert_eq!(head.in_sight(&Taken::new(), 4), [0, 1, 2, 3]);
        assert_eq!((head.seen(4, 3), head.seen(1, 3)), (4, 1));
    }
}
