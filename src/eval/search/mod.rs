//! Searching for a plan by what it does to what the model says next, and seeing how much of the gain holds elsewhere.

mod coordinate;
mod run;
mod shape;

pub use coordinate::{Ended, Found, SearchOptions};
pub use run::{HeldOutGain, PlanSearch, Searched, Start, hold_out};
pub use shape::LayerGroups;
