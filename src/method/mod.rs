//! What a method is, one prefill observed for many methods at once, and a cache that lives by a method.
//!
//! A [`Method`] is an allocation, a scorer and a head split, which say what a prompt's cut keeps, a representation,
//! which says in what elements keys and values lie, and a residency, which says how the cache changes while it lives.
//! [`observe`] prefills a prompt for several methods; [`Observed`] then allocates, selects and cuts for each.

mod asked;
mod definition;
mod live_cache;
mod named;
mod observation;
mod replay;
pub mod residency;
mod spelling;

pub use definition::{Allocation, Cut, Measured, Method, Ranking, RuledAllocation};
pub use live_cache::{HeldRows, LiveCache};
pub use named::{METHODS, NamedMethod};
pub use observation::{Observed, Prefilled, observe, prefill};
pub use residency::{RESIDENCIES, ResidencyRule};
pub use spelling::NamedFiles;

/// Tokens that a cache gets as room for decoding when it is cut; it grows as they come.
pub const DECODE_ROOM: usize = 32;
