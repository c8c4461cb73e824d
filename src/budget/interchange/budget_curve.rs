//! LU-KV's budget curve: the fraction to prune in every KV head, for 99 global ratios.

use std::path::Path;

use serde_json::json;

use super::npy::{read_npy, write_npy};
use crate::budget::{
    Budget, BudgetPlan, Floor, Granularity, Provenance, Request, Targets, TokenBudgets, fit,
};
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
        let mut curve = Self {
            layers: 0,
            kv_heads: 0,
            pruned: Vec::new(),
        };
        for percent in 1..=GLOBAL_RATIOS {
            let budgets = kept(percent)?;
            let shape = (budgets.len(), budgets.first().map_or(0, Vec::len));
            if percent == 1 {
                (curve.layers, curve.kv_heads) = shape;
            }
            let even = budgets.iter().all(|layer| layer.len() == curve.kv_heads);
            if !even || shape != (curve.layers, curve.kv_heads) {
                let bound = "every global ratio needs the same layers and KV heads";
                return Err(Error::invalid(
                    "shape of the budgets",
                    format!("{shape:?}"),
                    bound,
                ));
            }
            for &b in budgets.iter().flatten() {
                if b > tokens {
                    let bound = format!("the prompt has {tokens} tokens");
                    return Err(Error::invalid("budget of a KV head", b, bound));
                }
                curve.pruned.push(1.0 - b as f64 / tokens.max(1) as f64);
            }
        }
        Ok(curve)
    }

    /// A plan's shares at every global ratio, for a prompt of `tokens`.
    ///
    /// A ratio that leaves less than the plan's floor spreads what it leaves evenly, since a budget below
    /// sinks and window has nothing to spread by. For strategies that solve for one budget, allocate every
    /// ratio by itself with [`Self::of_tokens`].
    ///
    /// Errors: those of [`fit()`].
    pub fn of_plan(plan: &BudgetPlan, tokens: usize) -> Result<Self> {
        Self::of_tokens(tokens, |percent| {
            // Written as a decimal, so that 7 % kept is 0.07 and not 1 - 0.93.
            let budget: Budget = format!("{}%", 100 - percent).parse()?;
            let cells = plan.geometry.cells();
            let lowest = plan.floor.min(tokens);
            if budget.total(cells, tokens) >= lowest * cells {
                return fit(&plan.shares, budget, &plan.floor(), tokens);
            }
            let equal = vec![vec![1.0; plan.geometry.kv_heads]; plan.geometry.layers];
            fit(&equal, budget, &Floor::of(0, 0), tokens)
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
        Ok(row
            .chunks(self.kv_heads.max(1))
            .map(<[f64]>::to_vec)
            .collect())
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
            let problem = format!("holds {bad}; a prune ratio is the fraction removed, 0 to 1");
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
    /// the cost of the others in proportion.
    ///
    /// Errors: [`Error::Invalid`] for another geometry, a percentage that is not there, and a budget below
    /// the floor.
    pub fn plan(
        &self,
        percent: usize,
        request: &Request<'_>,
        provenance: Provenance,
    ) -> Result<BudgetPlan> {
        let geometry = &request.geometry;
        if self.shape() != (geometry.layers, geometry.kv_heads) {
            let found = format!("{} layers of {} KV heads", self.layers, self.kv_heads);
            let bound = format!("the model has {}", geometry.numbers());
            return Err(Error::invalid("shape of the budget curve", found, bound));
        }
        let kept = |p: f64| (1.0 - p) * request.tokens as f64;
        let tokens: Vec<f64> = self.at(percent)?.concat().into_iter().map(kept).collect();
        let total = tokens.iter().sum::<f64>().round() as usize;
        let request = Request {
            budget: Budget::of_total(total, geometry.cells()),
            granularity: Granularity::Head,
            ..request.clone()
        };
        let targets = Targets {
            floor: request.floor.tokens,
            tokens,
        };
        let parameters = json!({ "global_ratio_percent": percent });
        BudgetPlan::of_targets("lu-kv", parameters, &request, &targets, provenance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;

    fn plan(floor: usize) -> (BudgetPlan, Request<'static>) {
        let request = Sample::default().request(20.0, floor).by(Granularity::Head);
        let plan = BudgetPlan::allocate("proportional", json!({}), &request, Provenance::default());
        (plan.unwrap(), request)
    }

    #[test]
    fn entries_are_fractions_removed_at_each_global_ratio() {
        let (plan, _) = plan(2);
        let curve = BudgetCurve::of_plan(&plan, 100).unwrap();
        assert_eq!(curve.shape(), (3, 2));
        // 80 % removed is the plan's own budget of 20 of 100 tokens.
        let kept = |percent| -> Vec<usize> {
            let row = curve.at(percent).unwrap().concat();
            row.iter()
                .map(|p| ((1.0 - p) * 100.0).round() as usize)
                .collect()
        };
        assert_eq!(kept(80), plan.tokens.concat());
        for percent in 1..=99 {
            assert_eq!(kept(percent).iter().sum::<usize>(), (100 - percent) * 6);
        }
        assert_eq!(kept(99), [1; 6], "below the floor of 2");
        assert!(curve.at(0).is_err() && curve.at(100).is_err());
    }

    #[test]
    fn a_plan_survives_the_journey() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.npy");
        let (plan, request) = plan(2);
        BudgetCurve::of_plan(&plan, 100)
            .unwrap()
            .write(&path)
            .unwrap();
        let curve = BudgetCurve::read(&path).unwrap();
        let back = curve.plan(80, &request, Provenance::default()).unwrap();
        assert_eq!(back.tokens, plan.tokens);
        let high = Request {
            floor: Floor::of(0, 30),
            ..request
        };
        assert!(curve.plan(80, &high, Provenance::default()).is_err());
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
        let (_, request) = plan(2);
        let curve = BudgetCurve::read(&path).unwrap();
        let text = curve
            .plan(50, &request, Provenance::default())
            .unwrap_err()
            .to_string();
        assert!(text.contains("1 layers of 1 KV heads"), "{text}");
    }
}
