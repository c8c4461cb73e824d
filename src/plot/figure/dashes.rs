//! Dashed lines: pieces of a path, drawn and left out in turns of several lengths.

use super::canvas::Spot;

/// The pieces of `path` that are drawn where `pattern` gives lengths that are drawn and left out in turns, in canvas
/// units; dashes bend round corners.
pub(super) fn dashes(path: &[Spot], pattern: &[i32]) -> Vec<Vec<Spot>> {
    if pattern.iter().all(|&length| length <= 0) {
        return vec![path.to_vec()];
    }
    let mut turns = pattern
        .iter()
        .map(|&length| f64::from(length.max(0)))
        .cycle();
    let (mut drawn, mut left) = (true, turns.next().unwrap_or(0.0));
    let mut pieces: Vec<Vec<Spot>> = vec![path.first().copied().into_iter().collect()];
    for pair in path.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let length = dx.hypot(dy);
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let share = gone / length;
            let spot = (
                from.0 + (dx * share).round() as i32,
                from.1 + (dy * share).round() as i32,
            );
            if drawn {
                pieces
                    .last_mut()
                    .into_iter()
                    .for_each(|piece| piece.push(spot));
            } else {
                pieces.push(vec![spot]);
            }
            drawn = !drawn;
            left = turns.next().unwrap_or(length);
        }
        left -= length - gone;
        if drawn {
            pieces
                .last_mut()
                .into_iter()
                .for_each(|piece| piece.push(to));
        }
    }
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_and_gaps_take_turns_and_bend_round_corners() {
        let corner = [(0, 0), (10, 0), (10, 10)];
        assert_eq!(
            dashes(&corner, &[8, 1, 4, 2]),
            [
                vec![(0, 0), (8, 0)],
                vec![(9, 0), (10, 0), (10, 3)],
                vec![(10, 5), (10, 10)],
            ]
        );
        assert_eq!(dashes(&corner, &[]), [corner.to_vec()]);
        assert_eq!(dashes(&corner, &[0, 0]), [corner.to_vec()]);
        assert!(dashes(&[], &[1, 1]).is_empty() && dashes(&[(3, 3)], &[1, 1]).is_empty());
        assert!(dashes(&[(3, 3), (3, 3)], &[1, 1]).len() < 2);
    }
}
