//! Measuring how many cached tokens each head and layer needs, and the profile that holds the result.

mod asked;
mod budget_grid;
mod by_layer;
mod calibration;
mod capture;
mod compare;
mod device_vectors;
mod group_measures;
mod head_path;
mod hidden_states;
mod kept_batch;
mod layer_growth;
mod measures;
mod minimum_budget;
mod needs;
mod options;
mod output_bound;
mod output_budget;
mod probe;
mod projection;
mod quantisation;
mod query;
mod readings;
mod residual_cosine;
mod row_budgets;
mod rows;
mod run;
mod store;
mod threshold;
mod time_estimate;
mod vectors;
mod window_sums;
mod work;

pub use budget_grid::budget_grid;
pub use by_layer::{Batch, prompt_by_layer};
pub use calibration::{
    Calibration, CalibrationBound, KindTimes, LayerTime, ReadingTimes, calibrate,
};
pub use capture::{
    CaptureFolder, CaptureManifest, CaptureProbe, CaptureStream, CaptureWriter, CapturedData,
    CapturedLayers, CapturedModel, CapturedPrompt, LayerFacts,
};
pub use compare::{ColumnDifference, compare};
pub use layer_growth::LayerGrowth;
pub use measures::{HeadMeasures, LayerMeasures, MinimumBudgets, SINKS, entropy, share};
pub use minimum_budget::Ranked;
pub use needs::{BudgetMeasure, CurveMeasure, LayerNumber, Needs, Points, TokenMeasure};
pub use options::MeasureOptions;
pub use output_budget::{OutputCurve, OutputCurves, Projection, output_curves};
pub use probe::Profiler;
pub use quantisation::QuantisedOutput;
pub use query::{Crossing, OutputMeasure, Query, Vector};
pub use row_budgets::RowBudgets;
pub use rows::{LayerSpan, PromptLabel, PromptTables, all_tables, prompt_tables};
pub use run::{ProfileRun, Prompt, prompts_sha256};
pub use store::{KIND, Profile, ProfileRecord, ProfileSettings, QUANTISATION, TABLES};
pub use threshold::threshold_name;
pub use time_estimate::{SecondsRange, TimedRun};
