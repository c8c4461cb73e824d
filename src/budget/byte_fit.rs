//! How many tokens fit into a budget of bytes.

use super::amount::Budget;
use super::fit::TokenBudgets;
use crate::error::{Error, Result};

/// An allocation of nearly as many tokens as a limit of bytes holds.
///
/// Differs: a plan's bytes grow with its tokens, but for what is coded together: once `together` more tokens are there they
/// become few bits, and a head with one more token may take less. Where heads are `alike`, from `together` tokens of every
/// head to as many more bytes always grow, so that totals that far apart are searched by bisection, the best of them is
/// filled up one by one, and the largest total that fits is found. Where heads differ, their steps fall apart and nearly
/// cancel where they are many: one bisection finds a total that fits, some totals above it are looked at as far as two
/// groups of every head reach, as long as one of them fits, and more may fit than are found.
/// Shapes: the KV heads that take part, and the tokens that they can hold together. Errors: [`Error::Invalid`] where
/// not even the least plan fits; the allocator's, where it has none.
pub fn fit_bytes<Plan>(
    (heads, most): (usize, usize),
    together: usize,
    limit: usize,
    alike: &dyn Fn(&Plan) -> bool,
    allocate: &dyn Fn(Budget) -> Result<Plan>,
    bytes: &dyn Fn(&Plan) -> usize,
) -> Result<Plan> {
    let mut search = Search {
        heads,
        limit,
        allocate,
        bytes,
        least: None,
        refused: None,
        found: None,
    };
    let middle = allocate(Budget::of_total(most / 2, heads));
    if together <= 1 {
        search.bisect(most, 1);
    } else if middle.is_ok_and(|plan| !alike(&plan)) {
        search.bisect(most, 1);
        while search.look_above(most, 2 * heads * together) {}
        search.fill_up(most);
    } else {
        let step = heads * together;
        for phase in 0..together.min(most / heads.max(1)) {
            search.bisect(most - phase * heads, step);
        }
        search.fill_up(most);
    }
    search.answer()
}

/// Whether all KV heads keep the same, but for a token.
pub fn are_alike(budgets: &TokenBudgets) -> bool {
    let all = || budgets.iter().flatten();
    let (least, most) = (all().min(), all().max());
    least
        .zip(most)
        .is_none_or(|(least, most)| most - least <= 1)
}

/// What is known of totals so far.
struct Search<'a, Plan> {
    heads: usize,
    limit: usize,
    allocate: &'a dyn Fn(Budget) -> Result<Plan>,
    bytes: &'a dyn Fn(&Plan) -> usize,
    /// The fewest bytes that were too many.
    least: Option<usize>,
    refused: Option<Error>,
    /// The largest total that fits, and its plan.
    found: Option<(usize, Plan)>,
}

/// Whether a total is too small for the allocator, fits, or takes too much.
enum Fit {
    Small,
    Good,
    Large,
}

impl<Plan> Search<'_, Plan> {
    fn largest(&self) -> usize {
        self.found.as_ref().map_or(0, |(total, _)| *total)
    }

    fn fits(&mut self, total: usize) -> Fit {
        match (self.allocate)(Budget::of_total(total, self.heads)) {
            Ok(plan) => {
                let taken = (self.bytes)(&plan);
                if taken > self.limit {
                    self.least = Some(self.least.unwrap_or(taken).min(taken));
                    return Fit::Large;
                }
                if total > self.largest() {
                    self.found = Some((total, plan));
                }
                Fit::Good
            }
            Err(problem) => {
                self.refused = Some(problem);
                Fit::Small
            }
        }
    }

    /// Looks among `top`, `top - step`, `top - 2 * step` and so on, over whose bytes plans grow.
    fn bisect(&mut self, top: usize, step: usize) {
        // Steps down from the top: at `high` a total fits or is too small, before `low` all take too much.
        let (mut low, mut high) = (0, top.saturating_sub(self.heads) / step + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let total = top - middle * step;
            // Nothing below what another phase has found is of use.
            if total <= self.largest() {
                high = middle;
                continue;
            }
            match self.fits(total) {
                Fit::Small | Fit::Good => high = middle,
                Fit::Large => low = middle + 1,
            }
        }
    }

    /// Tries some totals of the next `range` above the largest that fits, the highest first; whether one fits.
    fn look_above(&mut self, most: usize, range: usize) -> bool {
        /// Of a model of few heads every total is tried, whose steps do not cancel.
        const FEW: usize = 1024;
        const PROBES: usize = 64;
        let start = self.largest();
        if start == 0 {
            return false;
        }
        let step = if range <= FEW {
            1
        } else {
            range.div_ceil(PROBES)
        };
        for probe in (1..=range / step).rev() {
            let total = start + probe * step;
            if total <= most
                && let Fit::Good = self.fits(total)
            {
                return true;
            }
        }
        false
    }

    /// Adds single tokens to the largest total that fits, fewer than one for every head.
    fn fill_up(&mut self, most: usize) {
        let start = self.largest();
        let end = most.min(start + self.heads.saturating_sub(1));
        if start == 0 {
            return;
        }
        for total in (start + 1..=end).rev() {
            if let Fit::Good = self.fits(total) {
                return;
            }
        }
    }

    fn answer(self) -> Result<Plan> {
        match (self.found, self.least, self.refused) {
            (Some((_, plan)), ..) => Ok(plan),
            (None, Some(least), _) => {
                let bound = format!(
                    "the fewest tokens that the method can keep take {least}: allow more, lower --sinks and --window, \
                     or hold them in fewer bits"
                );
                Err(Error::invalid("budget in bytes", self.limit, bound))
            }
            (None, None, Some(problem)) => Err(problem),
            (None, None, None) => {
                let bound = "there is nothing to allocate";
                Err(Error::invalid("KV heads", self.heads, bound))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::Representation;

    fn alike(heads: usize, least: f64) -> impl Fn(Budget) -> Result<TokenBudgets> {
        move |budget| {
            let per_head = budget.per_head(1000);
            if per_head < least {
                return Err(Error::invalid("budget", per_head, "it is below the floor"));
            }
            let total = budget.total(heads, heads * 1000);
            let head = |h: usize| total / heads + usize::from(h < total % heads);
            Ok(vec![(0..heads).map(head).collect()])
        }
    }

    fn equal(_: &TokenBudgets) -> bool {
        true
    }

    /// Three heads that share a total as 1 to 2 to 3.
    fn unequal(budget: Budget) -> Result<TokenBudgets> {
        let total = budget.total(3, 2700);
        let (first, second) = (total / 6, total / 3);
        Ok(vec![vec![first, second, total - first - second]])
    }

    /// A total that fits, and not far below the largest that does.
    #[test]
    fn heads_that_differ_come_near_the_largest_total() {
        for held_as in ["q2", "q4(residual=0)", "q2(group=128,residual=0)"] {
            let held_as: Representation = held_as.parse().unwrap();
            let bytes = |plan: &TokenBudgets| {
                let heads = plan.iter().flatten();
                heads
                    .map(|tokens| held_as.bytes(*tokens, 64))
                    .sum::<usize>()
            };
            let of_total = |total: usize| unequal(Budget::of_total(total, 3)).unwrap();
            let all: Vec<usize> = (6..=2700).map(|total| bytes(&of_total(total))).collect();
            for limit in (all[600]..all[2694]).step_by(1777) {
                let together = held_as.coded_together();
                let differ = |_: &TokenBudgets| false;
                let plan = fit_bytes((3, 2700), together, limit, &differ, &unequal, &bytes);
                let plan = plan.unwrap();
                assert!(bytes(&plan) <= limit);
                let got = plan.iter().flatten().sum::<usize>();
                let most = 6 + all.iter().rposition(|bytes| *bytes <= limit).unwrap();
                assert!(
                    got <= most && got + together >= most,
                    "{held_as} in {limit}: {got} of {most}"
                );
            }
        }
    }

    fn ten_each(plan: &TokenBudgets) -> usize {
        plan.iter().flatten().map(|tokens| tokens * 10).sum()
    }

    #[test]
    fn as_many_tokens_as_fit_are_kept_to_the_token() {
        for limit in [360, 1000, 1009, 1010, 29_999, 30_000, 1_000_000] {
            let plan = fit_bytes((3, 3000), 1, limit, &equal, &alike(3, 12.0), &ten_each).unwrap();
            assert_eq!(
                plan.iter().flatten().sum::<usize>(),
                (limit / 10).min(3000),
                "{limit}"
            );
        }
    }

    #[test]
    fn residuals_that_cost_more_than_codes_are_counted() {
        // The last four tokens take ten bytes each, all others one.
        let bytes = |plan: &TokenBudgets| {
            let of_head = |&tokens: &usize| tokens.saturating_sub(4) + 10 * tokens.min(4);
            plan.iter().flatten().map(of_head).sum()
        };
        let plan = fit_bytes((2, 2000), 1, 180, &equal, &alike(2, 1.0), &bytes).unwrap();
        assert_eq!(plan, [[54, 54]]);
    }

    #[test]
    fn bytes_that_hold_not_even_the_floor_are_refused_with_what_it_takes() {
        let said = fit_bytes((3, 3000), 1, 359, &equal, &alike(3, 12.0), &ten_each);
        let said = said.unwrap_err().to_string();
        assert!(said.contains("359") && said.contains("take 360"), "{said}");
    }

    /// Of all totals the largest that fits, whatever codes do to the bytes in between.
    #[test]
    fn groups_that_become_codes_hide_no_total() {
        for held_as in [
            "q2",
            "q4(group=16,residual=8)",
            "k=q8,v=q2(group=64,residual=0)",
        ] {
            let held_as: Representation = held_as.parse().unwrap();
            let bytes = |plan: &TokenBudgets| {
                let heads = plan.iter().flatten();
                heads
                    .map(|tokens| held_as.bytes(*tokens, 64))
                    .sum::<usize>()
            };
            let allocate = alike(3, 4.0);
            let plan_of = |total: usize| allocate(Budget::of_total(total, 3)).unwrap();
            let all: Vec<usize> = (12..=900).map(|total| bytes(&plan_of(total))).collect();
            for limit in (all[0]..all[888] + 3000).step_by(1777) {
                let parts = (3, 900);
                let together = held_as.coded_together();
                let plan = fit_bytes(parts, together, limit, &equal, &allocate, &bytes);
                let got = plan.unwrap().iter().flatten().sum::<usize>();
                let want = 12 + all.iter().rposition(|bytes| *bytes <= limit).unwrap();
                assert_eq!(got, want, "{held_as} in {limit}");
            }
        }
    }
}
