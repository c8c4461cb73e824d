//! LU-KV's budgets: what keeps the most utility at every global ratio.

use super::curve::{Curve, concave_hull};
use super::fit::fit;
use super::floor::Floor;
use super::geometry::{Geometry, Granularity};
use super::interchange::BudgetCurve;
use super::optimum::best_targets;
use super::request::Request;
use super::{Budget, TokenBudgets};
use crate::error::{Error, Result};
use crate::profile::Points;

/// The budgets that keep the most utility together, for a prompt of `tokens`, at every global ratio.
///
/// Utilities are of tokens kept, one curve per KV head in layer order; what lies below a curve's hull is taken along it. Ratios that
/// leave less than the floor are spread evenly.
/// Paper: arXiv:2602.08585 (LU-KV), greedy marginal utility on the convex hull. Differs: totals are exact.
/// Shapes: utilities `[L·H_kv]` of points in ascending order of budget. Errors: [`Error::Invalid`] for another number of curves
/// than KV heads, or points in no order.
pub fn utility_budgets(
    geometry: &Geometry,
    utilities: &[Points],
    tokens: usize,
    floor: Floor,
) -> Result<BudgetCurve> {
    geometry.refuse_windows("LU-KV's curve of")?;
    if utilities.len() != geometry.cells() {
        let bound = format!("the model has {}", geometry.numbers());
        return Err(Error::invalid(
            "number of utility curves",
            utilities.len(),
            bound,
        ));
    }
    let curves: Vec<Curve> = utilities.iter().map(hull).collect::<Result<_>>()?;
    BudgetCurve::of_tokens(tokens, |percent| {
        budgets_at(geometry, &curves, tokens, floor, percent)
    })
}

/// The curve along the hull of its points, from nothing at no token on.
fn hull(points: &Points) -> Result<Curve> {
    let all: Points = std::iter::once((0, 0.0))
        .chain(points.iter().copied())
        .collect();
    let ascends = all.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !ascends || all.iter().any(|(_, value)| !value.is_finite()) {
        let bound = "finite numbers at ascending budgets are expected";
        return Err(Error::invalid(
            "points of a utility curve",
            points.len(),
            bound,
        ));
    }
    let ends = concave_hull(&all).into_iter().skip(1);
    Curve::new(0.0, ends.map(|place| all[place])).ok_or_else(|| {
        Error::invalid(
            "points of a utility curve",
            points.len(),
            "at least one is expected",
        )
    })
}

fn budgets_at(
    geometry: &Geometry,
    curves: &[Curve],
    tokens: usize,
    floor: Floor,
    percent: usize,
) -> Result<TokenBudgets> {
    // Written as a decimal, so that 7 % kept is 0.07 and not 1 - 0.93.
    let budget: Budget = format!("{}%", 100 - percent).parse()?;
    let request = Request::of_model(geometry.clone(), budget, floor, tokens);
    if request.per_head() < request.lowest() as f64 {
        let equal = vec![vec![1.0; geometry.kv_heads]; geometry.layers];
        return fit(&equal, budget, &Floor::of(0, 0), request.room());
    }
    let request = request.by(Granularity::Head);
    request.check()?;
    let shares = geometry.by_layer(&best_targets(&request, curves, 1).shares());
    fit(&shares, budget, &floor, request.room())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;

    #[test]
    fn the_most_useful_tokens_are_kept_first() {
        let geometry = Sample::default().request(20.0, 2).geometry;
        // Every head's first n tokens are worth 1/n each, the others nothing.
        let needs = [2, 4, 10, 20, 50, 100];
        let utilities: Vec<Points> = needs.iter().map(|&n| vec![(n, 1.0), (101, 1.0)]).collect();
        let curve = utility_budgets(&geometry, &utilities, 101, Floor::of(0, 1)).unwrap();
        // 6 % of 6 · 101 are 36 tokens: 2, 4, 10 and, of those that are worth least, the rest.
        let kept = |percent: usize| -> Vec<usize> {
            let rows = curve.at(percent).unwrap().concat();
            rows.iter()
                .map(|pruned| ((1.0 - pruned) * 101.0).round() as usize)
                .collect()
        };
        assert_eq!(kept(94), [2, 4, 10, 18, 1, 1]);
        let all = kept(50);
        assert_eq!(all.iter().sum::<usize>(), 303);
        assert!(all[4] >= 50 && all[5] >= 100, "{all:?}");
        // Below the floor of 2 each nothing is chosen.
        let floor = Floor::of(0, 2);
        let even = utility_budgets(&geometry, &utilities, 101, floor).unwrap();
        let least = even.at(99).unwrap().concat();
        assert!(least.iter().all(|pruned| (1.0 - pruned) * 101.0 < 2.0));
        assert!(utility_budgets(&geometry, &utilities[..5], 101, floor).is_err());
    }
}
