//! Budgets in proportion to what the layers need.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::measured::{attention_budgets, shares};
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{BudgetMeasure, Needs, Query};
use crate::registry::{Entry, described, parse};

/// B·L·u_l with u_l = LMBA_l / Σ LMBA.
///
/// Paper: arXiv:2412.09036 (ZigZagKV), the proportional rule that it improves on.
/// Differs: a layer that would fall below the floor (sinks + window) gets the floor, and the others share
/// the rest in the same proportions; by head, u is that of the MBA of KV heads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proportional {
    /// Whose attention.
    pub query: Query,
    /// Retained mass τ of the minimum budgets; one that was measured.
    pub threshold: f64,
}

impl Default for Proportional {
    fn default() -> Self {
        Self {
            query: Query::Pooled,
            threshold: 0.9,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "proportional",
    paper: "arXiv:2412.09036 (ZigZagKV), the rule before its lower bound",
    about: "in proportion to the minimum attention budgets (LMBA; by head, MBA of KV heads)",
    differs: "a layer that would fall below sinks and window gets those, and the others share the rest",
    build: |p| Ok(Box::new(parse::<Proportional>(p)?)),
};

impl Proportional {
    fn measure(&self, granularity: Granularity) -> BudgetMeasure {
        attention_budgets(self.query, self.threshold, granularity)
    }
}

impl Allocator for Proportional {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        Ok(self.measure(granularity).into())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        let shares = shares(request, &self.measure(request.granularity))?;
        let total = request.per_head() * shares.len() as f64;
        Ok(request.targets(raised(&shares, total, request.lowest() as f64)))
    }
}

/// `total` by shares, none below `floor`: the least factor that the others' shares are multiplied with.
fn raised(shares: &[f64], total: f64, floor: f64) -> Vec<f64> {
    let mut low = vec![false; shares.len()];
    loop {
        let lifted = low.iter().filter(|l| **l).count() as f64;
        let open = shares.iter().zip(&low).filter(|(_, low)| !**low);
        let sum: f64 = open.map(|(share, _)| share).sum();
        let factor = if sum > 0.0 {
            ((total - floor * lifted) / sum).max(0.0)
        } else {
            0.0
        };
        let mut changed = false;
        for (share, low) in shares.iter().zip(&mut low) {
            if !*low && share * factor < floor {
                *low = true;
                changed = true;
            }
        }
        if !changed {
            let token = |(share, low): (&f64, &bool)| if *low { floor } else { share * factor };
            return shares.iter().zip(&low).map(token).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};
    use crate::budget::{Granularity, Request};

    #[test]
    fn layers_by_hand() {
        // LMBA 10, 30, 60; 3 layers x 2 KV heads x 20 = 120 tokens: 6, 18, 36 per head.
        let sample = Sample::default();
        let tokens = allocated(&Proportional::default(), &sample.request(20.0, 2));
        assert_eq!(tokens, [[6, 6], [18, 18], [36, 36]]);
    }

    #[test]
    fn a_layer_below_the_floor_gets_the_floor() {
        // 6 < 9: the others share 120 - 18 = 102 by 1:2, 17 and 34 per head.
        let sample = Sample::default();
        let tokens = allocated(&Proportional::default(), &sample.request(20.0, 9));
        assert_eq!(tokens, [[9, 9], [17, 17], [34, 34]]);
        assert_eq!(raised(&[0.0, 0.0], 4.0, 3.0), [3.0, 3.0]);
    }

    #[test]
    fn heads_by_hand() {
        // MBA of KV heads 8, 12 | 20, 40 | 60, 60: sum 200; 120 tokens.
        let sample = Sample::default();
        let request = sample.request(20.0, 2).by(Granularity::Head);
        let tokens = allocated(&Proportional::default(), &request);
        assert_eq!(tokens, [[5, 7], [12, 24], [36, 36]]);
    }

    #[test]
    fn prompts_of_different_lengths_weigh_the_same() {
        // LMBA/T: (0.1, 0.3, 0.6) of the 100-token prompt, (0.3, 0.3, 0.4) of the 1000-token one.
        let mut sample = Sample::default();
        sample.prompts.push((1000, vec![300.0, 300.0, 400.0]));
        let tokens = allocated(&Proportional::default(), &sample.request(20.0, 2));
        assert_eq!(tokens, [[12, 12], [18, 18], [30, 30]]);
    }

    #[test]
    fn what_was_not_measured_is_refused() {
        let sample = Sample::default();
        let rule = Proportional {
            threshold: 0.87,
            ..Proportional::default()
        };
        let text = rule
            .targets(&sample.request(20.0, 2))
            .unwrap_err()
            .to_string();
        assert!(text.contains("0.87") && text.contains("0.9"), "{text}");
        let blind = Request {
            measures: None,
            ..sample.request(20.0, 2)
        };
        let text = Proportional::default()
            .targets(&blind)
            .unwrap_err()
            .to_string();
        assert!(text.contains("--profile"), "{text}");
    }
}
