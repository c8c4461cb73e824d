//! k-means by cosine: points that lie in the same direction become one cluster.

/// Points whose cosines to all centroids are computed together, so that they stay in the fastest memory.
const BLOCK: usize = 64;

/// Clusters of points, none of them without members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CosineClusters {
    /// Means of the members as they came, not normalised, `(clusters, width)`.
    pub centroids: Vec<f64>,
    /// Indices of the points of every cluster, ascending.
    pub members: Vec<Vec<u32>>,
    /// Whether the last round changed no assignment, so that every point belongs to the nearest centroid.
    pub settled: bool,
}

/// Clusters points by the cosine to the mean of each cluster's points.
///
/// The first centre is drawn uniformly, each further one with probability proportional to 1 minus its greatest cosine
/// to those that were drawn (k-means++). A round assigns every point to the centroid of greatest cosine, the lower
/// index of equals, and computes the means anew; a cluster without members keeps its centroid, and is dropped at the
/// end. A zero vector has cosine 0 to everything. Sums are float64 and have one order.
///
/// Shapes: `points` `(n, width)`; at most `count` clusters, at most one per point. `random` gives numbers from 0 to
/// below 1, one for every centre.
pub fn cosine_clusters(
    points: &[f32],
    width: usize,
    count: usize,
    iterations: usize,
    random: &mut dyn FnMut() -> f64,
) -> CosineClusters {
    let points = Points::of(points, width);
    let count = count.min(points.count);
    if count == 0 {
        return CosineClusters::default();
    }
    let mut centroids = points.seeded(count, random);
    let mut nearest = vec![u32::MAX; points.count];
    let mut settled = false;
    for _ in 0..iterations {
        let assigned = points.nearest(&centroids);
        settled = assigned == nearest;
        if settled {
            break;
        }
        nearest = assigned;
        points.move_to_means(&nearest, &mut centroids);
    }
    with_members(&centroids, width, &nearest, settled)
}

/// Drops the clusters that no point belongs to.
fn with_members(centroids: &[f64], width: usize, nearest: &[u32], settled: bool) -> CosineClusters {
    let mut members = vec![Vec::new(); centroids.len() / width.max(1)];
    for (point, &cluster) in nearest.iter().enumerate() {
        if let Some(own) = members.get_mut(cluster as usize) {
            own.push(point as u32);
        }
    }
    let mut found = CosineClusters {
        settled,
        ..CosineClusters::default()
    };
    for (centroid, own) in centroids.chunks_exact(width.max(1)).zip(members) {
        if !own.is_empty() {
            found.centroids.extend(centroid);
            found.members.push(own);
        }
    }
    found
}

/// Points, dimension by dimension, so that many of them are multiplied at once.
struct Points {
    count: usize,
    width: usize,
    /// `(width, count)`.
    columns: Vec<f64>,
    /// Lengths of all points.
    norms: Vec<f64>,
}

impl Points {
    fn of(points: &[f32], width: usize) -> Self {
        let count = points.len().checked_div(width).unwrap_or(0);
        let mut columns = vec![0.0; count * width];
        for (p, point) in points.chunks_exact(width.max(1)).enumerate() {
            for (d, &x) in point.iter().enumerate() {
                columns[d * count + p] = f64::from(x);
            }
        }
        let mut squares = vec![0.0; count];
        for column in columns.chunks_exact(count.max(1)) {
            squares
                .iter_mut()
                .zip(column)
                .for_each(|(s, x)| *s += x * x);
        }
        Self {
            count,
            width,
            columns,
            norms: squares.into_iter().map(f64::sqrt).collect(),
        }
    }

    /// One point.
    fn point(&self, p: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.width).map(move |d| self.columns[d * self.count + p])
    }

    /// Cosines of up to [`BLOCK`] points from `from` on to a centroid of length `norm`; 0 where either is zero.
    fn cosines(&self, from: usize, centroid: &[f64], norm: f64, cosines: &mut [f64]) {
        cosines.fill(0.0);
        for (d, c) in centroid.iter().enumerate() {
            let start = d * self.count + from;
            let column = &self.columns[start..start + cosines.len()];
            cosines
                .iter_mut()
                .zip(column)
                .for_each(|(sum, x)| *sum += x * c);
        }
        for (cosine, own) in cosines.iter_mut().zip(&self.norms[from..]) {
            let both = own * norm;
            *cosine = if both > 0.0 { *cosine / both } else { 0.0 };
        }
    }

    /// Chosen points as centroids: the first uniformly, the others far from those before them.
    fn seeded(&self, count: usize, random: &mut dyn FnMut() -> f64) -> Vec<f64> {
        let uniform = vec![1.0; self.count];
        let mut centroids: Vec<f64> = self.point(drawn(&uniform, random())).collect();
        let mut closest = vec![f64::NEG_INFINITY; self.count];
        let mut cosines = vec![0.0; BLOCK];
        for chosen in 1..count {
            let last = centroids[(chosen - 1) * self.width..].to_vec();
            let norm = length(&last);
            for (block, closest) in closest.chunks_mut(BLOCK).enumerate() {
                let cosines = &mut cosines[..closest.len()];
                self.cosines(block * BLOCK, &last, norm, cosines);
                closest
                    .iter_mut()
                    .zip(cosines)
                    .for_each(|(c, cosine)| *c = c.max(*cosine));
            }
            let weights: Vec<f64> = closest.iter().map(|c| (1.0 - c).max(0.0)).collect();
            let is_anywhere = weights.iter().any(|w| *w > 0.0);
            let weights = if is_anywhere { &weights } else { &uniform };
            centroids.extend(self.point(drawn(weights, random())));
        }
        centroids
    }

    /// The centroid of greatest cosine of every point, the lower index of equals.
    fn nearest(&self, centroids: &[f64]) -> Vec<u32> {
        let mut nearest = vec![0; self.count];
        let mut greatest = vec![f64::NEG_INFINITY; self.count];
        let norms: Vec<f64> = centroids.chunks_exact(self.width).map(length).collect();
        let mut cosines = vec![0.0; BLOCK];
        let blocks = nearest.chunks_mut(BLOCK).zip(greatest.chunks_mut(BLOCK));
        for (block, (nearest, greatest)) in blocks.enumerate() {
            let cosines = &mut cosines[..nearest.len()];
            for (c, centroid) in centroids.chunks_exact(self.width).enumerate() {
                self.cosines(block * BLOCK, centroid, norms[c], cosines);
                for ((nearest, greatest), cosine) in nearest
                    .iter_mut()
                    .zip(greatest.iter_mut())
                    .zip(cosines.iter())
                {
                    if cosine > greatest {
                        (*nearest, *greatest) = (c as u32, *cosine);
                    }
                }
            }
        }
        nearest
    }

    /// Puts the mean of every cluster's points in the place of its centroid; one without members stays.
    fn move_to_means(&self, nearest: &[u32], centroids: &mut [f64]) {
        let clusters = centroids.len() / self.width;
        let mut sizes = vec![0.0; clusters];
        nearest.iter().for_each(|&c| sizes[c as usize] += 1.0);
        let mut sums = vec![0.0; clusters];
        for (d, column) in self.columns.chunks_exact(self.count).enumerate() {
            sums.fill(0.0);
            for (x, &c) in column.iter().zip(nearest) {
                sums[c as usize] += x;
            }
            for (c, (sum, size)) in sums.iter().zip(&sizes).enumerate() {
                if *size > 0.0 {
                    centroids[c * self.width + d] = sum / size;
                }
            }
        }
    }
}

/// The first index whose cumulative weight is above `u` times the total.
fn drawn(weights: &[f64], u: f64) -> usize {
    let total: f64 = weights.iter().fold(0.0, |sum, w| sum + w);
    let mut cumulative = 0.0;
    let above = weights.iter().position(|weight| {
        cumulative += weight;
        cumulative > u * total
    });
    above.unwrap_or(weights.len().saturating_sub(1))
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().fold(0.0, |sum, x| sum + x * x).sqrt()
}

#[cfg(test)]
#[path = "tests/cosine_clusters.rs"]
mod tests;
