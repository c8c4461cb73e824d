//! The columns of `hitrate.parquet`, filled from the hits of one prompt.

use super::measure::PromptHits;
use super::store::Observation;
use crate::profile::PromptLabel;
use crate::table::{Rows, Table};

/// One row per layer, query head, observation and window.
pub(super) fn table(label: &PromptLabel, prefix: usize, hits: &PromptHits) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in hits.layers.iter().enumerate() {
        for (h, head) in layer.iter().enumerate() {
            for observation in Observation::ALL {
                let windows = match observation {
                    Observation::Prompt => &head.prompt,
                    Observation::Generated => &head.generated,
                };
                for (w, window) in windows.iter().enumerate() {
                    rows.label(label, l);
                    rows.count("head", h);
                    rows.text("observation", observation.name());
                    rows.count("window", w);
                    rows.count("prefix", prefix);
                    rows.count("answer_tokens", hits.answer_tokens);
                    for (suffix, counts) in
                        [("", &window.all), ("_beyond_sinks", &window.beyond_sinks)]
                    {
                        rows.number(format!("hit_rate{suffix}"), counts.rate());
                        rows.number(format!("hits{suffix}"), counts.hits);
                        rows.count(format!("steps{suffix}"), counts.steps);
                        rows.count(format!("skipped{suffix}"), counts.skipped);
                        rows.count(format!("important{suffix}"), counts.important);
                    }
                    rows.number("overlap", window.overlap);
                }
            }
        }
    }
    rows.finish()
}
