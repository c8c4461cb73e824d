//! Which of several budgets is the smaller one, on every prompt.

use std::collections::BTreeMap;

use crate::budget::CacheBudget;
use crate::error::{Error, Result};
use crate::table::Table;

/// A budget as a results table has it, with the row of every prompt.
pub(super) struct BudgetRows<'t> {
    /// As it was asked for.
    pub(super) name: &'t str,
    /// Row of every prompt, failed ones among them.
    pub(super) rows: BTreeMap<u32, usize>,
}

/// How much a budget is on every prompt, in one unit for all budgets.
struct Amounts<'t> {
    name: &'t str,
    /// No more than the prompt has.
    on_prompts: Vec<f64>,
    /// The same without that bound, which tells budgets apart that are the whole prompt everywhere.
    unbounded: f64,
}

/// Budgets by what they are on each prompt, smallest first.
///
/// Tokens and shares of the prompt are compared in tokens, bytes and shares of the full cache's bytes in bytes; tokens
/// with bytes by the bytes that were really held.
///
/// Errors: [`Error::Invalid`] for two budgets of which each is the smaller one on some prompt, for what is no budget,
/// and for tokens and bytes where a run failed and held nothing.
pub(super) fn smallest_first<'t>(
    table: &Table,
    mut budgets: Vec<BudgetRows<'t>>,
) -> Result<Vec<BudgetRows<'t>>> {
    if budgets.len() < 2 {
        return Ok(budgets);
    }
    let amounts = amounts(table, &budgets)?;
    for (i, a) in amounts.iter().enumerate() {
        for b in &amounts[i + 1..] {
            check_order(a, b, budgets[i].rows.keys())?;
        }
    }
    let rank = |name: &str| {
        let of = amounts.iter().find(|amount| amount.name == name);
        of.map_or((0.0, 0.0), |a| (a.on_prompts.iter().sum(), a.unbounded))
    };
    budgets.sort_by(|a, b| {
        let (a, b) = (rank(a.name), rank(b.name));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    Ok(budgets)
}

fn amounts<'t>(table: &Table, budgets: &[BudgetRows<'t>]) -> Result<Vec<Amounts<'t>>> {
    let parsed = budgets.iter().map(|budget| budget.name.parse());
    let parsed: Vec<CacheBudget> = parsed.collect::<Result<_>>()?;
    let in_tokens = parsed.iter().filter(|budget| budget.tokens().is_some());
    let one_kind = [0, parsed.len()].contains(&in_tokens.count());
    let tokens = table.counts("tokens")?;
    let (full, held) = (table.numbers("full_bytes")?, table.numbers("kv_bytes")?);
    let mut found = Vec::new();
    for (budget, parsed) in budgets.iter().zip(&parsed) {
        let asked = |row: usize| match parsed.tokens() {
            Some(budget) => (
                budget.per_head(tokens[row] as usize),
                f64::from(tokens[row]),
            ),
            None => {
                let bytes = parsed.bytes(full[row] as usize).unwrap_or(usize::MAX);
                (bytes as f64, full[row])
            }
        };
        let amount = |row: usize| match asked(row) {
            (asked, most) if one_kind => (asked.min(most), asked),
            _ => (held[row], held[row]),
        };
        let all: Vec<(f64, f64)> = budget.rows.values().map(|&row| amount(row)).collect();
        if all.iter().any(|(amount, _)| !amount.is_finite()) {
            let bound = "budgets in tokens and in bytes are compared by what was held, and some of its runs failed: \
                         certify budgets of one kind with --budgets";
            return Err(Error::invalid("budget", budget.name, bound));
        }
        found.push(Amounts {
            name: budget.name,
            on_prompts: all.iter().map(|(bounded, _)| *bounded).collect(),
            unbounded: all.iter().map(|(_, unbounded)| *unbounded).sum(),
        });
    }
    Ok(found)
}

/// Refuses budgets of which each is the smaller one on some prompt.
fn check_order<'p>(
    a: &Amounts<'_>,
    b: &Amounts<'_>,
    prompts: impl Iterator<Item = &'p u32>,
) -> Result<()> {
    let (mut below, mut above) = (None, None);
    for (prompt, (x, y)) in prompts.zip(a.on_prompts.iter().zip(&b.on_prompts)) {
        if x < y {
            below.get_or_insert(prompt);
        } else if x > y {
            above.get_or_insert(prompt);
        }
    }
    let (Some(below), Some(above)) = (below, above) else {
        return Ok(());
    };
    let bound = format!(
        "{} is less on prompt {below} and more on prompt {above}: no order is the same for all prompts; choose budgets \
         that have one with --budgets",
        a.name
    );
    Err(Error::invalid("budget beside it", b.name, bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    /// Two prompts of 500 and 2,000 tokens at every budget; 10 bytes a token are held of `held` tokens.
    fn ordered(budgets: &[(&str, [f64; 2])]) -> Result<Vec<String>> {
        let rows = budgets.len() * 2;
        let mut table = Table::new();
        let tokens: Vec<u32> = [500, 2000].into_iter().cycle().take(rows).collect();
        let full = tokens.iter().map(|t| f64::from(t * 10)).collect();
        let held = budgets.iter().flat_map(|(_, held)| held.map(|h| h * 10.0));
        table.push("kv_bytes", Column::Number(held.collect()));
        table.push("tokens", Column::Count(tokens));
        table.push("full_bytes", Column::Number(full));
        let budgets = budgets
            .iter()
            .enumerate()
            .map(|(b, &(name, _))| BudgetRows {
                name,
                rows: BTreeMap::from([(0, 2 * b), (1, 2 * b + 1)]),
            });
        let sorted = smallest_first(&table, budgets.collect())?;
        Ok(sorted.iter().map(|b| b.name.to_owned()).collect())
    }

    #[test]
    fn tokens_shares_and_bytes_have_one_order_each() {
        let any = [0.0, 0.0];
        let tokens = ordered(&[
            ("256", any),
            ("64", any),
            ("1024", any),
            ("5%", any),
            ("512", any),
        ]);
        // 5 % are 25 and 100 tokens: below 64 on one prompt only.
        let said = tokens.unwrap_err().to_string();
        assert!(
            said.contains("64 is less on prompt 1 and more on prompt 0"),
            "{said}"
        );
        let tokens = ordered(&[
            ("256", any),
            ("128", any),
            ("5%", any),
            ("1024", any),
            ("512", any),
        ]);
        assert_eq!(tokens.unwrap(), ["5%", "128", "256", "512", "1024"]);
        let bytes = ordered(&[("50%bytes", any), ("2kB", any), ("10kB", any)]);
        assert_eq!(bytes.unwrap(), ["2kB", "50%bytes", "10kB"]);
        // As much as the prompt has is as much as any more; what was asked for tells them apart.
        let whole = ordered(&[("4096", any), ("100%", any), ("2048", any)]);
        assert_eq!(whole.unwrap(), ["100%", "2048", "4096"]);
    }

    #[test]
    fn tokens_and_bytes_are_compared_by_what_was_held() {
        let mixed = ordered(&[("128", [128.0, 128.0]), ("1kB", [100.0, 100.0])]);
        assert_eq!(mixed.unwrap(), ["1kB", "128"]);
        let crossing = ordered(&[("128", [128.0, 128.0]), ("20%bytes", [100.0, 400.0])]);
        assert!(crossing.unwrap_err().to_string().contains("no order"));
        let failed = ordered(&[("128", [128.0, f64::NAN]), ("1kB", [100.0, 100.0])]);
        assert!(failed.unwrap_err().to_string().contains("of one kind"));
        assert_eq!(ordered(&[("full", [1.0, 1.0])]).unwrap(), ["full"]);
    }
}
