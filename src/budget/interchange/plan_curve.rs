//! A plan as a budget curve: its shares, or its strategy's own answer, at every global ratio.

use super::budget_curve::{BudgetCurve, GLOBAL_RATIOS};
use crate::budget::{
    ALLOCATORS, Allocator, Budget, BudgetPlan, Floor, Geometry, Measures, Provenance, Request,
    TokenBudgets, fit,
};
use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::registry;

/// A budget curve, and which of its rows are not the plan's.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanCurve {
    /// Prune ratios at all global ratios.
    pub curve: BudgetCurve,
    /// Rows that leave less than the floor, where there are any.
    pub even: Option<EvenRows>,
}

/// Rows that leave less than the floor: what they leave is spread evenly, since a file has a row for every ratio.
///
/// Units: per cent removed, tokens per KV head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvenRows {
    /// The first of them; it and all others up to [`GLOBAL_RATIOS`] are spread evenly.
    pub from_percent: usize,
    /// What every KV head keeps at least in the rows before.
    pub floor: f64,
}

/// The curve of a plan for a prompt of `tokens`.
///
/// Without a profile, a row has the plan's shares of what lies above its floor. With one, the plan's strategy
/// allocates anew for every row, above the plan's floor (a strategy that has a floor of its own, above that one):
/// strategies that solve for one budget need this. Rows that leave less than the floor are spread evenly.
///
/// Errors: [`Error::Invalid`] for a profile of another model, and naming the row for which nothing can be
/// allocated; those of the strategy.
pub fn plan_curve(
    plan: &BudgetPlan,
    profile: Option<&Profile>,
    tokens: usize,
) -> Result<PlanCurve> {
    plan.geometry.refuse_windows("LU-KV's curve of")?;
    let rows = Rows::of(plan, profile, tokens)?;
    let even = rows.even()?;
    let curve = BudgetCurve::of_tokens(tokens, |percent| {
        let kept = match even {
            Some(even) if percent >= even.from_percent => rows.evenly(percent),
            _ => rows.kept(percent),
        };
        kept.map_err(|error| of_row(percent, error))
    })?;
    Ok(PlanCurve { curve, even })
}

/// What makes rows.
struct Rows<'a> {
    plan: &'a BudgetPlan,
    anew: Option<(Measures, Box<dyn Allocator>)>,
    tokens: usize,
}

impl<'a> Rows<'a> {
    fn of(plan: &'a BudgetPlan, profile: Option<&Profile>, tokens: usize) -> Result<Self> {
        let mut anew = None;
        if let Some(profile) = profile {
            plan.check_geometry(&Geometry::of(&profile.meta))?;
            let parameters = plan.parameters.clone();
            let allocator = registry::build("strategy", ALLOCATORS, &plan.strategy, parameters)?;
            let needs = allocator.needs(plan.granularity)?;
            anew = Some((Measures::of_profile(profile, &needs)?, allocator));
        }
        Ok(Self { plan, anew, tokens })
    }

    /// The first row that leaves less than the floor; all that follow it leave still less.
    fn even(&self) -> Result<Option<EvenRows>> {
        for percent in 1..=GLOBAL_RATIOS {
            let request = self.request(percent)?;
            let floor = match &self.anew {
                Some((_, allocator)) => request.lowest_by(&**allocator),
                None => Ok(request.lowest() as f64),
            };
            let floor = floor.map_err(|error| of_row(percent, error))?;
            if request.per_head() < floor {
                return Ok(Some(EvenRows {
                    from_percent: percent,
                    floor,
                }));
            }
        }
        Ok(None)
    }

    /// What a row asks for.
    fn request(&self, percent: usize) -> Result<Request<'_>> {
        let plan = self.plan;
        // Written as a decimal, so that 7 % kept is 0.07 and not 1 - 0.93.
        let budget: Budget = format!("{}%", 100 - percent).parse()?;
        let floor = match &self.anew {
            Some((_, allocator)) if allocator.has_floor() => Floor {
                whole_windows: plan.whole_windows,
                ..Floor::of(plan.sinks, plan.window)
            },
            _ => plan.floor(),
        };
        let request = Request::of_model(plan.geometry.clone(), budget, floor, self.tokens);
        let request = Request {
            measures: self.anew.as_ref().map(|(measures, _)| measures),
            ..request.by(plan.granularity)
        };
        request.check()?;
        Ok(request)
    }

    fn kept(&self, percent: usize) -> Result<TokenBudgets> {
        let request = self.request(percent)?;
        let plan = self.plan;
        if self.anew.is_none() {
            return fit(&plan.shares, request.budget, &request.floor, request.room());
        }
        let (strategy, parameters) = (&plan.strategy, plan.parameters.clone());
        let made = BudgetPlan::allocate(strategy, parameters, &request, Provenance::default())?;
        Ok(made.tokens)
    }

    fn evenly(&self, percent: usize) -> Result<TokenBudgets> {
        let Geometry {
            layers, kv_heads, ..
        } = self.plan.geometry;
        let equal = vec![vec![1.0; kv_heads]; layers];
        let request = self.request(percent)?;
        fit(&equal, request.budget, &Floor::of(0, 0), request.room())
    }
}

/// The error of a row, which it names.
fn of_row(percent: usize, error: Error) -> Error {
    match error {
        Error::Invalid { what, value, bound } => Error::Invalid {
            what: format!("at {percent} % removed, the {what}"),
            value,
            bound,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Granularity;
    use crate::budget::sample::Sample;
    use serde_json::{Value, json};

    fn plan(strategy: &str, parameters: Value, request: &Request<'_>) -> BudgetPlan {
        BudgetPlan::allocate(strategy, parameters, request, Provenance::default()).unwrap()
    }

    fn kept(curve: &BudgetCurve, percent: usize) -> Vec<usize> {
        let row = curve.at(percent).unwrap().concat();
        row.iter()
            .map(|p| ((1.0 - p) * 100.0).round() as usize)
            .collect()
    }

    #[test]
    fn entries_are_fractions_removed_at_each_global_ratio() {
        let request = Sample::default().request(20.0, 2).by(Granularity::Head);
        let plan = plan("proportional", json!({}), &request);
        let PlanCurve { curve, even } = plan_curve(&plan, None, 100).unwrap();
        assert_eq!(curve.shape(), (3, 2));
        // 80 % removed is the plan's own budget of 20 of 100 tokens.
        assert_eq!(kept(&curve, 80), plan.tokens.concat());
        for percent in 1..=99 {
            assert_eq!(
                kept(&curve, percent).iter().sum::<usize>(),
                (100 - percent) * 6
            );
        }
        let of_one = EvenRows {
            from_percent: 99,
            floor: 2.0,
        };
        assert_eq!(even, Some(of_one));
        assert_eq!(kept(&curve, 99), [1; 6], "below the floor of 2");
    }

    #[test]
    fn a_plan_survives_the_journey() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.npy");
        let request = Sample::default().request(20.0, 2).by(Granularity::Head);
        let plan = plan("proportional", json!({}), &request);
        plan_curve(&plan, None, 100)
            .unwrap()
            .curve
            .write(&path)
            .unwrap();
        let curve = BudgetCurve::read(&path).unwrap();
        let back = curve.plan(80, &request, Provenance::default()).unwrap();
        assert_eq!(back.tokens, plan.tokens);
    }

    #[test]
    fn both_ways_keep_the_plans_own_floor() {
        let profile = Sample::default().profile();
        let floor = Floor {
            whole_windows: false,
            tokens: 12,
            sinks: 1,
            window: 2,
        };
        let request = Request {
            floor,
            ..Sample::default().request(20.0, 3)
        };
        let plan = plan("mass-optimal", json!({}), &request);
        for profile in [None, Some(&profile)] {
            let PlanCurve { curve, even } = plan_curve(&plan, profile, 100).unwrap();
            let even = even.unwrap();
            assert_eq!((even.from_percent, even.floor), (89, 12.0));
            for percent in 1..=99 {
                let kept = kept(&curve, percent);
                let (least, most) = (kept.iter().min().unwrap(), kept.iter().max().unwrap());
                match percent {
                    ..89 => assert!(*least >= 12, "{percent}: {kept:?}"),
                    _ => assert!(most - least <= 1, "{percent}: {kept:?}"),
                }
            }
            assert_eq!(kept(&curve, 80), plan.tokens.concat());
        }
    }

    #[test]
    fn a_strategys_own_floor_is_the_floor_of_its_rows() {
        let profile = Sample::default().profile();
        let request = Sample::default().request(50.0, 3);
        // B_min is max(0.2 B, 4): 10 for the plan, and less for smaller budgets.
        let zigzag = plan("zigzag", json!({}), &request);
        assert_eq!(zigzag.floor, 10);
        let from = |plan: &BudgetPlan, profile| {
            let even = plan_curve(plan, profile, 100).unwrap().even.unwrap();
            (even.from_percent, even.floor)
        };
        assert_eq!(from(&zigzag, None), (91, 10.0));
        assert_eq!(from(&zigzag, Some(&profile)), (97, 4.0));
        let anew = plan_curve(&zigzag, Some(&profile), 100).unwrap().curve;
        for (percent, budget) in [(50, 50.0), (80, 20.0), (96, 4.0)] {
            let want = plan("zigzag", json!({}), &Sample::default().request(budget, 3));
            assert_eq!(kept(&anew, percent), want.tokens.concat(), "{percent}");
        }
        let fixed = plan("zigzag", json!({"floor": 7.5}), &request);
        assert_eq!(from(&fixed, Some(&profile)), (93, 7.5));
        // A share of B never is more than B, but may be less than sinks and window.
        let share = plan("zigzag", json!({"floor": "10%"}), &request);
        let text = plan_curve(&share, Some(&profile), 100)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("at 71 % removed") && text.contains("is 2.9"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_allocated_anew_is_refused() {
        let profile = Sample::default().profile();
        let plan = plan("uniform", json!({}), &Sample::default().request(20.0, 2));
        let refused = |plan: &BudgetPlan| plan_curve(plan, Some(&profile), 100).unwrap_err();
        let foreign = BudgetPlan {
            strategy: "lu-kv".into(),
            ..plan.clone()
        };
        assert!(plan_curve(&foreign, None, 100).is_ok());
        assert!(
            refused(&foreign)
                .to_string()
                .contains("unknown strategy 'lu-kv'")
        );
        let mut other = plan.clone();
        other.geometry.head_dim += 1;
        assert!(refused(&other).to_string().contains("geometry of the plan"));
        let heads = BudgetPlan {
            granularity: Granularity::Head,
            ..plan
        };
        assert!(
            refused(&heads)
                .to_string()
                .contains("'head' is not supported")
        );
    }
}
