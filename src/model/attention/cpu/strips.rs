//! Strips: as many queries side by side as the registers hold, across the lanes of vectors.

use crate::compute::lanes::{LANES, Vector};

/// Vectors of queries that are worked on at once.
pub(super) const WIDTH: usize = 3;

/// Queries of a strip: the fewest whose rows are kept where they are watched.
pub(in crate::model) const STRIP: usize = WIDTH * LANES;

/// Keys of a chunk: its logits for a strip take 12 KB.
pub(super) const CHUNK: usize = 64;

/// One number of each query of a strip.
pub(super) type Across = [Vector; WIDTH];

/// Nothing of each.
pub(super) const ZERO: Across = [[0.0; LANES]; WIDTH];
