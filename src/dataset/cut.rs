//! Cutting an over-long prompt in the middle, where the least is lost.

use std::ops::Range;

/// The two stretches of a prompt that a cut to `max` tokens keeps: its beginning and its end.
///
/// The beginning has half of `max`, rounded up. A prompt that fits is kept whole, its second
/// stretch then being empty.
///
/// Paper: none; LongBench's convention. Differs: LongBench halves with rounding down on both sides,
/// which loses a token of an odd `max`.
///
/// Units: token positions.
pub fn kept(tokens: usize, max: usize) -> (Range<usize>, Range<usize>) {
    if tokens <= max {
        return (0..tokens, tokens..tokens);
    }
    let first = max.div_ceil(2);
    (0..first, tokens - (max - first)..tokens)
}

/// `ids` cut in the middle to at most `max`; see [`kept`].
///
/// ```
/// use kvprof::dataset::cut::middle_cut;
///
/// assert_eq!(middle_cut(&[1, 2, 3, 4, 5, 6, 7], 3), [1, 2, 7]);
/// ```
pub fn middle_cut(ids: &[u32], max: usize) -> Vec<u32> {
    let (first, last) = kept(ids.len(), max);
    [&ids[first], &ids[last]].concat()
}

/// Where the token that stood at `position` stands after the cut; `None` if it was cut out.
pub fn position_after(position: usize, tokens: usize, max: usize) -> Option<usize> {
    let (first, last) = kept(tokens, max);
    if first.contains(&position) {
        Some(position)
    } else {
        last.contains(&position)
            .then(|| first.end + (position - last.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_stay() {
        let ids = [10, 11, 12, 13, 14, 15, 16];
        assert_eq!(middle_cut(&ids, 4), [10, 11, 15, 16]);
        assert_eq!(middle_cut(&ids, 5), [10, 11, 12, 15, 16]);
        assert_eq!(middle_cut(&ids, 1), [10]);
        assert_eq!(middle_cut(&ids, 0), [0u32; 0]);
        assert_eq!(middle_cut(&ids, 7), ids);
        assert_eq!(middle_cut(&ids, 100), ids);
        assert_eq!(middle_cut(&[], 3), [0u32; 0]);
    }

    #[test]
    fn positions_follow_the_cut() {
        let after: Vec<_> = (0..7).map(|p| position_after(p, 7, 5)).collect();
        assert_eq!(
            after,
            [Some(0), Some(1), Some(2), None, None, Some(3), Some(4)]
        );
        assert_eq!(position_after(6, 7, 9), Some(6));
        assert_eq!(position_after(7, 7, 9), None);
    }

    #[test]
    fn every_kept_token_is_where_its_position_says() {
        for tokens in 0..12u32 {
            let ids: Vec<u32> = (0..tokens).collect();
            for max in 0..14 {
                let cut = middle_cut(&ids, max);
                assert_eq!(cut.len(), ids.len().min(max));
                let mapped: Vec<_> = ids
                    .iter()
                    .filter(|&&id| position_after(id as usize, ids.len(), max).is_some())
                    .copied()
                    .collect();
                assert_eq!(mapped, cut);
            }
        }
    }
}
