//! How a prompt is read again for a scorer.

use std::ops::Range;

/// How a prompt is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayNeeds {
    /// Tokens of the prompt that are read again in one pass.
    pub chunk: usize,
    /// First tokens that share in the attention of every pass.
    pub sinks: usize,
    /// Whether a share counts times what W_o makes of the token's value, over the norm of the query's input.
    pub norms: bool,
}

impl ReplayNeeds {
    /// The chunks of a prompt of `tokens` whose first `prefix` are not read again.
    pub fn chunks(&self, prefix: usize, tokens: usize) -> Vec<Range<usize>> {
        let starts = (prefix..tokens).step_by(self.chunk.max(1));
        starts
            .map(|start| start..tokens.min(start + self.chunk))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_begin_behind_the_prefix() {
        let needs = ReplayNeeds {
            chunk: 4,
            sinks: 2,
            norms: false,
        };
        assert_eq!(needs.chunks(3, 12), [3..7, 7..11, 11..12]);
        assert_eq!(needs.chunks(3, 8), [3..7, 7..8]);
        assert!(needs.chunks(5, 5).is_empty());
    }
}
