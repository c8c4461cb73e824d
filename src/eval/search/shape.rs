//! Plans that a search tries: the shares of one plan, multiplied by a factor for every group of layers.

use crate::budget::BudgetPlan;
use crate::error::{Error, Result};

/// Neighbouring layers in groups, as equal in number as they can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerGroups {
    /// The group of every layer; none for layers that take no part in the budget.
    of_layers: Vec<Option<usize>>,
    groups: usize,
}

impl LayerGroups {
    /// Groups the layers of a plan that take part in its budget.
    ///
    /// Errors: [`Error::Invalid`] for fewer than two groups, or more than there are such layers.
    pub fn of(plan: &BudgetPlan, groups: usize) -> Result<Self> {
        let layers = 0..plan.geometry.layers;
        let parts: Vec<usize> = layers.clone().filter(|l| plan.takes_part(*l)).collect();
        if groups < 2 || groups > parts.len() {
            let bound = format!(
                "between 2 and {} are needed, the layers that take part in the budget",
                parts.len()
            );
            return Err(Error::invalid("groups of layers", groups, bound));
        }
        let group = |layer: usize| {
            let place = parts.iter().position(|part| *part == layer)?;
            Some(place * groups / parts.len())
        };
        Ok(Self {
            of_layers: layers.map(group).collect(),
            groups,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.groups
    }

    /// The plan whose shares are multiplied by e^`logs`, one per group, at the same total.
    ///
    /// Errors: those of [`BudgetPlan::with_shares`].
    pub fn scaled(&self, plan: &BudgetPlan, logs: &[f64]) -> Result<BudgetPlan> {
        let layers = plan.shares.iter().zip(&self.of_layers);
        let shares = layers.map(|(shares, group)| {
            let factor = group.map_or(1.0, |group| logs[group].exp());
            shares.iter().map(|share| share * factor).collect()
        });
        plan.with_shares(shares.collect())
    }
}
