//! The best way to spend a number of bytes on layers that can each be held in several ways.

/// A way to hold a layer: what it takes, and how far it is from the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Bytes of the layer.
    pub(super) bytes: usize,
    /// What adds up over layers.
    pub(super) error: f64,
}

/// One edge of a layer's hull.
struct Step {
    layer: usize,
    to: usize,
    /// Bytes more.
    bytes: usize,
    /// Error less, per byte.
    gain: f64,
}

/// The place of every layer's choice; together they take at most `limit` bytes. `None` where even the cheapest take more.
///
/// From every layer's cheapest choice on, steps along the lower convex hulls of (bytes, error) are taken by falling gain
/// per byte, ties to the lower layer, until one does not fit. What is then left goes to the one change of a layer that
/// gains the most within it. After whole steps the sum of errors is the least that so many bytes can have; between two it
/// is above that by less than the next step would gain, since no change gains more per byte than that step. For the same
/// reason more bytes never mean a larger error: a second change after the first could.
///
/// Paper: greedy on a convex hull is Fox's marginal analysis (1966).
/// Shapes: `layers` `[layer][choice]`, at least one each, with finite errors.
pub(super) fn best_choices(layers: &[Vec<Choice>], limit: usize) -> Option<Vec<usize>> {
    let hulls: Vec<Vec<usize>> = layers.iter().map(|choices| convex_hull(choices)).collect();
    let first = |hull: &Vec<usize>| hull.first().copied();
    let mut chosen: Vec<usize> = hulls.iter().map(first).collect::<Option<_>>()?;
    let taken: usize = layers.iter().zip(&chosen).map(|(l, &c)| l[c].bytes).sum();
    let mut left = limit.checked_sub(taken)?;
    for step in steps(layers, &hulls) {
        match left.checked_sub(step.bytes) {
            None => break,
            Some(rest) => (left, chosen[step.layer]) = (rest, step.to),
        }
    }
    if let Some((layer, to)) = best_change(layers, &chosen, left) {
        chosen[layer] = to;
    }
    Some(chosen)
}

/// The edges of all hulls by falling gain per byte; those of a layer stay in order.
fn steps(layers: &[Vec<Choice>], hulls: &[Vec<usize>]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (layer, (choices, hull)) in layers.iter().zip(hulls).enumerate() {
        steps.extend(hull.windows(2).map(|ends| {
            let (from, to) = (choices[ends[0]], choices[ends[1]]);
            Step {
                layer,
                to: ends[1],
                bytes: to.bytes - from.bytes,
                gain: -slope(from, to),
            }
        }));
    }
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    steps
}

/// The change of one layer that takes at most `left` more bytes and gains the most: layer and choice.
fn best_change(layers: &[Vec<Choice>], chosen: &[usize], left: usize) -> Option<(usize, usize)> {
    let mut best: Option<(usize, usize)> = None;
    let mut most = 0.0;
    for (layer, (choices, &now)) in layers.iter().zip(chosen).enumerate() {
        for (place, choice) in choices.iter().enumerate() {
            let gain = choices[now].error - choice.error;
            if choice.bytes <= choices[now].bytes + left && gain > most {
                (best, most) = (Some((layer, place)), gain);
            }
        }
    }
    best
}

/// Places on the lower convex hull from the cheapest choice to that of the least error, by bytes.
fn convex_hull(choices: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    let of = |&i: &usize| choices[i];
    order.sort_by(|a, b| {
        let (a, b) = (of(a), of(b));
        a.bytes.cmp(&b.bytes).then(a.error.total_cmp(&b.error))
    });
    let mut hull: Vec<usize> = Vec::new();
    for place in order {
        let choice = choices[place];
        // What costs more must err less.
        if hull
            .last()
            .is_some_and(|&b| choice.error >= choices[b].error)
        {
            continue;
        }
        while let [.., a, b] = hull[..]
            && slope(choices[b], choice) <= slope(choices[a], choices[b])
        {
            hull.pop();
        }
        hull.push(place);
    }
    hull
}

/// Error per byte between two choices, the second of which takes more.
fn slope(a: Choice, b: Choice) -> f64 {
    (b.error - a.error) / (b.bytes as f64 - a.bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(choices: &[(usize, f64)]) -> Vec<Choice> {
        let choice = |&(bytes, error): &(usize, f64)| Choice { bytes, error };
        choices.iter().map(choice).collect()
    }

    fn spent(layers: &[Vec<Choice>], chosen: &[usize]) -> Choice {
        let own = || layers.iter().zip(chosen).map(|(l, &c)| l[c]);
        Choice {
            bytes: own().map(|c| c.bytes).sum(),
            error: own().map(|c| c.error).sum(),
        }
    }

    /// The least error of every way to choose.
    fn brute_force(layers: &[Vec<Choice>], limit: usize) -> Option<f64> {
        let Some((first, others)) = layers.split_first() else {
            return Some(0.0);
        };
        let with = |c: &Choice| Some(c.error + brute_force(others, limit.checked_sub(c.bytes)?)?);
        first.iter().filter_map(with).min_by(f64::total_cmp)
    }

    #[test]
    fn steps_by_hand() {
        // Gains per byte: 0.5, 0.1 | 0.3, 0.05. The choice of 3 bytes lies above the first hull.
        let a = of(&[(1, 2.0), (3, 1.0), (2, 1.9), (13, 0.0)]);
        let b = of(&[(2, 1.0), (4, 0.4), (12, 0.0)]);
        let layers = [a, b];
        let chosen = |limit| best_choices(&layers, limit);
        assert_eq!(chosen(2), None);
        assert_eq!(chosen(3), Some(vec![0, 0]));
        // One byte is left, for which the first layer has a choice off its hull.
        assert_eq!(chosen(4), Some(vec![2, 0]));
        assert_eq!(chosen(5), Some(vec![1, 0]));
        assert_eq!(chosen(7), Some(vec![1, 1]));
        // The next step takes ten bytes; eight buy the other layer's.
        assert_eq!(chosen(15), Some(vec![1, 2]));
        assert_eq!(chosen(17), Some(vec![3, 1]));
        assert_eq!(chosen(usize::MAX), Some(vec![3, 2]));
    }

    #[test]
    fn equal_layers_are_raised_from_the_first_on() {
        let layers = vec![of(&[(1, 1.0), (2, 0.5)]); 3];
        assert_eq!(best_choices(&layers, 4), Some(vec![1, 0, 0]));
        assert_eq!(best_choices(&layers, 5), Some(vec![1, 1, 0]));
    }

    /// Bytes and errors of up to four layers with up to six choices.
    fn any_layers() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let choice = (1usize..40, 0.0f64..1.0).prop_map(|(bytes, error)| Choice { bytes, error });
        prop::collection::vec(prop::collection::vec(choice, 1..7), 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whole_steps_are_as_good_as_brute_force_and_others_within_the_next(layers in any_layers()) {
            let hulls: Vec<_> = layers.iter().map(|l| convex_hull(l)).collect();
            let mut chosen: Vec<usize> = hulls.iter().map(|h| h[0]).collect();
            let mut before: Option<Choice> = None;
            for (i, step) in steps(&layers, &hulls).iter().map(Some).chain([None]).enumerate() {
                let here = spent(&layers, &chosen);
                let found = spent(&layers, &best_choices(&layers, here.bytes).unwrap());
                let best = brute_force(&layers, here.bytes).unwrap();
                prop_assert!((found.error - best).abs() < 1e-12, "after {} steps", i);
                if let Some(before) = before {
                    for limit in before.bytes..here.bytes {
                        let found = spent(&layers, &best_choices(&layers, limit).unwrap());
                        let above = found.error - brute_force(&layers, limit).unwrap();
                        prop_assert!(above > -1e-12 && above < before.error - here.error + 1e-12);
                    }
                }
                before = Some(here);
                if let Some(step) = step {
                    chosen[step.layer] = step.to;
                }
            }
        }

        #[test]
        fn more_bytes_never_mean_a_larger_error_nor_more_than_there_are(layers in any_layers()) {
            let least: usize = layers.iter().map(|l| l.iter().map(|c| c.bytes).min().unwrap()).sum();
            prop_assert!(least == 0 || best_choices(&layers, least - 1).is_none());
            let mut before = f64::INFINITY;
            for limit in least..least + 160 {
                let found = spent(&layers, &best_choices(&layers, limit).unwrap());
                prop_assert!(found.bytes <= limit);
                prop_assert!(found.error <= before + 1e-12, "{} after {}", found.error, before);
                before = found.error;
            }
        }
    }
}
