//! From shares to whole tokens: the only place where a budget is rounded.

use super::amount::{Budget, MAX_HEADS, MAX_TOKENS};
use super::apportion::spread;
use super::floor::Floor;
use super::readable_number::readable_number;
use super::room::Room;
use crate::error::{Error, Result};

/// Tokens that each KV head keeps of one prompt.
///
/// Shapes: `[layer][kv_head]`.
pub type TokenBudgets = Vec<Vec<usize>>;

/// Turns shares into whole tokens for a prompt of `tokens`: floor + share of the rest.
///
/// No KV head gets more than it can use, T or its layer's window; what it would have had above goes to the others in
/// proportion to their shares (equally if all of these are zero), as often as needed. The total over the layers that
/// take part is exactly ⌊B·L·H_kv⌋, at most what they can use, by largest remainder; ties go to the lower layer, then
/// to the lower head. A prompt shorter than the floor is kept whole where the budget allows it. Layers that take no
/// part keep all that they can use.
///
/// Tokens are computed with integers, to 2⁻²⁰ of a token, and remainders within such a step of the last one
/// that is rounded up tie with it: shares are floats, and the last bits of a fraction must not decide.
///
/// Paper: none: house definition (largest remainder is Hamilton's method of apportionment).
/// Shapes: `[layer][kv_head]` in and out. Units: tokens.
///
/// Errors: [`Error::Invalid`] for a budget below the floor, naming both; for an amount, a floor or shares
/// that cannot be.
pub fn fit(
    shares: &[Vec<f64>],
    budget: Budget,
    floor: &Floor,
    room: impl Into<Room>,
) -> Result<TokenBudgets> {
    let room = room.into();
    let tokens = room.tokens();
    budget.check()?;
    floor.check()?;
    check_shares(shares)?;
    if tokens == 0 || tokens > MAX_TOKENS {
        let bound = format!("it must be between 1 and {MAX_TOKENS}");
        return Err(Error::invalid("prompt length", tokens, bound));
    }
    let parts = shares
        .iter()
        .enumerate()
        .filter(|(l, _)| room.takes_part(*l));
    let parts: Vec<Part> = parts
        .flat_map(|(l, layer)| {
            let most = room.most(l);
            layer.iter().map(move |&share| Part {
                share,
                lowest: floor.tokens.min(most),
                most,
            })
        })
        .collect();
    let most = parts.iter().map(|part| part.most).sum();
    let lowest: usize = parts.iter().map(|part| part.lowest).sum();
    let total = budget.total(parts.len(), most);
    if total < lowest {
        return Err(below_floor(
            budget,
            floor,
            tokens,
            parts.len(),
            [total, lowest],
        ));
    }
    let weights: Vec<f64> = parts.iter().map(|part| part.share).collect();
    let caps: Vec<u64> = parts.iter().map(|p| (p.most - p.lowest) as u64).collect();
    let rest = spread(&weights, (total - lowest) as u64, &caps);
    let mut given = parts
        .iter()
        .zip(rest)
        .map(|(part, extra)| part.lowest + extra as usize);
    let layer = |(l, layer): (usize, &Vec<f64>)| {
        if room.takes_part(l) {
            given.by_ref().take(layer.len()).collect()
        } else {
            vec![room.most(l); layer.len()]
        }
    };
    Ok(shares.iter().enumerate().map(layer).collect())
}

/// A KV head that takes part in a budget.
struct Part {
    share: f64,
    lowest: usize,
    most: usize,
}

/// Refuses shares that are no numbers, negative, absent or too many.
///
/// Errors: [`Error::Invalid`] naming layer and KV head, both counted from 0.
pub(super) fn check_shares(shares: &[Vec<f64>]) -> Result<()> {
    let cells: usize = shares.iter().map(Vec::len).sum();
    if cells == 0 || cells > MAX_HEADS {
        let bound = format!("between 1 and {MAX_HEADS} are possible");
        return Err(Error::invalid("number of KV heads", cells, bound));
    }
    for (l, layer) in shares.iter().enumerate() {
        for (h, share) in layer.iter().enumerate() {
            if !share.is_finite() || *share < 0.0 {
                let what = format!("share of layer {l}, KV head {h}");
                let bound = "shares must be finite and not negative: allocate the plan again";
                return Err(Error::invalid(what, readable_number(*share), bound));
            }
        }
    }
    Ok(())
}

fn below_floor(
    budget: Budget,
    floor: &Floor,
    tokens: usize,
    heads: usize,
    [total, least]: [usize; 2],
) -> Error {
    let lowest = floor.tokens.min(tokens);
    let value = format!(
        "{} ({total} tokens over {heads} KV heads of a {tokens}-token prompt)",
        budget.readable(),
    );
    let bound = format!(
        "the floor is {lowest} tokens per KV head, {least} in all (sinks {} + window {} must fit): raise \
         the budget to {lowest}, or lower floor, sinks or window",
        floor.sinks, floor.window
    );
    Error::invalid("budget", value, bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fitted(shares: &[&[f64]], budget: f64, floor: usize, tokens: usize) -> TokenBudgets {
        let shares: Vec<Vec<f64>> = shares.iter().map(|l| l.to_vec()).collect();
        let budget = Budget::TokensPerHead(budget);
        fit(&shares, budget, &Floor::of(floor, 0), tokens).unwrap()
    }

    #[test]
    fn floor_and_share_of_the_rest_by_hand() {
        // 4 heads x 10 = 40 tokens, 8 of them floor: 32 by 1:2:5:8 is 2, 4, 10, 16.
        let shares: [&[f64]; 2] = [&[1.0, 2.0], &[5.0, 8.0]];
        assert_eq!(fitted(&shares, 10.0, 2, 100), [[4, 6], [12, 18]]);
    }

    #[test]
    fn remainders_tie_to_the_lower_layer_then_the_lower_head() {
        // 5.5, 5.5, 5.5, 5.5.
        assert_eq!(
            fitted(&[&[1.0, 1.0], &[1.0, 1.0]], 5.5, 0, 9),
            [[6, 6], [5, 5]]
        );
        // 1.5, 4.5, 3: a sixth of nine is below 1.5 in binary, half of nine is not.
        let shares: &[f64] = &[1.0 / 6.0, 3.0 / 6.0, 2.0 / 6.0];
        assert_eq!(fitted(&[shares], 3.0, 0, 9), [[2, 4, 3]]);
    }

    #[test]
    fn excess_above_the_prompt_goes_to_the_others_in_proportion() {
        // 30 tokens by 8:1:2, at most 15: 15, then 15 by 1:2.
        assert_eq!(
            fitted(&[&[8.0], &[1.0], &[2.0]], 10.0, 0, 15),
            [[15], [5], [10]]
        );
        // The second overflows only after the first did: 12, then 18 by 4:1 -> 12, then 6.
        assert_eq!(
            fitted(&[&[20.0], &[4.0], &[1.0]], 10.0, 0, 12),
            [[12], [12], [6]]
        );
        // Others without a share take it equally.
        assert_eq!(
            fitted(&[&[1.0], &[0.0], &[0.0]], 10.0, 0, 20),
            [[20], [5], [5]]
        );
        // Next to 1, shares of 1e-300 and 2e-300 vanish, until it is full.
        assert_eq!(
            fitted(&[&[1.0], &[1e-300], &[2e-300]], 10.0, 0, 15),
            [[15], [5], [10]]
        );
    }

    #[test]
    fn short_prompts_are_kept_whole() {
        assert_eq!(fitted(&[&[1.0], &[3.0]], 64.0, 36, 10), [[10], [10]]);
        let shares = vec![vec![1.0], vec![3.0]];
        let floor = Floor::of(4, 32);
        let too_little = fit(&shares, Budget::TokensPerHead(8.0), &floor, 10);
        assert!(
            too_little
                .unwrap_err()
                .to_string()
                .contains("the floor is 10")
        );
    }

    #[test]
    fn what_cannot_be_spent_is_refused_with_both_numbers() {
        let one = vec![vec![1.0], vec![1.0]];
        let floor = Floor::of(4, 32);
        let text = fit(&one, Budget::TokensPerHead(30.0), &floor, 2048)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("budget is 30 ") && text.contains("floor is 36"),
            "{text}"
        );
        assert!(text.contains("sinks 4 + window 32"), "{text}");
        for bad in [f64::NAN, -1.0, f64::INFINITY] {
            let shares = vec![vec![1.0], vec![bad]];
            let text = fit(&shares, Budget::TokensPerHead(64.0), &floor, 2048);
            assert!(text.unwrap_err().to_string().contains("layer 1, KV head 0"));
        }
        assert!(fit(&[], Budget::TokensPerHead(64.0), &floor, 2048).is_err());
        assert!(fit(&one, Budget::TokensPerHead(64.0), &floor, 0).is_err());
        assert!(fit(&one, Budget::TokensPerHead(64.0), &floor, MAX_TOKENS + 1).is_err());
        let low = Floor {
            whole_windows: false,
            tokens: 8,
            sinks: 4,
            window: 32,
        };
        let text = fit(&one, Budget::TokensPerHead(64.0), &low, 2048)
            .unwrap_err()
            .to_string();
        assert!(text.contains("8 tokens") && text.contains("36"), "{text}");
    }

    #[test]
    fn the_longest_prompt_of_the_largest_model_does_not_overflow() {
        let weights: Vec<f64> = (0..MAX_HEADS).map(|i| (i % 7) as f64).collect();
        let total = (MAX_HEADS * MAX_TOKENS / 2) as u64;
        let given = spread(&weights, total, &vec![MAX_TOKENS as u64; MAX_HEADS]);
        assert_eq!(given.iter().sum::<u64>(), total);
    }

    /// One share: mostly ordinary, some zero, some of another magnitude altogether.
    fn share() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => 0.01f64..100.0,
            2 => Just(0.0),
            1 => -250f64..250.0,
        ]
        .prop_map(|x| if x < 0.0 { 10f64.powf(x) } else { x })
    }

    #[derive(Clone, Debug)]
    struct Case {
        shares: Vec<Vec<f64>>,
        budget: Budget,
        floor: Floor,
        tokens: usize,
    }

    fn case() -> impl Strategy<Value = Case> {
        (1usize..12, 1usize..6, 1usize..5000).prop_flat_map(|(layers, heads, tokens)| {
            let shares = prop::collection::vec(prop::collection::vec(share(), heads), layers);
            let budget = prop_oneof![
                (1.0f64..8000.0).prop_map(Budget::TokensPerHead),
                (1u32..9000).prop_map(|b| Budget::TokensPerHead(f64::from(b))),
                (0.0001f64..1.0).prop_map(Budget::RetainedFraction),
            ];
            (shares, budget, 0usize..5, 0usize..40, 0usize..20).prop_map(
                move |(shares, budget, sinks, window, more)| Case {
                    shares,
                    budget,
                    floor: Floor {
                        whole_windows: false,
                        tokens: sinks + window + more,
                        sinks,
                        window,
                    },
                    tokens,
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn every_budget_is_spent_to_the_token_within_its_bounds(case in case()) {
            let Case { shares, budget, floor, tokens } = case;
            let cells = shares.len() * shares[0].len();
            let total = budget.total(cells, cells * tokens);
            let lowest = floor.tokens.min(tokens);
            let Ok(kept) = fit(&shares, budget, &floor, tokens) else {
                prop_assert!(total < lowest * cells);
                return Ok(());
            };
            let flat: Vec<usize> = kept.concat();
            prop_assert_eq!(flat.iter().sum::<usize>(), total);
            prop_assert!(flat.iter().all(|&b| (lowest..=tokens).contains(&b)));
            prop_assert_eq!(&kept, &fit(&shares, budget, &floor, tokens).unwrap());
            // More share, no fewer tokens; equal shares, at most one apart. Below a hundred-thousandth of
            // a token, shares tie.
            let weights = shares.concat();
            let sum: f64 = weights.iter().sum();
            let per_weight = (total - lowest * cells) as f64 / sum.max(f64::MIN_POSITIVE);
            for i in 0..cells {
                for j in 0..cells {
                    if (weights[i] - weights[j]) * per_weight > 1e-5 {
                        prop_assert!(flat[i] >= flat[j], "{:?} {:?}", weights, flat);
                    }
                    if weights[i] == weights[j] {
                        prop_assert!(flat[i].abs_diff(flat[j]) <= 1);
                    }
                }
            }
        }

        #[test]
        fn a_larger_share_of_one_head_never_costs_it_a_token(
            case in case(), at in 0usize..1000, factor in 1.0f64..50.0,
        ) {
            let Case { mut shares, budget, floor, tokens } = case;
            let (layers, heads) = (shares.len(), shares[0].len());
            let (l, h) = (at % layers, at / layers % heads);
            if let Ok(before) = fit(&shares, budget, &floor, tokens) {
                shares[l][h] = (shares[l][h] * factor).max(0.001);
                let after = fit(&shares, budget, &floor, tokens).unwrap();
                prop_assert!(after[l][h] >= before[l][h]);
            }
        }

        #[test]
        fn a_shuffled_plan_is_the_plan_shuffled(
            weights in prop::collection::vec(1u32..1_000_000, 1..40), shift in 0usize..40,
            budget in 1.0f64..200.0, tokens in 1usize..400,
        ) {
            // Distinct shares: a tie is broken by place, which a shuffle changes.
            let shares: Vec<f64> = weights.iter().enumerate()
                .map(|(i, w)| f64::from(*w) + i as f64 * 1e-3).collect();
            let mut turned = shares.clone();
            turned.rotate_left(shift % shares.len());
            let budget = Budget::TokensPerHead(budget);
            let floor = Floor::of(0, 1);
            let mut plain = fit(&[shares], budget, &floor, tokens).unwrap().concat();
            let places = shift % plain.len();
            plain.rotate_left(places);
            let turned = fit(&[turned], budget, &floor, tokens).unwrap().concat();
            for (a, b) in plain.iter().zip(&turned) {
                prop_assert!(a.abs_diff(*b) <= 1);
            }
            let differing = plain.iter().zip(&turned).filter(|(a, b)| a != b).count();
            prop_assert!(differing == 0 || differing == 2, "only a tie may move");
        }

        #[test]
        fn a_budget_of_the_whole_prompt_keeps_it(case in case()) {
            let Case { shares, floor, tokens, .. } = case;
            for budget in [Budget::TokensPerHead(tokens as f64), Budget::RetainedFraction(1.0)] {
                let kept = fit(&shares, budget, &floor, tokens).unwrap();
                prop_assert!(kept.concat().iter().all(|&b| b == tokens));
            }
        }

        #[test]
        fn fractions_times_huge_totals_are_exact(
            weights in prop::collection::vec(0u64..1000, 2..30), total in 0u64..(1 << 30),
        ) {
            let sum: u64 = weights.iter().sum();
            prop_assume!(sum > 0);
            let shares: Vec<f64> = weights.iter().map(|&w| w as f64 / sum as f64).collect();
            let given = spread(&shares, total, &vec![1 << 41; weights.len()]);
            // The same by whole numbers alone.
            let exact = |w: u64| (u128::from(w) * u128::from(total), u128::from(sum));
            let mut want: Vec<u64> = weights.iter().map(|&w| (exact(w).0 / exact(w).1) as u64).collect();
            let missing = (total - want.iter().sum::<u64>()) as usize;
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by_key(|&i| (std::cmp::Reverse(exact(weights[i]).0 % exact(weights[i]).1), i));
            order.into_iter().take(missing).for_each(|i| want[i] += 1);
            prop_assert_eq!(given, want);
        }
    }
}
