//! A profile's curves, averaged over prompts.
//!
//! Every prompt's curve is known on its own grid (every budget to 16, then steps of at most a quarter, then
//! T). It is straight between those budgets and constant from its own T on, where everything is kept. The
//! mean over prompts is taken at every budget that any prompt's grid has, up to the reference length.

use std::collections::BTreeMap;

use super::curve::Curve;
use crate::error::{Error, Result};
use crate::profile::Profile;

/// Retained mass of every KV head in layer order: the mean of its query heads' curves.
///
/// The query heads of a KV head share one kept set in a real cache; their curves are each for the head's
/// own best keys. The mean is thus an upper bound of what one set can retain for the group.
pub(super) fn mass_curves(profile: &Profile, query: &str, tokens: usize) -> Result<Vec<Curve>> {
    let meta = &profile.meta;
    let heads = read(profile, &format!("mass_{query}"), 0.0, 0..meta.num_heads)?;
    let group = (meta.num_heads / meta.num_kv_heads.max(1)).max(1);
    Ok(heads
        .chunks(group)
        .map(|members| {
            let all: Vec<&Curve> = members.iter().flatten().collect();
            Curve::mean(&all, tokens)
        })
        .collect())
}

/// Loss of every layer's output, 0 where nothing is lost: 1 − cos, or the relative L2 error.
///
/// Without any token there is no output: the loss is 1 by either measure.
pub(super) fn loss_curves(
    profile: &Profile,
    query: &str,
    measure: OutputMeasure,
    raw: bool,
    tokens: usize,
) -> Result<Vec<Curve>> {
    let (name, start) = match measure {
        OutputMeasure::Cosine => ("cos", 0.0),
        OutputMeasure::RelativeL2 => ("l2", 1.0),
    };
    let column = format!("{name}_{}{query}", if raw { "raw_" } else { "" });
    // The table repeats a layer's output for every head of it.
    let layers = read(profile, &column, start, 0..1)?;
    let one_minus = |curve: Curve| match measure {
        OutputMeasure::Cosine => curve.negated().shifted(1.0),
        OutputMeasure::RelativeL2 => curve,
    };
    Ok(layers
        .iter()
        .map(|prompts| one_minus(Curve::mean(&prompts.iter().collect::<Vec<_>>(), tokens)))
        .collect())
}

/// How an output with some keys is compared with the output with all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMeasure {
    /// 1 − cos(y, ŷ).
    #[default]
    Cosine,
    /// ‖y − ŷ‖ / ‖y‖.
    RelativeL2,
}

/// T of a prompt, and one of its curves as (budget, value).
type Line = (u32, Vec<(usize, f64)>);

/// Curves `[layer x head][prompt]` of a column, for the heads in `heads`.
fn read(
    profile: &Profile,
    column: &str,
    start: f64,
    heads: std::ops::Range<usize>,
) -> Result<Vec<Vec<Curve>>> {
    let table = &profile.curves;
    if table.rows() == 0 {
        let bound = "this needs the curves: make the profile again with this version of kvprof";
        return Err(Error::invalid("rows of curves.parquet", 0, bound));
    }
    let values = table.numbers(column)?;
    let count = |name| table.counts(name);
    let (prompt, layer, head) = (count("prompt")?, count("layer")?, count("head")?);
    let (budget, tokens) = (count("budget")?, count("tokens")?);
    let mut points: BTreeMap<(usize, u32), Line> = BTreeMap::new();
    for (row, value) in values.into_iter().enumerate() {
        if heads.contains(&(head[row] as usize)) {
            let cell = layer[row] as usize * heads.len() + head[row] as usize;
            let (_, line) = points
                .entry((cell, prompt[row]))
                .or_insert((tokens[row], Vec::new()));
            line.push((budget[row] as usize, value));
        }
    }
    let mut curves = vec![Vec::new(); profile.meta.num_layers * heads.len()];
    for ((cell, prompt), (tokens, line)) in points {
        let whole = line.last().is_some_and(|&(b, _)| b == tokens as usize);
        let curve = Curve::new(start, line).filter(|_| whole);
        match (curves.get_mut(cell), curve) {
            (Some(prompts), Some(curve)) => prompts.push(curve),
            _ => {
                let (l, h) = (cell / heads.len(), cell % heads.len());
                let what = format!("curve {column} of prompt {prompt}, layer {l}, head {h}");
                let bound = "rising budgets up to T and finite values are expected: profile again";
                return Err(Error::invalid(what, "damaged", bound));
            }
        }
    }
    if let Some(cell) = curves.iter().position(Vec::is_empty) {
        let what = format!("curve {column} of layer {}", cell / heads.len());
        return Err(Error::invalid(
            what,
            "absent",
            "every layer needs one: profile again",
        ));
    }
    Ok(curves)
}
