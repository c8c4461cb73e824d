//! A profile's curves, averaged over prompts.
//!
//! Every prompt's curve is known on its own grid (every budget to 16, then steps of at most a quarter, then
//! T). It is straight between those budgets and constant from its own T on, where everything is kept. The
//! mean over prompts is taken at every budget that any prompt's grid has, up to the reference length.

use std::collections::BTreeMap;
use std::ops::Range;

use super::curve::Curve;
use crate::error::{Error, Result};
use crate::profile::Profile;

/// Retained mass of every KV head in layer order: the mean of its query heads' curves.
///
/// The query heads of a KV head share one kept set in a real cache; their curves are each for the head's
/// own best keys. The mean is thus an upper bound of what one set can retain for the group.
pub(super) fn mass_curves(profile: &Profile, query: &str, tokens: usize) -> Result<Vec<Curve>> {
    let meta = &profile.meta;
    let kind = Kind {
        column: format!("mass_{query}"),
        start: 0.0,
        values: (0.0, 1.0),
    };
    let heads = read(profile, &kind, 0..meta.model.num_heads)?;
    let group = (meta.model.num_heads / meta.model.num_kv_heads.max(1)).max(1);
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
    let (name, start, values) = match measure {
        OutputMeasure::Cosine => ("cos", 0.0, (-1.0, 1.0)),
        OutputMeasure::RelativeL2 => ("l2", 1.0, (0.0, f64::INFINITY)),
    };
    let kind = Kind {
        column: format!("{name}_{}{query}", if raw { "raw_" } else { "" }),
        start,
        values,
    };
    // The table repeats a layer's output for every head of it.
    let layers = read(profile, &kind, 0..1)?;
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

/// A kind of curve.
struct Kind {
    /// Where it is stored.
    column: String,
    /// Its value at no token.
    start: f64,
    /// The least and the largest value that it can have.
    values: (f64, f64),
}

/// How far rounding may take a mass or a cosine beyond what it can be.
const SLACK: f64 = 1e-6;

impl Kind {
    fn can_be(&self, value: f64) -> bool {
        let (least, most) = self.values;
        match most.is_finite() {
            true => (least - SLACK..=most + SLACK).contains(&value),
            false => value >= least,
        }
    }

    fn values_in_words(&self) -> String {
        let (least, most) = self.values;
        match most.is_finite() {
            true => format!("{least} to {most}"),
            false => format!("{least} or more"),
        }
    }
}

/// T of a prompt, and one of its curves as (budget, value).
type Line = (u32, Vec<(usize, f64)>);

/// Curves `[layer x head][prompt]` of a kind, for the heads in `heads`.
fn read(profile: &Profile, kind: &Kind, heads: Range<usize>) -> Result<Vec<Vec<Curve>>> {
    let column = &kind.column;
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
    let mut curves = vec![Vec::new(); profile.meta.model.num_layers * heads.len()];
    for ((cell, prompt), (tokens, line)) in points {
        let whole = line.last().is_some_and(|&(b, _)| b == tokens as usize);
        let within = line.iter().all(|&(_, value)| kind.can_be(value));
        let curve = Curve::new(kind.start, line).filter(|_| whole && within);
        match (curves.get_mut(cell), curve) {
            (Some(prompts), Some(curve)) => prompts.push(curve),
            _ => {
                let (l, h) = (cell / heads.len(), cell % heads.len());
                let what = format!("curve {column} of prompt {prompt}, layer {l}, head {h}");
                let values = kind.values_in_words();
                let bound = format!(
                    "rising budgets up to T and finite values of {values} are expected: profile again"
                );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;
    use crate::table::{Column, Table};

    /// The sample's profile with one value of a column of its curves replaced: the last of layer 2, head `head`.
    fn with_last(column: &str, head: u32, value: f64) -> Profile {
        let mut profile = Sample::default().profile();
        let heads = profile.curves.counts("head").unwrap();
        let last = heads.iter().rposition(|&h| h == head).unwrap();
        let mut curves = Table::default();
        for name in profile.curves.names() {
            let mut values = profile.curves.column(name).unwrap().clone();
            if let (true, Column::Number(numbers)) = (name == column, &mut values) {
                numbers[last] = value;
            }
            curves.push(name, values);
        }
        profile.curves = curves;
        profile
    }

    #[test]
    fn values_that_cannot_be_are_damage() {
        let loss = |profile: &Profile, measure| loss_curves(profile, "pooled", measure, false, 100);
        let mass = |value| mass_curves(&with_last("mass_pooled", 3, value), "pooled", 100);
        for sound in [0.0, -1e-7, 1.0 + 1e-7] {
            assert!(mass(sound).is_ok(), "{sound}");
        }
        for bad in [-0.1, 1.1, 1e300, f64::NAN, f64::INFINITY] {
            let text = mass(bad).unwrap_err().to_string();
            assert!(
                text.contains("mass_pooled of prompt 0, layer 2, head 3"),
                "{text}"
            );
            assert!(
                text.contains("of 0 to 1 are expected: profile again"),
                "{text}"
            );
        }
        for (value, sound) in [
            (-1.0, true),
            (1.0 + 1e-7, true),
            (-1.1, false),
            (1.1, false),
        ] {
            let read = loss(&with_last("cos_pooled", 0, value), OutputMeasure::Cosine);
            assert_eq!(read.is_ok(), sound, "{value}");
        }
        for (value, sound) in [
            (0.0, true),
            (7.5, true),
            (-0.1, false),
            (f64::INFINITY, false),
        ] {
            let read = loss(&with_last("l2_pooled", 0, value), OutputMeasure::RelativeL2);
            assert_eq!(read.is_ok(), sound, "{value}");
            if let Err(error) = read {
                assert!(error.to_string().contains("of 0 or more"), "{error}");
            }
        }
    }
}
