//! What a profile costs in operations and time, timed on the model's own layers.

use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget};
use kvprof::model::LayerStream;
use kvprof::model::config::ModelConfig;
use kvprof::model::operations::Operations;
use kvprof::profile::{
    Calibration, CalibrationBound, MeasureOptions, Prompt, SecondsRange, TimedRun, calibrate,
};
use serde::Serialize;

use super::profile_need::ProfileNeed;

/// How long a calibration should take.
const CALIBRATION: Duration = Duration::from_secs(10);

/// What a run costs besides memory.
#[derive(Debug, Serialize)]
pub struct ProfileEstimate {
    /// Of projections and feed-forward.
    pub(super) flops_layers: f64,
    pub(super) flops_attention: f64,
    /// Of the output head, which a run layer by layer leaves out.
    pub(super) flops_head: f64,
    #[serde(flatten)]
    pub(super) time: Option<RunTimes>,
    /// Why nothing was timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "not_timed")]
    pub(super) why_not_timed: Option<String>,
}

/// How long a run takes that holds a layer at a time, and one that holds all of them.
#[derive(Debug, Serialize)]
pub struct RunTimes {
    pub(super) seconds_streamed: f64,
    pub(super) seconds_unstreamed: f64,
    pub(super) streamed: RunTime,
    pub(super) unstreamed: RunTime,
    pub(super) calibration: CalibrationOfPrompt,
}

/// Seconds and bytes of one of them.
#[derive(Debug, Serialize)]
pub struct RunTime {
    /// All of it.
    pub(super) total: SecondsRange,
    /// Getting weights into memory.
    pub(super) reading: SecondsRange,
    /// Times that all weights are read.
    pub(super) readings: usize,
    /// The bound of what is held at most.
    pub(super) memory: usize,
}

/// What was timed, and on which prompt.
#[derive(Debug, Serialize)]
pub struct CalibrationOfPrompt {
    /// The data set's own name for it.
    pub(super) prompt: String,
    /// Tokens that it has; more than were timed where memory or time did not allow them.
    pub(super) prompt_tokens: usize,
    #[serde(flatten)]
    pub(super) timed: Calibration,
}

impl ProfileEstimate {
    /// The operations of a run alone.
    pub fn untimed(config: &ModelConfig, prompts: &[Prompt]) -> Self {
        let operations = Operations::of_prompts(config, &lengths(prompts));
        Self {
            flops_layers: operations.layers,
            flops_attention: operations.attention,
            flops_head: operations.head,
            time: None,
            why_not_timed: None,
        }
    }

    /// With why no layer was timed.
    pub fn not_timed(self, why: String) -> Self {
        Self {
            why_not_timed: Some(why),
            ..self
        }
    }

    /// With the time of the run, from layers that are timed on its longest prompt.
    pub fn timed(
        self,
        stream: &mut LayerStream<'_>,
        prompts: &[Prompt],
        need: &ProfileNeed,
        measures: &MeasureOptions,
        quiet: bool,
    ) -> anyhow::Result<Self> {
        let Some(longest) = prompts.iter().max_by_key(|prompt| prompt.ids.len()) else {
            return Ok(self);
        };
        let bound = CalibrationBound {
            tokens: need.calibrated_tokens,
            time: CALIBRATION,
        };
        let spinner = spinner(quiet);
        let timed = calibrate(
            stream,
            &longest.ids,
            measures,
            bound,
            &mut |layer, tokens| {
                spinner.set_message(format!("timing layer {layer} on {tokens} tokens"));
            },
        );
        spinner.finish_and_clear();
        let timed = timed
            .map_err(|e| longest.named(e))
            .with_context(|| format!("timing layers on prompt {}", longest.id))?;
        let run = TimedRun {
            config: stream.config(),
            lengths: &lengths(prompts),
        };
        let layers = run.layers(&timed);
        let of = |readings: usize, memory: usize, more: f64| {
            let reading = run.reading(&timed, readings, need.weights_stay);
            RunTime {
                total: reading.plus(layers).plus(SecondsRange::exactly(more)),
                reading,
                readings,
                memory,
            }
        };
        let streamed = of(need.batches, need.total, 0.0);
        let all_layers = need.all_layers + need.footprint.workspace;
        let unstreamed = of(1, all_layers, run.head(&timed));
        Ok(Self {
            time: Some(RunTimes {
                seconds_streamed: streamed.total.seconds,
                seconds_unstreamed: unstreamed.total.seconds,
                streamed,
                unstreamed,
                calibration: CalibrationOfPrompt {
                    prompt: longest.id.clone(),
                    prompt_tokens: longest.ids.len(),
                    timed,
                },
            }),
            ..self
        })
    }
}

fn lengths(prompts: &[Prompt]) -> Vec<usize> {
    prompts.iter().map(|prompt| prompt.ids.len()).collect()
}

/// Turns on stderr while layers are timed, on its own: a pass may take seconds.
fn spinner(quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let spinner = ProgressBar::with_draw_target(None, target);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}
