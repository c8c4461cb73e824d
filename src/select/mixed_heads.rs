//! Ada-KV's split as its own code has it: what a head wins in its layer, mixed with its equal share.

use super::LayerScores;
use super::global_pool::pooled_budgets;
use crate::error::Result;

/// How many tokens every KV head keeps: (1 − `floor`) of what it wins where the layer's best-scored tokens do, and `floor` of its
/// own budget.
///
/// Paper: arXiv:2407.11550 (Ada-KV), its code's `floor_alpha`. Differs: halves of tokens are rounded to the largest, so that
/// the layer's total is exact.
/// Shapes: scores and `firsts` `[layer]`, budgets `[layer][kv_head]` -> the same. Errors: as [`pooled_budgets`].
pub(super) fn mixed_budgets(
    scores: &[LayerScores],
    firsts: &[usize],
    budgets: &[Vec<usize>],
    stays: [usize; 2],
    floor: f64,
) -> Result<Vec<Vec<usize>>> {
    let layers = scores.iter().zip(firsts).zip(budgets);
    layers
        .map(|((scores, first), own)| {
            let (of_layer, first) = (std::slice::from_ref(scores), std::slice::from_ref(first));
            let won = pooled_budgets(of_layer, first, std::slice::from_ref(own), stays, 0.0)?;
            let won = won.into_iter().next().unwrap_or_default();
            Ok(mixed(&won, own, floor))
        })
        .collect()
}

/// (1 − floor)·won + floor·own, in whole tokens that add up to what was won in all; the largest remainders are rounded up.
fn mixed(won: &[usize], own: &[usize], floor: f64) -> Vec<usize> {
    let total: usize = won.iter().sum();
    let all: usize = own.iter().sum();
    if all == 0 {
        return won.to_vec();
    }
    // Heads that see less than their budget win less: their own shares shrink alike.
    let scale = total as f64 / all as f64;
    let heads = won.iter().zip(own);
    let exact = heads.map(|(w, o)| (1.0 - floor) * *w as f64 + floor * scale * *o as f64);
    let exact: Vec<f64> = exact.collect();
    let mut whole: Vec<usize> = exact.iter().map(|x| (x + 1e-9).floor() as usize).collect();
    let mut order: Vec<usize> = (0..whole.len()).collect();
    let rest = |h: &usize| exact[*h] - whole[*h] as f64;
    order.sort_by(|a, b| rest(b).total_cmp(&rest(a)).then(a.cmp(b)));
    let missing = total.saturating_sub(whole.iter().sum());
    for head in order.into_iter().take(missing) {
        whole[head] += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_by_hand() {
        // 0.8·17 + 0.2·8 = 15.2, 0.8·5 + 1.6 = 5.6, 0.8·2 + 1.6 = 3.2.
        assert_eq!(mixed(&[17, 5, 2], &[8, 8, 8], 0.2), [15, 6, 3]);
        assert_eq!(mixed(&[17, 5, 2], &[8, 8, 8], 0.0), [17, 5, 2]);
        assert_eq!(mixed(&[17, 5, 2], &[8, 8, 8], 1.0), [8, 8, 8]);
        assert_eq!(mixed(&[], &[], 0.2), [0; 0]);
    }

    proptest! {
        #[test]
        fn totals_are_exact(
            heads in prop::collection::vec((0usize..50, 0usize..50), 1..6),
            floor in 0.0f64..=1.0,
        ) {
            let (won, own): (Vec<usize>, Vec<usize>) = heads.into_iter().unzip();
            prop_assert_eq!(mixed(&won, &own, floor).iter().sum::<usize>(), won.iter().sum::<usize>());
        }
    }
}
