//! Functions of a budget, known at some budgets and straight in between.

/// A function of the number of kept tokens: its points joined by straight lines, constant after the last.
///
/// Straight lines keep what matters of a retained mass: between points of a concave function they are
/// concave, and never above it.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Budgets in ascending order, the first of them 0.
    budgets: Vec<f64>,
    values: Vec<f64>,
}

impl Curve {
    /// The curve through `start` at no token and `points` (budget, value) in ascending order of budget;
    /// `None` where they are not in that order, or not finite.
    pub fn new(start: f64, points: impl IntoIterator<Item = (usize, f64)>) -> Option<Self> {
        let mut curve = Self {
            budgets: vec![0.0],
            values: vec![start],
        };
        for (budget, value) in points {
            let budget = budget as f64;
            if !value.is_finite() || curve.budgets.last().is_some_and(|&last| budget <= last) {
                return None;
            }
            curve.budgets.push(budget);
            curve.values.push(value);
        }
        start.is_finite().then_some(curve)
    }

    /// The value at a budget, which need not be whole.
    pub fn at(&self, budget: f64) -> f64 {
        let next = self.budgets.partition_point(|&b| b < budget);
        if next == 0 {
            return self.values[0];
        }
        if next == self.budgets.len() {
            return self.values[next - 1];
        }
        let (b0, b1) = (self.budgets[next - 1], self.budgets[next]);
        let (v0, v1) = (self.values[next - 1], self.values[next]);
        if budget >= b1 {
            return v1;
        }
        v0 + (v1 - v0) * (budget - b0) / (b1 - b0)
    }

    /// The last budget that is known.
    pub fn end(&self) -> f64 {
        self.budgets.last().copied().unwrap_or(0.0)
    }

    /// Mean of some curves up to `end`, straight between the budgets at which any of them is known.
    pub fn mean<'a>(curves: impl IntoIterator<Item = &'a Self> + Clone, end: usize) -> Self {
        let (curves, end) = (|| curves.clone().into_iter(), end as f64);
        let known = curves().flat_map(|curve| &curve.budgets).copied();
        let mut budgets: Vec<f64> = known.filter(|&b| b < end).chain([0.0, end]).collect();
        budgets.sort_by(f64::total_cmp);
        budgets.dedup();
        let count = curves().count().max(1) as f64;
        let mean = |&b: &f64| curves().map(|curve| curve.at(b)).sum::<f64>() / count;
        Self {
            values: budgets.iter().map(mean).collect(),
            budgets,
        }
    }

    /// The curve with every value changed by `change`: a gain as a loss.
    pub(super) fn changed(mut self, change: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|v| *v = change(*v));
        self
    }

    /// Points from `low` to `high`, both included, with budgets counted in parts of 1/`unit` token.
    pub(super) fn points(&self, low: usize, high: usize, unit: usize) -> Vec<(usize, f64)> {
        let inner = self
            .budgets
            .iter()
            .map(|&b| b as usize)
            .filter(|b| (low + 1..high).contains(b));
        let mut points: Vec<usize> = std::iter::once(low).chain(inner).collect();
        if high > low {
            points.push(high);
        }
        points
            .into_iter()
            .map(|b| (b * unit, self.at(b as f64)))
            .collect()
    }
}

/// Indices of the points on the upper concave hull, the first and the last among them.
pub(super) fn concave_hull(points: &[(usize, f64)]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for (i, point) in points.iter().enumerate() {
        while let [.., a, b] = hull[..]
            && slope(points[b], *point) >= slope(points[a], points[b])
        {
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

/// Rise per step between two points.
pub(super) fn slope(a: (usize, f64), b: (usize, f64)) -> f64 {
    (b.1 - a.1) / (b.0 - a.0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_on_straight_lines() {
        let curve = Curve::new(0.0, [(2, 0.5), (4, 0.7)]).unwrap();
        for (budget, want) in [(0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (3.0, 0.6), (9.0, 0.7)] {
            assert!((curve.at(budget) - want).abs() < 1e-15);
        }
        assert_eq!(curve.end(), 4.0);
        assert!(Curve::new(0.0, [(2, 0.5), (2, 0.6)]).is_none());
        assert!(Curve::new(0.0, [(0, 0.5)]).is_none());
        assert!(Curve::new(0.0, [(1, f64::NAN)]).is_none());
    }

    #[test]
    fn a_mean_knows_every_budget_that_its_parts_know() {
        let a = Curve::new(0.0, [(2, 0.5), (4, 1.0)]).unwrap();
        let b = Curve::new(0.0, [(3, 0.9), (6, 0.9)]).unwrap();
        let mean = Curve::mean([&a, &b], 5);
        assert_eq!(mean.budgets, [0.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((mean.at(2.0) - 0.55).abs() < 1e-15); // (0.5 + 0.6) / 2
        assert!((mean.at(5.0) - 0.95).abs() < 1e-15);
    }

    #[test]
    fn hulls_leave_out_what_lies_below() {
        let points = [(0, 0.0), (1, 0.1), (2, 0.6), (3, 0.7), (4, 0.8)];
        assert_eq!(concave_hull(&points), [0, 2, 4]);
        assert_eq!(concave_hull(&points[..1]), [0]);
        let falling = [(0, 0.0), (1, -1.0), (2, -3.0)];
        assert_eq!(concave_hull(&falling), [0, 1, 2]);
    }

    #[test]
    fn points_are_clipped_and_scaled() {
        let curve = Curve::new(0.0, [(2, 0.5), (4, 0.7), (8, 0.8)]).unwrap();
        let points = curve.points(3, 6, 2);
        let budgets: Vec<usize> = points.iter().map(|p| p.0).collect();
        assert_eq!(budgets, [6, 8, 12]);
        assert!((points[2].1 - 0.75).abs() < 1e-15);
        assert_eq!(curve.points(3, 3, 2).len(), 1);
    }
}
