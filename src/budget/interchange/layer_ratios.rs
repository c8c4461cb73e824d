//! Per-layer compression ratios: the list that kvpress's `PerLayerCompressionPress` takes.

use std::path::Path;

use serde_json::json;

use super::json_file::read_json;
use crate::budget::readable_number::readable_number;
use crate::budget::{Budget, BudgetPlan, Granularity, Provenance, Request};
use crate::error::{Error, Result};
use crate::files;

/// What kvpress's file cannot say.
const WHAT: &str = "kvpress's ratios of";

/// Fraction of the prompt to REMOVE in every layer, from tokens kept of a prompt of `tokens`.
///
/// kvpress keeps max(1, int(T·(1 − ratio))) tokens in every head of a layer. The ratios are those nearest
/// to 1 − kept/T with which that arithmetic gives the kept tokens, never one fewer. A layer whose heads
/// differ by the token that a total left over is written with the lower number, since it has one number for
/// all its heads.
///
/// Paper: none; kvpress 0.5. Shapes: `[layer][kv_head]` -> `[layer]`.
///
/// Errors: [`Error::Unsupported`] for heads that differ by more: such a plan is not per layer;
/// [`Error::Invalid`] for a layer that keeps nothing, or more than the prompt.
pub fn layer_ratios(kept: &[Vec<usize>], tokens: usize) -> Result<Vec<f64>> {
    let ratio = |(l, layer): (usize, &Vec<usize>)| {
        let least = layer.iter().copied().min().unwrap_or(0);
        let most = layer.iter().copied().max().unwrap_or(0);
        if most - least > 1 {
            let supported =
                "equal KV heads (a plan of --granularity layer); LU-KV's .npy holds others";
            return Err(Error::Unsupported {
                what: "budget",
                found: format!("{least} to {most} tokens in layer {l}"),
                supported: supported.into(),
            });
        }
        if least == 0 || least > tokens {
            let bound = format!("kvpress keeps between 1 and all {tokens} tokens of a prompt");
            return Err(Error::invalid(format!("budget of layer {l}"), least, bound));
        }
        Ok(ratio_that_keeps(least, tokens))
    };
    kept.iter().enumerate().map(ratio).collect()
}

/// The largest float, at most 1 − kept/T, with which kvpress keeps `kept` of `tokens`.
fn ratio_that_keeps(kept: usize, tokens: usize) -> f64 {
    let mut ratio = 1.0 - kept as f64 / tokens as f64;
    while kept_by_kvpress(ratio, tokens) < kept {
        ratio = if ratio > 0.0 { ratio.next_down() } else { 0.0 };
    }
    ratio
}

/// kvpress's own arithmetic.
fn kept_by_kvpress(ratio: f64, tokens: usize) -> usize {
    if ratio >= 1.0 {
        return 0;
    }
    ((tokens as f64 * (1.0 - ratio)) as usize).max(1)
}

/// Writes ratios as a JSON list.
///
/// Errors: [`Error::Io`].
pub fn write_layer_ratios(path: &Path, ratios: &[f64]) -> Result<()> {
    files::replace_with(path, format!("{}\n", json!(ratios)).as_bytes())
}

/// Reads a JSON list of ratios.
///
/// Errors: [`Error::Io`]; [`Error::Format`] for what is no list of numbers between 0 and 1.
pub fn read_layer_ratios(path: &Path) -> Result<Vec<f64>> {
    let otherwise = "is no JSON list of compression ratios, one per layer";
    let ratios: Vec<f64> = read_json(path, otherwise)?;
    match ratios.iter().position(|r| !(0.0..=1.0).contains(r)) {
        None => Ok(ratios),
        Some(layer) => {
            let ratio = readable_number(ratios[layer]);
            let problem = format!(
                "layer {layer} has the ratio {ratio}; a compression ratio is the fraction removed, 0 to 1"
            );
            Err(Error::format(path, problem))
        }
    }
}

/// A plan that keeps what kvpress would keep by `ratios`, of a prompt as long as the request's.
///
/// The request's budget is replaced by the one that the ratios amount to.
///
/// Errors: [`Error::Invalid`] for another number of layers than the model's, and for a layer below the
/// request's floor; those of [`BudgetPlan::of_targets`].
pub fn layer_ratio_plan(
    ratios: &[f64],
    request: &Request<'_>,
    provenance: Provenance,
) -> Result<BudgetPlan> {
    let geometry = &request.geometry;
    geometry.refuse_windows(WHAT)?;
    if ratios.len() != geometry.layers {
        let bound = format!("the model has {}", geometry.numbers());
        let what = "number of compression ratios";
        return Err(Error::invalid(what, ratios.len(), bound));
    }
    let kept = ratios.iter().map(|&r| kept_by_kvpress(r, request.tokens));
    let kept: Vec<usize> = kept.collect();
    if let Some(layer) = kept.iter().position(|&k| k < request.lowest()) {
        let bound = format!(
            "sinks {} + window {} must fit, and the floor is {}: lower floor, sinks or window",
            request.floor.sinks,
            request.floor.window,
            request.lowest()
        );
        let what = format!("budget of layer {layer} (ratio {})", ratios[layer]);
        let kept = format!("{} tokens", kept[layer]);
        return Err(Error::invalid(what, kept, bound));
    }
    let total: usize = kept.iter().sum::<usize>() * geometry.kv_heads;
    let request = Request {
        budget: Budget::of_total(total, geometry.cells()),
        granularity: Granularity::Layer,
        ..request.clone()
    };
    let layers: Vec<f64> = kept.iter().map(|&k| k as f64).collect();
    let targets = request.targets(request.geometry.repeated(&layers));
    let (name, parameters) = ("kvpress-per-layer", json!({ "compression_ratios": ratios }));
    BudgetPlan::of_targets(name, parameters, &request, &targets, provenance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;
    use proptest::prelude::*;

    #[test]
    fn ratios_are_the_fraction_removed() {
        let kept = [vec![25, 25], vec![100, 100], vec![51, 50]];
        assert_eq!(layer_ratios(&kept, 100).unwrap(), [0.75, 0.0, 0.5]);
        assert!(layer_ratios(&[vec![25, 40]], 100).is_err());
        assert!(layer_ratios(&[vec![0, 0]], 100).is_err());
        assert!(layer_ratios(&[vec![101]], 100).is_err());
    }

    #[test]
    fn a_plan_survives_the_journey() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ratios.json");
        let request = Sample::default().request(30.0, 10);
        let plan =
            BudgetPlan::allocate("pyramid", json!({}), &request, Provenance::default()).unwrap();
        write_layer_ratios(&path, &layer_ratios(&plan.tokens, 100).unwrap()).unwrap();
        let ratios = read_layer_ratios(&path).unwrap();
        let back = layer_ratio_plan(&ratios, &request, Provenance::default()).unwrap();
        assert_eq!(back.tokens, plan.tokens);
        assert_eq!(back.budget, Budget::TokensPerHead(30.0));
    }

    #[test]
    fn what_is_no_list_of_ratios_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ratios.json");
        for (text, words) in [
            ("{}", "no JSON list"),
            ("[0.5, 1.5]", "layer 1 has the ratio 1.5;"),
            ("[0.5, -0.1]", "layer 1 has the ratio -0.1;"),
            ("[1e308]", "layer 0 has the ratio 1e308;"),
            ("[\"a\"]", "column 4"),
            (
                "[0.5,\n NaN]",
                "line 2 column 2 (JSON has neither NaN nor Infinity)",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = read_layer_ratios(&path).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
        let request = Sample::default().request(30.0, 10);
        let plan = |ratios: &[f64]| layer_ratio_plan(ratios, &request, Provenance::default());
        assert!(plan(&[0.5]).unwrap_err().to_string().contains("3 layers"));
        assert!(
            plan(&[0.5, 0.95, 0.5])
                .unwrap_err()
                .to_string()
                .contains("layer 1")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn kvpress_keeps_what_was_meant(tokens in 1usize..200_000, kept in 0usize..200_000) {
            let kept = 1 + kept % tokens;
            let ratio = ratio_that_keeps(kept, tokens);
            prop_assert_eq!(kept_by_kvpress(ratio, tokens), kept);
            prop_assert!((ratio - (1.0 - kept as f64 / tokens as f64)).abs() < 1e-12);
        }
    }
}
