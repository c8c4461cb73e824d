//! Budgets in the formats of other tools.

mod budget_curve;
mod head_scores;
mod layer_ratios;
mod npy;

pub use budget_curve::{BudgetCurve, GLOBAL_RATIOS};
pub use head_scores::{HeadScores, head_score_plan};
pub use layer_ratios::{layer_ratio_plan, layer_ratios, read_layer_ratios, write_layer_ratios};
pub use npy::{read_npy, write_npy};
