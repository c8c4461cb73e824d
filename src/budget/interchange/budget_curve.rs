//! LU-KV's budget curve: the fraction to prune in every KV head, for 99 global ratios.

use std::path::Path;

use serde_json::json;

use super::npy::{read_npy, write_npy};
use crate::budget::readable_number::readable_number;
use crate::budget::{Budget, BudgetPlan, Granularity, Provenance, Request, TokenBudgets};
use crate::error::{Error, Result};

/// Global ratios 0.01, 0.02, .. 0.99 of the file's first axis.
pub const GLOBAL_RATIOS: usize = 99;

/// How far a prune ratio may be outside 0 to 1 and still be the rounding of a float.
const SLACK: f64 = 1e-6;

/// Fractions to prune, `[global ratio][layer][kv_head]`.
///
/// Paper: arXiv:2602.08585 (LU-KV); the `.npy` that kvpress's `LUKVPress` loads. Entry r − 1 of the first
/// axis is for a global ratio of r %: the fraction of all tokens that is removed.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetCurve {
    layers: usize,
    kv_heads: usize,
    pruned: Vec<f64>,
}

impl BudgetCurve {
    /// The curve of token budgets for a prompt of `tokens`, asked for every global ratio in per cent.
    ///
    /// Errors: those of `kept`; [`Error::Invalid`] for budgets of changing shape or above the prompt.
    pub fn of_tokens(
        tokens: usize,
        mut kept: impl FnMut(usize) -> Result<TokenBudgets>,
    ) -> Result<Self> {
        let mut pruned = Vec::new();
        let mut first = None;
        for percent in 1..=GLOBAL_RATIOS {
            let budgets = kept(percent)?;
            let shape = (budgets.len(), budgets.first().map_or(0, Vec::len));
            let even = budgets.iter().all(|layer| layer.len() == shape.1);
            if !even || shape != *first.get_or_insert(shape) {
                let (what, shape) = ("shape of the budgets", format!("{shape:?}"));
                let bound = "every global ratio needs the same layers and KV heads";
                return Err(Error::invalid(what, shape, bound));
            }
            if let Some(b) = budgets.iter().flatten().find(|b| **b > tokens) {
                let bound = format!("the prompt has {tokens} tokens");
                return Err(Error::invalid("budget of a KV head", b, bound));
            }
            let removed = |&b: &usize| 1.0 - b as f64 / tokens.max(1) as f64;
            pruned.extend(budgets.iter().flatten().map(removed));
        }
        let (layers, kv_heads) = first.unwrap_or_default();
        Ok(Self {
            layers,
            kv_heads,
            pruned,
        })
    }

    /// Prune ratios `[layer][kv_head]` at a global ratio of `percent`, 1 to 99.
    ///
    /// Errors: [`Error::Invalid`] for another percentage.
    pub fn at(&self, percent: usize) -> Result<Vec<Vec<f64>>> {
        if !(1..=GLOBAL_RATIOS).contains(&percent) {
            let bound = format!("the curve has 1% to {GLOBAL_RATIOS}% removed");
            return Err(Error::invalid("global ratio", format!("{percent}%"), bound));
        }
        let cells = self.layers * self.kv_heads;
        let row = &self.pruned[(percent - 1) * cells..percent * cells];
        let layers = row.chunks(self.kv_heads.max(1));
        Ok(layers.map(<[f64]>::to_vec).collect())
    }

    /// L and H_kv.
    pub fn shape(&self) -> (usize, usize) {
        (self.layers, self.kv_heads)
    }

    /// Reads a `.npy` of shape `[99, L, H_kv]`.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for another shape, and for what is no fraction.
    pub fn read(path: &Path) -> Result<Self> {
        let (shape, mut pruned) = read_npy(path)?;
        let [GLOBAL_RATIOS, layers, kv_heads] = shape[..] else {
            let problem =
                format!("has the shape {shape:?}; a budget curve is [99, layers, KV heads]");
            return Err(Error::format(path, problem));
        };
        let sound = |p: &f64| (-SLACK..=1.0 + SLACK).contains(p);
        if let Some(bad) = pruned.iter().find(|p| !sound(p)) {
            let problem = format!(
                "holds {}; a prune ratio is the fraction removed, 0 to 1",
                readable_number(*bad)
            );
            return Err(Error::format(path, problem));
        }
        pruned.iter_mut().for_each(|p| *p = p.clamp(0.0, 1.0));
        Ok(Self {
            layers,
            kv_heads,
            pruned,
        })
    }

    /// Writes the curve as 64-bit floats.
    ///
    /// Errors: [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let shape = [GLOBAL_RATIOS, self.layers, self.kv_heads];
        write_npy(path, &shape, &self.pruned)
    }

    /// The plan of one global ratio, for a prompt as long as the request's.
    ///
    /// The request's budget is replaced by the one that the ratios amount to, rounded to whole tokens over
    /// all KV heads; LU-KV rounds within each layer. Heads below the request's floor are raised to it, at
    /// the cost of the others in proportion; [`Self::heads_below_floor`] counts them.
    ///
    /// Errors: [`Error::Invalid`] for another geometry, a percentage that is not there, ratios that amount to
    /// another one, and a budget below the floor.
    pub fn plan(
        &self,
        percent: usize,
        request: &Request<'_>,
        provenance: Provenance,
    ) -> Result<BudgetPlan> {
        request.geometry.refuse_windows("LU-KV's curve of")?;
        let tokens = self.ideal_tokens(percent, request)?;
        check_removed(percent, &tokens, request.tokens)?;
        let total = tokens.iter().sum::<f64>().round() as usize;
        let request = Request {
            budget: Budget::of_total(total, request.geometry.cells()),
            granularity: Granularity::Head,
            ..request.clone()
        };
        let targets = request.targets(tokens);
        let parameters = json!({ "global_ratio_percent": percent });
        BudgetPlan::of_targets("lu-kv", parameters, &request, &targets, provenance)
    }

    /// How many KV heads keep less than the request's floor at a global ratio, and are raised by [`Self::plan`].
    ///
    /// Errors: [`Error::Invalid`] for another geometry and a percentage that is not there.
    pub fn heads_below_floor(&self, percent: usize, request: &Request<'_>) -> Result<usize> {
        let floor = request.lowest() as f64 - SLACK * request.tokens as f64;
        let tokens = self.ideal_tokens(percent, request)?;
        Ok(tokens.into_iter().filter(|&kept| kept < floor).count())
    }

    /// What the ratios leave of the request's prompt, in layer order and not rounded.
    fn ideal_tokens(&self, percent: usize, request: &Request<'_>) -> Result<Vec<f64>> {
        request.check()?;
        let geometry = &request.geometry;
        if self.shape() != (geometry.layers, geometry.kv_heads) {
            let found = format!("{} layers of {} KV heads", self.layers, self.kv_heads);
            let bound = format!("the model has {}", geometry.numbers());
            return Err(Error::invalid("shape of the budget curve", found, bound));
        }
        let kept = |p: f64| (1.0 - p) * request.tokens as f64;
        Ok(self.at(percent)?.concat().into_iter().map(kept).collect())
    }
}

/// Refuses ratios that remove another share than their place in the file says.
///
/// A row may be off by what rounding to whole tokens makes of it, and by a percentage point.
fn check_removed(percent: usize, kept: &[f64], tokens: usize) -> Result<()> {
    let all = (kept.len() * tokens) as f64;
    let removed = 1.0 - kept.iter().sum::<f64>() / all;
    let slack = 0.01f64.max(1.0 / all) + SLACK;
    if (removed - percent as f64 / 100.0).abs() <= slack {
        return Ok(());
    }
    let what = format!("mean of the ratios at {percent}% removed");
    let bound = format!(
        "{} is expected: entries are fractions REMOVED, and the first axis goes from 1% to 99% removed (of \
         fractions kept, convert 1 - array)",
        percent as f64 / 100.0
    );
    Err(Error::invalid(what, format!("{removed:.4}"), bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;

    /// Every row's heads keep so many tokens of 100, by the share that is removed.
    fn curve(kept: impl Fn(usize) -> [[usize; 2]; 3]) -> BudgetCurve {
        let rows = |percent| Ok(kept(percent).map(|layer| layer.to_vec()).to_vec());
        BudgetCurve::of_tokens(100, rows).unwrap()
    }

    fn request(floor: usize) -> Request<'static> {
        Sample::default().request(20.0, floor)
    }

    #[test]
    fn rows_are_plans() {
        let curve = curve(|percent| match percent {
            80 => [[10, 10], [20, 20], [20, 40]],
            _ => [[100 - percent; 2]; 3],
        });
        let plan = curve.plan(80, &request(2), Provenance::default()).unwrap();
        assert_eq!(plan.tokens, [[10, 10], [20, 20], [20, 40]]);
        assert_eq!(plan.budget, Budget::TokensPerHead(20.0));
        assert!(curve.plan(80, &request(30), Provenance::default()).is_err());
        assert!(curve.at(0).is_err() && curve.at(100).is_err());
    }

    #[test]
    fn heads_below_the_floor_are_counted_and_raised() {
        let curve = curve(|percent| match percent {
            80 => [[10, 11], [12, 20], [20, 47]],
            _ => [[100 - percent; 2]; 3],
        });
        let request = request(12);
        assert_eq!(curve.heads_below_floor(80, &request).unwrap(), 2);
        assert_eq!(curve.heads_below_floor(79, &request).unwrap(), 0);
        // 120 - 6 x 12 = 48 above the floor, by 8 : 8 : 35.
        let plan = curve.plan(80, &request, Provenance::default()).unwrap();
        assert_eq!(plan.tokens, [[12, 12], [12, 20], [19, 45]]);
    }

    #[test]
    fn rows_that_remove_another_share_are_refused() {
        let refused = |curve: &BudgetCurve, percent| {
            let plan = curve.plan(percent, &request(2), Provenance::default());
            plan.unwrap_err().to_string()
        };
        let reversed = curve(|percent| [[percent; 2]; 3]);
        let text = refused(&reversed, 88);
        assert!(
            text.contains("at 88% removed is 0.1200") && text.contains("0.88 is expected"),
            "{text}"
        );
        assert!(text.contains("fractions REMOVED"), "{text}");
        assert!(
            reversed
                .plan(50, &request(2), Provenance::default())
                .is_ok()
        );
        assert!(refused(&curve(|_| [[100; 2]; 3]), 88).contains("is 0.0000"));
        // A percentage point is within a tool's rounding, more is not.
        let off = |by: usize| curve(move |percent| [[(100 - percent + by).min(100); 2]; 3]);
        assert!(off(1).plan(50, &request(2), Provenance::default()).is_ok());
        assert!(refused(&off(2), 50).contains("is 0.4800"));
    }

    #[test]
    fn other_arrays_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.npy");
        write_npy(&path, &[98, 1, 1], &[0.5; 98]).unwrap();
        assert!(
            BudgetCurve::read(&path)
                .unwrap_err()
                .to_string()
                .contains("[99, layers")
        );
        for bad in [f64::NAN, -0.5, 1.5] {
            write_npy(&path, &[99, 1, 1], &[bad; 99]).unwrap();
            assert!(BudgetCurve::read(&path).is_err());
        }
        write_npy(&path, &[99, 1, 1], &[0.5; 99]).unwrap();
        let curve = BudgetCurve::read(&path).unwrap();
        let text = curve
            .plan(50, &request(2), Provenance::default())
            .unwrap_err()
            .to_string();
        assert!(text.contains("1 layers of 1 KV heads"), "{text}");
    }
}
