//! One head on its way from its best key to all: sums of p·v, and how far they can have come.

use super::minimum_budget::Ranked;
use super::output_bound::renormalised_way;

/// Budgets between two that were evaluated.
pub(super) struct Stretch {
    /// The landmark that it lies behind.
    pub(super) place: usize,
    /// Both.
    pub(super) budgets: [usize; 2],
    /// Cosine and norm at both.
    pub(super) ends: [(f64, f64); 2],
}

impl Stretch {
    /// Whether budgets lie between.
    pub(super) fn is_long(&self) -> bool {
        self.budgets[1] - self.budgets[0] > 1
    }

    /// The budget half-way.
    pub(super) fn middle(&self) -> usize {
        self.budgets[0].midpoint(self.budgets[1])
    }

    /// Both halves, given cosine and norm at the middle.
    pub(super) fn halves(&self, found: (f64, f64)) -> [Self; 2] {
        let half = |budgets, ends| Self {
            place: self.place,
            budgets,
            ends,
        };
        let ([from, to], middle) = (self.budgets, self.middle());
        [
            half([from, middle], [self.ends[0], found]),
            half([middle, to], [found, self.ends[1]]),
        ]
    }
}

/// Running sums of p·v over the keys of one head in ranked order, kept at the landmarks.
pub(super) struct HeadPath<'a> {
    ranked: &'a Ranked,
    values: &'a [f32],
    head_dim: usize,
    sums: Vec<f64>, // landmarks x D
    /// Sum of p·‖v‖ over the first keys, for 0..=T of them.
    ways: Vec<f64>,
    /// For every landmark, the longest that a renormalised sum can be from there to the next.
    reaches: Vec<f64>,
}

impl<'a> HeadPath<'a> {
    /// Adds up all keys, and notes the sums at the landmarks.
    pub(super) fn walk(
        ranked: &'a Ranked,
        values: &'a [f32],
        head_dim: usize,
        landmarks: &[usize],
    ) -> Self {
        let mut path = Self {
            ranked,
            values,
            head_dim,
            sums: Vec::with_capacity(landmarks.len() * head_dim),
            ways: vec![0.0],
            reaches: Vec::with_capacity(landmarks.len()),
        };
        let mut sum = vec![0.0; head_dim];
        let (mut done, mut way) = (0, 0.0);
        for &landmark in landmarks {
            let mut longest = 0f64;
            for rank in done..landmark {
                let length = path.add(rank, &mut sum).sqrt();
                longest = longest.max(length);
                way += ranked.sorted[rank] * length;
                path.ways.push(way);
            }
            // Renormalised sums are means of values: of where they were, and of those that came.
            if let Some(reach) = path.reaches.last_mut() {
                *reach = longest.max(*reach);
            }
            let length = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
            path.reaches.push(length / path.mass(landmark));
            path.sums.extend(&sum);
            done = landmark;
        }
        path
    }

    /// Probability of the first `budget` keys.
    fn mass(&self, budget: usize) -> f64 {
        self.ranked.cumulative[budget - 1]
    }

    /// A bound on how far this head's sum comes on a stretch.
    pub(super) fn way(&self, stretch: &Stretch, renormalise: bool) -> f64 {
        let [from, to] = stretch.budgets;
        let way = self.ways[to] - self.ways[from];
        if renormalise {
            let start = self.mass(from);
            renormalised_way(
                way,
                self.mass(to) - start,
                start,
                self.reaches[stretch.place],
            )
        } else {
            way
        }
    }

    /// Adds one key's part; gives the squared norm of its value.
    fn add(&self, rank: usize, sum: &mut [f64]) -> f64 {
        let key = self.ranked.order[rank] as usize;
        let p = self.ranked.sorted[rank];
        let value = &self.values[key * self.head_dim..][..self.head_dim];
        let mut squared = 0.0;
        for (s, &v) in sum.iter_mut().zip(value) {
            let v = f64::from(v);
            *s += p * v;
            squared += v * v;
        }
        squared
    }

    /// The sum at a landmark.
    pub(super) fn sum_at(&self, place: usize) -> &[f64] {
        &self.sums[place * self.head_dim..][..self.head_dim]
    }

    /// What this head contributes at each of the budgets, given after the landmarks that they follow.
    pub(super) fn outputs(
        &self,
        budgets: &[(usize, usize)],
        landmarks: &[usize],
        renormalise: bool,
    ) -> Vec<f32> {
        let mut outputs = Vec::with_capacity(budgets.len() * self.head_dim);
        for &(place, budget) in budgets {
            let mut sum = self.sum_at(place).to_vec();
            for rank in landmarks[place]..budget {
                self.add(rank, &mut sum);
            }
            let mass = self.mass(budget);
            let scale = match renormalise {
                true if mass > 0.0 => 1.0 / mass,
                true => 0.0,
                false => 1.0,
            };
            outputs.extend(sum.iter().map(|&s| (s * scale) as f32));
        }
        outputs
    }
}
