//! When two programs may choose different tokens: ties of scores at the edge of a budget.

/// Scores closer than this, relative to the larger, are ties: four roundings of float32, as two programs leave them.
///
/// Every tie that is met is printed, with how far apart its scores are: norms of keys alone have any.
pub const TIE: f64 = 2.5 * f32::EPSILON as f64;

/// Every slot that only one side keeps must be a tie of the scores at the edge of the budget.
#[allow(dead_code)] // Not every test file chooses by one score alone.
pub fn check_head(scores: &[f64], ours: &[u32], theirs: &[u32], what: &str) -> usize {
    check_stages(&[scores], ours, theirs, what)
}

/// The same where several scores choose: a tie of any of them will do.
pub fn check_stages(stages: &[&[f64]], ours: &[u32], theirs: &[u32], what: &str) -> usize {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let only = |a: &[u32], b: &[u32]| -> Vec<u32> {
        a.iter().filter(|s| !b.contains(s)).copied().collect()
    };
    let (mine, other) = (only(ours, theirs), only(theirs, ours));
    let gap = |scores: &[f64], a: u32, b: u32| {
        let [a, b] = [a, b].map(|slot| scores[slot as usize]);
        ((a - b).abs() / a.abs().max(b.abs()), a, b)
    };
    let mut largest = 0f64;
    for (&a, &b) in mine.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
        let gaps = stages.iter().map(|scores| gap(scores, a, b));
        let (gap, a, b) = gaps.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert!(gap < TIE, "{what}: scores {a} and {b} are no tie ({gap:e})");
        largest = largest.max(gap);
    }
    if !mine.is_empty() {
        let slots = mine.len();
        eprintln!("{what}: slots at a tie {slots}, their scores {largest:.1e} apart");
    }
    mine.len()
}

/// The same where the heads of a layer compete, and may keep other numbers of tokens: the layer's slots are one pool.
#[allow(dead_code)]
pub fn check_across_heads(
    stages: &[Vec<Vec<f64>>],
    ours: &[Vec<u32>],
    theirs: &[Vec<u32>],
    what: &str,
) -> usize {
    let pooled = |heads: &[Vec<u32>], tokens: usize| -> Vec<u32> {
        let heads = heads.iter().enumerate();
        let slots = heads.flat_map(|(h, slots)| slots.iter().map(move |s| (h * tokens) as u32 + s));
        slots.collect()
    };
    let tokens = stages[0][0].len();
    let scores: Vec<Vec<f64>> = stages.iter().map(|heads| heads.concat()).collect();
    let scores: Vec<&[f64]> = scores.iter().map(Vec::as_slice).collect();
    check_stages(
        &scores,
        &pooled(ours, tokens),
        &pooled(theirs, tokens),
        what,
    )
}
