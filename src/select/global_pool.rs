//! One pool of tokens over all layers and KV heads.

use super::LayerScores;
use crate::error::{Error, Result};

/// A token outside every head's own share.
struct Candidate {
    score: f64,
    slot: u32,
    /// Index of its head over all layers: the lower layer comes first.
    head: usize,
}

/// How many tokens every KV head keeps where the best-scored of all layers win.
///
/// Every head keeps sinks, window and its own best up to `safeguard` of its budget; the rest of all budgets together goes to
/// the largest scores of what is left, wherever they are. A head whose budget is all that it sees keeps that, and takes no
/// part. Ties go to the later token, then to the lower layer and head.
/// Paper: arXiv:2505.23416 (KVzip), section 3, and arXiv:2510.13334 (LayerDefensiveKV), which pool without a safeguard.
/// Differs: the total is exact.
/// Shapes: scores and `firsts` `[layer]`, budgets `[layer][kv_head]` -> the same.
/// Errors: [`Error::NotFinite`] for scores that are not numbers; [`Error::Candle`].
pub(super) fn pooled_budgets(
    scores: &[LayerScores],
    firsts: &[usize],
    budgets: &[Vec<usize>],
    [sinks, window]: [usize; 2],
    safeguard: f64,
) -> Result<Vec<Vec<usize>>> {
    let (mut counts, mut pool, mut total) = (Vec::new(), Vec::new(), 0);
    for ((scores, &first), budgets) in scores.iter().zip(firsts).zip(budgets) {
        for (row, &budget) in scores.to_rows()?.iter().zip(budgets) {
            let head = counts.len();
            let sees = row.len().saturating_sub(first);
            let budget = budget.min(sees);
            total += budget;
            if budget == sees {
                counts.push(sees);
                continue;
            }
            let mut candidates = candidates(row, [first.max(sinks), window], head)?;
            let stays = sees - candidates.len();
            let own = ((budget as f64 * safeguard) as usize).clamp(stays.min(budget), budget);
            let guarded = own.saturating_sub(stays).min(candidates.len());
            if guarded > 0 {
                candidates.select_nth_unstable_by(guarded - 1, before);
            }
            counts.push(stays + guarded);
            pool.extend(candidates.drain(guarded..));
        }
    }
    let taken: usize = counts.iter().sum();
    let shared = total.saturating_sub(taken).min(pool.len());
    if shared > 0 && shared < pool.len() {
        pool.select_nth_unstable_by(shared - 1, before);
    }
    for candidate in &pool[..shared] {
        counts[candidate.head] += 1;
    }
    let mut counts = counts.into_iter();
    Ok(budgets
        .iter()
        .map(|layer| counts.by_ref().take(layer.len()).collect())
        .collect())
}

/// What a head's tokens compete with: all but sinks, window and what is out of sight.
fn candidates(row: &[f64], [from, window]: [usize; 2], head: usize) -> Result<Vec<Candidate>> {
    let end = row.len().saturating_sub(window).max(from).min(row.len());
    if row.iter().any(|score| !score.is_finite()) {
        return Err(Error::NotFinite {
            place: "a token's score".into(),
            advice: "attention or keys hold NaN; the weights may be damaged".into(),
        });
    }
    let tokens = row.iter().enumerate().take(end).skip(from);
    let candidate = |(slot, &score): (usize, &f64)| Candidate {
        score,
        slot: slot as u32,
        head,
    };
    Ok(tokens.map(candidate).collect())
}

/// The order in which candidates are taken.
fn before(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score
        .total_cmp(&a.score)
        .then(b.slot.cmp(&a.slot))
        .then(a.head.cmp(&b.head))
}

#[cfg(test)]
mod tests {
    use super::super::{HeadSplit, select_layers};
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    fn layers(rows: &[Vec<Vec<f64>>]) -> Vec<LayerScores> {
        let of = |rows: &Vec<Vec<f64>>| {
            LayerScores::of_heads(rows.concat(), rows.len(), &Device::Cpu).unwrap()
        };
        rows.iter().map(of).collect()
    }

    #[test]
    fn the_best_of_all_layers_win_beyond_the_safeguard() {
        let rows = [
            vec![vec![9.0, 8.0, 7.0, 6.0], vec![5.0, 1.0, 1.0, 1.0]],
            vec![vec![2.0, 2.5, 0.0, 0.0], vec![0.0, 0.0, 0.0, 3.0]],
        ];
        let budgets = vec![vec![2, 2], vec![2, 2]];
        let counts = |safeguard| {
            let scores = layers(&rows);
            pooled_budgets(&scores, &[0, 0], &budgets, [0, 0], safeguard).unwrap()
        };
        // 9 8 7 6 | 5 | 2.5 2 | 3: eight tokens.
        assert_eq!(counts(0.0), [[4, 1], [2, 1]]);
        // One each first: 9, 5, 2.5, 3; then 8 7 6 2.
        assert_eq!(counts(0.5), [[4, 1], [2, 1]]);
        assert_eq!(counts(1.0), [[2, 2], [2, 2]]);
        let split = HeadSplit::Global { safeguard: 0.0 };
        let kept = select_layers(&layers(&rows), &[0, 0], &budgets, 0, 0, split).unwrap();
        assert_eq!(kept[0], [vec![0, 1, 2, 3], vec![0]]);
        assert_eq!(kept[1], [vec![0, 1], vec![3]]);
    }

    #[test]
    fn sinks_window_and_whole_heads_take_no_part() {
        let rows = [
            vec![vec![0.0, 9.0, 8.0, 0.0]],
            vec![vec![9.0, 0.5, 0.4, 9.0]],
        ];
        let counts = |budgets: &[Vec<usize>], firsts: &[usize]| {
            pooled_budgets(&layers(&rows), firsts, budgets, [1, 1], 0.0).unwrap()
        };
        assert_eq!(counts(&[vec![3], vec![3]], &[0, 0]), [[4], [2]]);
        assert_eq!(counts(&[vec![3], vec![4]], &[0, 0]), [[3], [4]]);
        // A window has passed the first two tokens of the second layer.
        assert_eq!(counts(&[vec![3], vec![2]], &[0, 2]), [[3], [2]]);
        assert_eq!(counts(&[vec![2], vec![3]], &[0, 0]), [[3], [2]]);
    }

    #[test]
    fn ties_go_to_the_later_token_and_the_lower_layer() {
        let rows = [vec![vec![1.0; 3]], vec![vec![1.0; 3]]];
        let budgets = [vec![1], vec![2]];
        let counts = pooled_budgets(&layers(&rows), &[0, 0], &budgets, [0, 0], 0.0).unwrap();
        assert_eq!(counts, [[2], [1]]);
        let wrong = [vec![vec![f64::NAN; 3]], vec![vec![1.0; 3]]];
        assert!(pooled_budgets(&layers(&wrong), &[0, 0], &budgets, [0, 0], 0.0).is_err());
    }

    proptest! {
        #[test]
        fn totals_are_kept_to_the_token_and_every_choice_is_the_best(
            tokens in 4usize..30,
            seed in any::<u64>(),
            (sinks, window) in (0usize..3, 0usize..4),
            safeguard in 0.0f64..=1.0,
        ) {
            let mut state = seed;
            let mut draw = |n: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % n
            };
            let rows: Vec<Vec<Vec<f64>>> = (0..3)
                .map(|_| (0..2).map(|_| (0..tokens).map(|_| draw(7) as f64).collect()).collect())
                .collect();
            let least = (sinks + window).min(tokens);
            let budgets: Vec<Vec<usize>> = (0..3)
                .map(|_| (0..2).map(|_| least + draw(tokens - least + 1)).collect())
                .collect();
            let counts =
                pooled_budgets(&layers(&rows), &[0; 3], &budgets, [sinks, window], safeguard).unwrap();
            let sum = |all: &[Vec<usize>]| all.iter().flatten().sum::<usize>();
            prop_assert_eq!(sum(&counts), sum(&budgets));
            for (count, budget) in counts.iter().flatten().zip(budgets.iter().flatten()) {
                prop_assert!(*count >= ((*budget as f64 * safeguard) as usize).max(least.min(*budget)));
                prop_assert!(*count <= tokens);
            }
            // With equal safeguards of nothing, no token that is left out beats one that is in.
            let open = pooled_budgets(&layers(&rows), &[0; 3], &budgets, [0, 0], 0.0).unwrap();
            let (mut worst_in, mut best_out) = (f64::INFINITY, f64::NEG_INFINITY);
            let heads = rows.iter().flatten().zip(open.iter().flatten());
            for ((row, &count), &budget) in heads.zip(budgets.iter().flatten()) {
                if budget == tokens {
                    continue;
                }
                let mut row = row.clone();
                row.sort_by(|a, b| b.total_cmp(a));
                row[..count].iter().for_each(|s| worst_in = worst_in.min(*s));
                row[count..].iter().for_each(|s| best_out = best_out.max(*s));
            }
            prop_assert!(worst_in >= best_out);
        }
    }
}
