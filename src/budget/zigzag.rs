//! ZigZagKV: a lower bound for every layer, the rest by uncertainty.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::amount::Budget;
use super::geometry::Granularity;
use super::measured::{attention_budgets, shares};
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::{Error, Result};
use crate::profile::{BudgetMeasure, Needs, Query};
use crate::registry::{Entry, described, parse};

/// B_min + (B − B_min)·L·u_l with u_l = LMBA_l / Σ LMBA.
///
/// Paper: arXiv:2412.09036 Eq. 4-6. Differs: the paper's B_min is not public; here it is
/// max(0.2·B, sinks + window + 1), or the parameter `floor`. By head, u is that of the MBA of KV heads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZigZag {
    /// Whose attention.
    pub query: Query,
    /// Retained mass τ of the minimum budgets; one that was measured.
    pub threshold: f64,
    /// B_min in tokens (`40`) or as a share of B (`"20%"`); `null` for the default.
    pub floor: Option<LowerBound>,
}

impl Default for ZigZag {
    fn default() -> Self {
        Self {
            query: Query::Pooled,
            threshold: 0.9,
            floor: None,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "zigzag",
    paper: "arXiv:2412.09036 Eq. 4-6 (ZigZagKV)",
    about: "a lower bound for every layer, the rest in proportion to LMBA (by head, to MBA)",
    differs: "the lower bound, which is not public, is the larger of 20 % of the budget and sinks + window + 1",
    build: |p| Ok(Box::new(parse::<ZigZag>(p)?)),
};

impl Bounded for ZigZag {
    fn measure(&self, granularity: Granularity) -> Result<BudgetMeasure> {
        Ok(attention_budgets(self.query, self.threshold, granularity))
    }

    fn bound(&self) -> Option<LowerBound> {
        self.floor
    }
}

/// A rule that gives every KV head a lower bound, and the rest by shares of a measure.
pub(super) trait Bounded: fmt::Debug + Serialize + Send + Sync {
    /// The minimum budgets that the rest is in proportion to.
    fn measure(&self, granularity: Granularity) -> Result<BudgetMeasure>;

    /// B_min; `None` for the default.
    fn bound(&self) -> Option<LowerBound>;
}

impl<B: Bounded> Allocator for B {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        Ok(self.measure(granularity)?.into())
    }

    fn lowest(&self, request: &Request<'_>) -> Result<f64> {
        Ok(lower_bound(request, self.bound())?.min(request.tokens as f64))
    }

    fn check_budget(&self, request: &Request<'_>) -> Result<()> {
        request.check()?;
        // In the order in which an allocation comes upon them, for one message.
        bounded(request, &[], self.bound())?;
        request.check_floor()
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        let shares = shares(request, &self.measure(request.granularity)?)?;
        bounded(request, &shares, self.bound())
    }
}

/// B_min, as a number of tokens or a share of B.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum LowerBound {
    /// Tokens per KV head.
    Tokens(f64),
    /// Share of B, 0 to 1.
    OfBudget(f64),
}

impl TryFrom<Value> for LowerBound {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = match &value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        let share = text
            .strip_suffix('%')
            .map(|percent| format!("{percent}e-2"));
        let number = share.as_deref().unwrap_or(&text).parse::<f64>();
        match (number, share.is_some()) {
            (Ok(x), true) if (0.0..=1.0).contains(&x) => Ok(Self::OfBudget(x)),
            (Ok(x), false) if x.is_finite() && x >= 0.0 => Ok(Self::Tokens(x)),
            _ => Err(format!(
                "floor is {value}, but tokens (40) or a share of the budget up to 100% (\"20%\") is expected"
            )),
        }
    }
}

impl From<LowerBound> for Value {
    fn from(bound: LowerBound) -> Self {
        match bound {
            LowerBound::Tokens(tokens) => tokens.into(),
            LowerBound::OfBudget(share) => Budget::RetainedFraction(share).to_string().into(),
        }
    }
}

/// B_min in tokens per KV head.
///
/// Errors: [`Error::Invalid`] for one that sinks and window do not fit under.
fn lower_bound(request: &Request<'_>, floor: Option<LowerBound>) -> Result<f64> {
    let b = request.per_head();
    let reserved = request.floor.tokens as f64;
    let bound = match floor {
        None => (0.2 * b).max(reserved + 1.0),
        Some(LowerBound::Tokens(tokens)) => tokens,
        Some(LowerBound::OfBudget(share)) => share * b,
    };
    if bound >= reserved {
        return Ok(bound);
    }
    let advice = format!(
        "sinks {} + window {} (at least {reserved} tokens) must fit: raise the floor to {reserved}",
        request.floor.sinks, request.floor.window
    );
    let value = format!("{} tokens", readable_number(bound));
    Err(Error::invalid("floor of the strategy", value, advice))
}

/// B_min + (B − B_min)·n·u_i for the n KV heads, u summing to 1.
fn bounded(request: &Request<'_>, shares: &[f64], floor: Option<LowerBound>) -> Result<Targets> {
    let b = request.per_head();
    let bound = lower_bound(request, floor)?;
    // A prompt shorter than the bound is kept whole.
    let reachable = bound.min(request.tokens as f64);
    if reachable > b {
        let advice = format!(
            "the floor is {} tokens per KV head: raise the budget to it, or lower floor, \
             sinks or window",
            readable_number(reachable)
        );
        let budget = format!("{} tokens per KV head", readable_number(b));
        return Err(Error::invalid("budget", budget, advice));
    }
    let rest = (b - reachable) * shares.len() as f64;
    Ok(Targets {
        floor: bound as usize,
        tokens: shares.iter().map(|u| reachable + rest * u).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Granularity;
    use crate::budget::sample::{Sample, allocated};
    use serde_json::json;

    fn rule(floor: Value) -> ZigZag {
        parse(json!({ "floor": floor })).unwrap()
    }

    #[test]
    fn layers_by_hand() {
        // LMBA 10, 30, 60: u = 0.1, 0.3, 0.6. B = 20, B_min = 5: 5 + 15·3·u = 9.5, 18.5, 32.
        let sample = Sample::default();
        let tokens = allocated(&rule(json!(5)), &sample.request(20.0, 2));
        assert_eq!(tokens, [[10, 10], [18, 18], [32, 32]]);
        // The same bound as a share of B.
        assert_eq!(
            tokens,
            allocated(&rule(json!("25%")), &sample.request(20.0, 2))
        );
    }

    #[test]
    fn the_bound_is_a_fifth_of_the_budget_or_just_above_sinks_and_window() {
        let sample = Sample::default();
        // 0.2·B = 4 > 2 + 1: 4 + 16·3·u = 8.8, 18.4, 32.8; 106 whole, 14 left: three remainders of two
        // heads each (0.8, 0.8, 0.4) and 120 tokens.
        let tokens = allocated(&ZigZag::default(), &sample.request(20.0, 2));
        assert_eq!(tokens, [[9, 9], [18, 18], [33, 33]]);
        // 0.2·B = 4 < 9 + 1: 10 + 10·3·u = 13, 19, 28.
        let tokens = allocated(&ZigZag::default(), &sample.request(20.0, 9));
        assert_eq!(tokens, [[13, 13], [19, 19], [28, 28]]);
    }

    #[test]
    fn a_bound_that_is_not_whole_is_not_rounded() {
        // B_min = 4.5: 4.5 + 15.5·3·u = 9.15, 18.45, 32.4.
        let sample = Sample::default();
        let targets = rule(json!(4.5)).targets(&sample.request(20.0, 2)).unwrap();
        assert_eq!(targets.floor, 4);
        for (got, want) in targets
            .tokens
            .iter()
            .zip([9.15, 9.15, 18.45, 18.45, 32.4, 32.4])
        {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn heads_by_hand() {
        // MBA of KV heads 8, 12 | 20, 40 | 60, 60, sum 200; B_min = 5: 5 + 90·u.
        let sample = Sample::default();
        let request = sample.request(20.0, 2).by(Granularity::Head);
        let tokens = allocated(&rule(json!(5)), &request);
        // 8.6, 10.4, 14, 23, 32, 32.
        assert_eq!(tokens, [[9, 10], [14, 23], [32, 32]]);
    }

    #[test]
    fn impossible_bounds_are_refused_with_both_numbers() {
        let sample = Sample::default();
        let refused = |rule: ZigZag, b, floor| {
            let request = sample.request(b, floor);
            rule.targets(&request).unwrap_err().to_string()
        };
        let text = refused(rule(json!(21)), 20.0, 2);
        assert!(
            text.contains("20 tokens") && text.contains("floor is 21"),
            "{text}"
        );
        let text = refused(rule(json!(1)), 20.0, 2);
        assert!(
            text.contains("1 tokens") && text.contains("raise the floor to 2"),
            "{text}"
        );
        let text = refused(ZigZag::default(), 20.0, 20);
        assert!(text.contains("floor is 21"), "{text}");
        for bad in [
            json!("a lot"),
            json!(-1),
            json!("120%"),
            json!([1]),
            json!("1e999"),
        ] {
            assert!(parse::<ZigZag>(json!({ "floor": bad })).is_err());
        }
    }

    #[test]
    fn parameters_read_back_as_they_are_kept() {
        for floor in [json!(40.0), json!("20%"), json!("0.7%"), Value::Null] {
            let kept = rule(floor.clone()).parameters();
            assert_eq!(kept["floor"], floor);
            assert_eq!(parse::<ZigZag>(kept.clone()).unwrap().parameters(), kept);
        }
    }
}
