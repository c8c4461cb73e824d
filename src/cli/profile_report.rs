//! What a profile says at its end: a table of its layers, and what to do next.

use std::io::Write;
use std::path::Path;

use kvprof::profile::Profile;
use serde_json::json;

use super::long_run::RunArguments;
use super::summary::Summary;
use super::{counted, quoted};

/// Prints a finished profile as it was asked for.
pub fn report(run: &RunArguments, profile: &Profile, folder: &Path) -> anyhow::Result<()> {
    let (summary, meta) = (Summary::of(profile)?, &profile.meta);
    let types = type_costs(profile)?;
    let json = || {
        json!({
            "profile": folder, "meta": meta, "layers": summary.to_json(), "types": types,
        })
    };
    run.show(json, |out| {
        let tokens = profile.layers.counts("tokens")?;
        writeln!(
            out,
            "{}\n\nMean over {} of {} ({} to {} tokens), written to {}",
            summary.table(),
            counted(meta.data.prompts, "prompt"),
            meta.data.name,
            tokens.iter().min().unwrap_or(&0),
            tokens.iter().max().unwrap_or(&0),
            folder.display()
        )?;
        write_types(out, &types)?;
        let shown = quoted(&folder.to_string_lossy());
        let threshold = if meta.settings.measures.thresholds.contains(&0.9) {
            String::new()
        } else {
            format!(" --threshold {}", summary.threshold())
        };
        writeln!(out, "Next: kvprof plot lmba --profile {shown}{threshold}")?;
        Ok(())
    })
}

/// What a type of the cache costs: relative L2 of the layers' outputs, mean over prompts.
#[derive(serde::Serialize)]
struct TypeCost {
    cache: String,
    mean: f64,
    most: f64,
    layer_of_most: usize,
}

/// One for every type that was measured.
fn type_costs(profile: &Profile) -> anyhow::Result<Vec<TypeCost>> {
    if profile.quantisation.is_none() {
        return Ok(Vec::new());
    }
    let errors = profile.type_grid("l2_pooled")?;
    let types = profile.meta.settings.measures.quantise.iter().enumerate();
    let costs = types.filter_map(|(i, held_as)| {
        let layers = 0..profile.meta.model.num_layers;
        let of_layer = |l: usize| {
            let prompts = errors.iter().filter_map(|layers| layers.get(l)?.get(i));
            prompts.sum::<f64>() / errors.len().max(1) as f64
        };
        let means: Vec<f64> = layers.map(of_layer).collect();
        let most = means.iter().copied().enumerate();
        let (layer_of_most, most) = most.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(TypeCost {
            cache: held_as.to_string(),
            mean: means.iter().sum::<f64>() / means.len().max(1) as f64,
            most,
            layer_of_most,
        })
    });
    Ok(costs.collect())
}

/// A line for each.
fn write_types(out: &mut impl Write, costs: &[TypeCost]) -> std::io::Result<()> {
    if costs.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nRelative L2 of the output with keys and values in other types, mean over prompts:"
    )?;
    costs.iter().try_for_each(|cost| {
        let TypeCost {
            cache,
            mean,
            most,
            layer_of_most,
        } = cost;
        writeln!(
            out,
            "{cache}: {mean:.5}, at most {most:.5} in layer {layer_of_most}"
        )
    })
}
