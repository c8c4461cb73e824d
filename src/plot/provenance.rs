//! Where a figure comes from, as the text inside its files.

use crate::profile::{Meta, Profile};

/// A record of the figure: its command, this program, and every profile with its checksums.
pub(super) fn record(chart: &str, profiles: &[Profile], command: &str) -> String {
    let mut lines = vec![
        format!("chart: {chart}"),
        format!("command: {command}"),
        format!("kvprof: {}", env!("CARGO_PKG_VERSION")),
    ];
    for (number, profile) in profiles.iter().enumerate() {
        lines.extend(
            of_profile(&profile.meta).map(|line| format!("profile {}: {line}", number + 1)),
        );
    }
    lines.join("\n")
}

fn of_profile(meta: &Meta) -> impl Iterator<Item = String> {
    let window = meta
        .window
        .map_or_else(|| "all rows".to_owned(), |w| format!("{w} rows"));
    [
        format!(
            "model {} ({}), from {}",
            meta.model, meta.architecture, meta.model_source
        ),
        format!("model sha256 {}", meta.model_sha256),
        format!("data set {}, {} prompts", meta.dataset, meta.prompts),
        format!("data set sha256 {}", meta.dataset_sha256),
        format!(
            "template {}, window {window}, {} on {}",
            meta.template, meta.dtype, meta.device
        ),
        format!("measured by kvprof {}: {}", meta.kvprof, meta.command),
    ]
    .into_iter()
}
