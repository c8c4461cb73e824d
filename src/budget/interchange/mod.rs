//! Budgets in the formats of other tools.

mod budget_curve;
mod head_scores;
mod json_file;
mod layer_ratios;
mod npy;
mod plan_curve;

pub use budget_curve::{BudgetCurve, GLOBAL_RATIOS};
pub use head_scores::{HeadScores, head_score_plan};
pub use json_file::read_json;
pub use layer_ratios::{layer_ratio_plan, layer_ratios, read_layer_ratios, write_layer_ratios};
pub use npy::{is_npy, read_npy, write_npy};
pub use plan_curve::{EvenRows, PlanCurve, plan_curve};
