//! The two halves of what is cached.

/// Keys, or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Keys after RoPE.
    Keys,
    /// Values.
    Values,
}
