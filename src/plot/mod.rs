//! Charts: one file each, computing nothing.
