//! Where the bytes of packed weights lie.

use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// Bytes of weights, in memory of their own or in a mapped file that several matrices share.
///
/// Differs: mapped bytes are read from the file when they are first used, and processes share them. A file that is cut
/// short while it is mapped ends the process.
#[derive(Clone)]
pub enum StoredBytes {
    /// Memory of their own.
    Held(Vec<u8>),
    /// A part of a mapped file.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl StoredBytes {
    /// A part of them; mapped ones are not copied.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        match self {
            Self::Held(bytes) => Self::Held(bytes[range].to_vec()),
            Self::Mapped(file, own) => {
                Self::Mapped(file.clone(), own.start + range.start..own.start + range.end)
            }
        }
    }
}

impl Deref for StoredBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Mapped(file, range) => &file[range.clone()],
        }
    }
}

impl From<Vec<u8>> for StoredBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Held(bytes)
    }
}
