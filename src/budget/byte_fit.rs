//! How many tokens fit into a budget of bytes.

use super::amount::Budget;
use crate::error::{Error, Result};

/// The largest allocation whose bytes are within a limit.
///
/// Differs: tokens are added to the total one by one, so to say: the answer is the largest total whose plan fits, found by
/// bisection, since a plan's bytes grow with its tokens. What the plan leaves of the limit is less than one more token
/// of all takes.
/// Shapes: the KV heads that take part, and the tokens that they can hold together. Errors: [`Error::Invalid`] where
/// not even the least plan fits; the allocator's, where it has none.
pub fn fit_bytes<Plan>(
    (heads, most): (usize, usize),
    limit: usize,
    allocate: &dyn Fn(Budget) -> Result<Plan>,
    bytes: &dyn Fn(&Plan) -> usize,
) -> Result<Plan> {
    let mut found = None;
    let mut least: Option<usize> = None;
    let mut refused = None;
    // Totals at or below `low` fit or are below what the allocator needs; those above `high` are too many.
    let (mut low, mut high) = (heads.saturating_sub(1), most);
    while low < high {
        let middle = high - (high - low) / 2;
        match allocate(Budget::of_total(middle, heads)) {
            Ok(plan) => {
                let taken = bytes(&plan);
                if taken <= limit {
                    (found, low) = (Some(plan), middle);
                } else {
                    least = Some(least.unwrap_or(taken).min(taken));
                    high = middle - 1;
                }
            }
            Err(problem) => {
                refused = Some(problem);
                low = middle;
            }
        }
    }
    match (found, least, refused) {
        (Some(plan), ..) => Ok(plan),
        (None, Some(least), _) => {
            let bound = format!(
                "the fewest tokens that the method can keep take {least}: allow more, lower --sinks and --window, or \
                 hold them in fewer bits"
            );
            Err(Error::invalid("budget in bytes", limit, bound))
        }
        (None, None, Some(problem)) => Err(problem),
        (None, None, None) => Err(Error::invalid(
            "KV heads",
            heads,
            "there is nothing to allocate",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::TokenBudgets;

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

    fn ten_each(plan: &TokenBudgets) -> usize {
        plan.iter().flatten().map(|tokens| tokens * 10).sum()
    }

    #[test]
    fn as_many_tokens_as_fit_are_kept_to_the_token() {
        for limit in [360, 1000, 1009, 1010, 29_999, 30_000, 1_000_000] {
            let plan = fit_bytes((3, 3000), limit, &alike(3, 12.0), &ten_each).unwrap();
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
        let plan = fit_bytes((2, 2000), 180, &alike(2, 1.0), &bytes).unwrap();
        assert_eq!(plan, [[54, 54]]);
    }

    #[test]
    fn bytes_that_hold_not_even_the_floor_are_refused_with_what_it_takes() {
        let said = fit_bytes((3, 3000), 359, &alike(3, 12.0), &ten_each);
        let said = said.unwrap_err().to_string();
        assert!(said.contains("359") && said.contains("take 360"), "{said}");
    }
}
