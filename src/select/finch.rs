//! FINCH: attention of the question's rows, each weighed by the keys that it sees.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Mean over the window's rows of attention times the number of tokens before the row, in the mean over the group.
///
/// Paper: doi:10.1162/tacl_a_00716 (FINCH), section 3. Differs: the prompt is scored whole, not chunk by chunk; the window
/// is the selection's, where the paper's is the question; keys keep their positions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finch {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "finch",
    paper: "doi:10.1162/tacl_a_00716 (FINCH), section 3",
    about: "mean attention of the window's rows, each weighed by the tokens before it",
    differs: "the prompt is scored whole, not chunk by chunk; keys keep their positions; the window is the selection's",
    build: |p| Ok(Box::new(parse::<Finch>(p)?)),
};

impl Scorer for Finch {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window_rows: window.max(1),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let (tokens, heads) = (observation.tokens, observation.kv_heads * observation.group);
        let rows = observation.window_rows()?;
        let count = rows.rows() as f64;
        let mut weighed = vec![0.0; heads * tokens];
        for (head, sums) in weighed.chunks_mut(tokens.max(1)).enumerate() {
            for (row, position) in rows.of_head(head).zip(rows.positions()) {
                let weight = position as f64 / count;
                let of_row = sums.iter_mut().zip(row);
                of_row.for_each(|(sum, p)| *sum += weight * f64::from(*p));
            }
        }
        let weighed = Tensor::from_vec(weighed, (heads, tokens), &Device::Cpu)?;
        let mean = RowPooling {
            prefix: observation.prefix(),
            ..RowPooling::mean_of_groups(observation.group, tokens)
        };
        LayerScores::new(pool_rows(&weighed, mean)?.to_device(observation.device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::WindowRows;

    #[test]
    fn later_rows_weigh_more() {
        // Two heads of one group, rows of positions 1 and 2.
        let rows = [
            0.5f32, 0.5, 0.0, 0.25, 0.25, 0.5, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0,
        ];
        let observation = LayerObservation {
            window_rows: Some(WindowRows::new(&rows, 2, 3, 2)),
            ..LayerObservation::of(3, 2, 1, &Device::Cpu)
        };
        let score = |observation: &LayerObservation<'_>| {
            Finch {}.score(observation).unwrap().to_rows().unwrap()
        };
        // Heads (0.5 + 2 * 0.25) / 2 and (0 + 2 * 1) / 2, and so on.
        assert_eq!(score(&observation), [[0.75, 0.5, 0.25]]);
        let behind = LayerObservation {
            window: 2,
            ..observation
        };
        assert_eq!(score(&behind), [[0.75, 0.0, 0.0]]);
    }
}
