//! A profile's curves averaged for display: one line per layer over a common grid of budgets.

use std::collections::BTreeMap;

use super::over_prompts::mean;
use super::profiles::{finite, no_prompts};
use crate::error::Result;
use crate::profile::Profile;

/// Curves per layer over the budgets of the shortest prompt.
#[derive(Debug, PartialEq)]
pub(super) struct LayerCurves {
    /// Budgets in tokens per head, ascending.
    pub(super) budgets: Vec<f64>,
    /// Retained mass in per cent, `[layer][budget]`: mean over query heads and prompts.
    pub(super) mass: Vec<Vec<f64>>,
    /// 1 − cos of the layer's output, `[layer][budget]`: mean over prompts.
    pub(super) loss: Vec<Vec<f64>>,
}

/// One prompt's curves of one layer: budget to sums over heads of mass and loss, and their number.
type Sums = BTreeMap<u32, [f64; 3]>;

impl LayerCurves {
    /// Reads the curves of `query`; `raw` takes the outputs of probabilities that are not renormalised.
    ///
    /// Errors: [`crate::error::Error::UnknownName`] for a missing column,
    /// [`crate::error::Error::NotFinite`], [`crate::error::Error::Invalid`] for no prompt.
    pub(super) fn read(profile: &Profile, query: &str, raw: bool) -> Result<Self> {
        let prompts = sums(profile, query, raw)?;
        let shortest = prompts.values().min_by_key(|(tokens, _)| *tokens);
        let (_, layers) = shortest.ok_or_else(|| no_prompts(profile))?;
        let grid: Vec<u32> = layers
            .iter()
            .find(|l| !l.is_empty())
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        let over_prompts = |layer: usize, which: usize| -> Vec<f64> {
            let at = |&budget: &u32| {
                let values: Vec<f64> = prompts
                    .values()
                    .filter_map(|(_, layers)| interpolated(layers.get(layer)?, budget, which))
                    .collect();
                mean(&values)
            };
            grid.iter().map(at).collect()
        };
        let count = profile.meta.model.num_layers;
        Ok(Self {
            mass: (0..count)
                .map(|l| over_prompts(l, 0).iter().map(|m| 100.0 * m).collect())
                .collect(),
            loss: (0..count).map(|l| over_prompts(l, 1)).collect(),
            budgets: grid.into_iter().map(f64::from).collect(),
        })
    }
}

/// Every prompt's length and curves, `[layer]`.
fn sums(profile: &Profile, query: &str, raw: bool) -> Result<BTreeMap<u32, (u32, Vec<Sums>)>> {
    let table = &profile.curves;
    let cos_column = format!("cos_{}{query}", if raw { "raw_" } else { "" });
    let mass_column = format!("mass_{query}");
    let (prompt, tokens) = (table.counts("prompt")?, table.counts("tokens")?);
    let (layer, budget) = (table.counts("layer")?, table.counts("budget")?);
    let (mass, cos) = (table.numbers(&mass_column)?, table.numbers(&cos_column)?);
    let mut prompts: BTreeMap<u32, (u32, Vec<Sums>)> = BTreeMap::new();
    let rows = prompt
        .iter()
        .zip(tokens)
        .zip(layer)
        .zip(budget)
        .zip(mass)
        .zip(cos);
    for (((((prompt, &tokens), &layer), &budget), mass), cos) in rows {
        finite(profile, &mass_column, mass)?;
        finite(profile, &cos_column, cos)?;
        let (_, layers) = prompts
            .entry(*prompt)
            .or_insert_with(|| (tokens, vec![Sums::new(); profile.meta.model.num_layers]));
        let Some(curve) = layers.get_mut(layer as usize) else {
            continue;
        };
        let sum = curve.entry(budget).or_default();
        *sum = [sum[0] + mass, sum[1] + (1.0 - cos), sum[2] + 1.0];
    }
    Ok(prompts)
}

/// Mean over heads at `budget`, linear in the logarithm of the budget between those measured.
fn interpolated(curve: &Sums, budget: u32, which: usize) -> Option<f64> {
    let value = |sum: &[f64; 3]| sum[which] / sum[2];
    let (below, a) = curve.range(..=budget).next_back()?;
    let (above, b) = curve.range(budget..).next().unwrap_or((below, a));
    if below == above {
        return Some(value(a));
    }
    let place = |b: u32| f64::from(b.max(1)).ln();
    let share = (place(budget) - place(*below)) / (place(*above) - place(*below));
    Some(value(a) + (value(b) - value(a)) * share)
}

/// The pieces of a curve that lie above `floor`, cut where it crosses on logarithmic axes.
pub(super) fn visible(budgets: &[f64], values: &[f64], floor: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut piece = Vec::new();
    let mut previous: Option<(f64, f64)> = None;
    for point in budgets.iter().copied().zip(values.iter().copied()) {
        let above = point.1 >= floor;
        if let Some(before) = previous.filter(|before| (before.1 >= floor) != above) {
            piece.push(crossing(before, point, floor));
        }
        if above {
            piece.push(point);
        } else {
            pieces.push(std::mem::take(&mut piece));
        }
        previous = Some(point);
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Where the line from `a` to `b` meets `floor`; what is 0 or less counts as a thousandth of the floor.
fn crossing(a: (f64, f64), b: (f64, f64), floor: f64) -> (f64, f64) {
    let place = |v: f64| v.max(floor * 1e-3).ln();
    let share = (floor.ln() - place(a.1)) / (place(b.1) - place(a.1));
    ((a.0.ln() + (b.0.ln() - a.0.ln()) * share).exp(), floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn budgets_between_are_interpolated_in_the_logarithm() {
        let curve = Sums::from([(1, [0.0, 2.0, 2.0]), (16, [2.0, 4.0, 2.0])]);
        assert_relative_eq!(interpolated(&curve, 4, 0).unwrap(), 0.5);
        assert_relative_eq!(interpolated(&curve, 16, 1).unwrap(), 2.0);
        assert_relative_eq!(interpolated(&curve, 99, 0).unwrap(), 1.0);
        assert_eq!(interpolated(&Sums::new(), 1, 0), None);
    }

    #[test]
    fn curves_leave_the_panel_at_its_floor() {
        let pieces = visible(&[1.0, 100.0], &[1.0, 1e-4], 1e-2);
        assert_eq!(pieces.len(), 1);
        assert_relative_eq!(pieces[0][1].0, 10.0, max_relative = 1e-12);
        assert_eq!(pieces[0][1].1, 1e-2);
        let pieces = visible(&[1.0, 2.0, 4.0], &[1.0, 0.0, 1.0], 1e-2);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert!(visible(&[1.0], &[0.0], 1e-4).is_empty());
    }
}
