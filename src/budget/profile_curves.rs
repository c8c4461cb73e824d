//! Measured curves, averaged over prompts.
//!
//! Every prompt's curve is known on its own grid (every budget to 16, then steps of at most a quarter, then
//! T). It is straight between those budgets and constant from its own T on, where everything is kept. The
//! mean over prompts is taken at every budget that any prompt's grid has, up to the reference length.

use std::ops::RangeInclusive;

use super::curve::Curve;
use super::measures::Measures;
use crate::error::{Error, Result};
use crate::profile::{CurveMeasure, OutputMeasure, Vector};

/// Retained mass of every KV head in layer order: the mean of its query heads' curves.
///
/// The query heads of a KV head share one kept set in a real cache; their curves are each for the head's
/// own best keys. The mean is thus an upper bound of what one set can retain for the group.
pub(super) fn mass_curves(
    measures: &Measures,
    vector: Vector,
    tokens: usize,
) -> Result<Vec<Curve>> {
    let heads = read(measures, CurveMeasure::Mass(vector))?;
    let groups = heads.chunks(measures.geometry().group().max(1));
    let mean = |members: &[Vec<Curve>]| Curve::mean(members.iter().flatten(), tokens);
    Ok(groups.map(mean).collect())
}

/// Loss of every layer's output, 0 where nothing is lost: 1 − cos, or the relative L2 error.
///
/// Without any token there is no output: the loss is 1 by either measure.
pub(super) fn loss_curves(
    measures: &Measures,
    vector: Vector,
    measure: OutputMeasure,
    raw: bool,
    tokens: usize,
) -> Result<Vec<Curve>> {
    let output = CurveMeasure::Output {
        vector,
        measure,
        raw,
    };
    let layers = read(measures, output)?;
    let loss = |prompts: &Vec<Curve>| {
        let mean = Curve::mean(prompts, tokens);
        match measure {
            OutputMeasure::Cosine => mean.changed(|cosine| 1.0 - cosine),
            OutputMeasure::RelativeL2 => mean,
        }
    };
    Ok(layers.iter().map(loss).collect())
}

/// What a curve's values can be.
struct Kind {
    /// Its value at no token.
    start: f64,
    /// The values that it can have, and what rounding makes of them.
    values: RangeInclusive<f64>,
    /// Those values in words.
    words: &'static str,
}

/// How far rounding may take a mass or a cosine beyond what it can be.
const SLACK: f64 = 1e-6;

impl Kind {
    fn of(measure: &CurveMeasure) -> Self {
        let (start, values, words) = match measure {
            CurveMeasure::Mass(_) => (0.0, -SLACK..=1.0 + SLACK, "0 to 1"),
            CurveMeasure::Output { measure, .. } => match measure {
                OutputMeasure::Cosine => (0.0, -1.0 - SLACK..=1.0 + SLACK, "-1 to 1"),
                OutputMeasure::RelativeL2 => (1.0, 0.0..=f64::INFINITY, "0 or more"),
            },
        };
        Self {
            start,
            values,
            words,
        }
    }
}

/// Curves `[layer x head][prompt]` of a measure.
fn read(measures: &Measures, measure: CurveMeasure) -> Result<Vec<Vec<Curve>>> {
    let kind = Kind::of(&measure);
    let column = measure.column();
    let layers = measures.geometry().layers;
    let mut curves: Vec<Vec<Curve>> = Vec::new();
    let prompts = measures.curves(&measure)?.iter();
    for (prompt, (cells, &tokens)) in prompts.zip(measures.prompt_lengths()).enumerate() {
        curves.resize_with(cells.len(), Vec::new);
        for (cell, (points, curves)) in cells.iter().zip(&mut curves).enumerate() {
            let whole = points.last().is_some_and(|&(b, _)| b == tokens);
            let within = points
                .iter()
                .all(|&(_, value)| kind.values.contains(&value));
            let curve = Curve::new(kind.start, points.iter().copied());
            let Some(curve) = curve.filter(|_| whole && within) else {
                let heads = (cells.len() / layers.max(1)).max(1);
                let (l, h) = (cell / heads, cell % heads);
                let what = format!("curve {column} of prompt {prompt}, layer {l}, head {h}");
                let bound = format!(
                    "rising budgets up to T and finite values of {} are expected: profile again",
                    kind.words
                );
                return Err(Error::invalid(what, "damaged", bound));
            };
            curves.push(curve);
        }
    }
    if curves.is_empty() {
        let bound = "every layer needs one: profile again";
        return Err(Error::invalid(format!("curve {column}"), "absent", bound));
    }
    Ok(curves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, needs};
    use crate::table::{Column, Table};

    /// The sample's profile with one value of a column of its curves replaced: the last of layer 2, head `head`.
    fn with_last(column: &str, head: u32, value: f64) -> Measures {
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
        Measures::of_profile(&profile, &needs()).unwrap()
    }

    #[test]
    fn values_that_cannot_be_are_damage() {
        let pooled = Vector::Pooled;
        let loss =
            |measured: &Measures, measure| loss_curves(measured, pooled, measure, false, 100);
        let mass = |value| mass_curves(&with_last("mass_pooled", 3, value), pooled, 100);
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
