//! The budgets at which curves are stored.

/// Every budget to 16, then steps of at most a quarter, then T itself.
///
/// Paper: none: house definition. Units: keys.
///
/// ```
/// let grid = kvprof::profile::budget_grid(30);
/// assert_eq!(grid[..16], (1..=16).collect::<Vec<_>>());
/// assert_eq!(grid[16..], [20, 25, 30]);
/// ```
pub fn budget_grid(tokens: usize) -> Vec<usize> {
    let mut grid: Vec<usize> = (1..=tokens.min(16)).collect();
    while let Some(&last) = grid.last()
        && last < tokens
    {
        grid.push((last + last / 4).min(tokens));
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_end_at_the_prompt_and_never_step_by_more_than_a_quarter() {
        assert_eq!(budget_grid(0), [0usize; 0]);
        assert_eq!(budget_grid(1), [1]);
        assert_eq!(budget_grid(17), (1..=17).collect::<Vec<_>>());
        for t in [16, 18, 100, 2048, 8191] {
            let grid = budget_grid(t);
            assert_eq!(grid.last(), Some(&t));
            assert!(
                grid.windows(2)
                    .all(|w| w[0] < w[1] && (w[1] <= 16 || w[1] * 4 <= w[0] * 5))
            );
        }
    }
}
