//! Columns of a profile as a chart needs them: complete, finite, one list per prompt.

use super::subject::Subject;
use super::text;
use crate::error::{Error, Result};
use crate::profile::{Profile, Query, threshold_name};
use crate::table::Table;

/// A family of columns that differ in their threshold.
pub(super) struct Family {
    /// What comes before the threshold.
    pub(super) prefix: String,
    /// What comes after it.
    pub(super) suffix: String,
}

impl Family {
    /// Name of the column of `threshold`.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that `table` has.
    pub(super) fn column(&self, table: &Table, threshold: f64) -> Result<String> {
        let name = format!(
            "{}{}{}",
            self.prefix,
            threshold_name(threshold),
            self.suffix
        );
        if table.column(&name).is_some() {
            return Ok(name);
        }
        let known: Vec<String> = table.names().filter_map(|n| self.threshold_of(n)).collect();
        if known.is_empty() {
            return Err(Error::unknown("column", &name, table.names()));
        }
        let known = known.iter().map(String::as_str);
        Err(Error::unknown("threshold", &threshold.to_string(), known))
    }

    /// The threshold that `column` is of, if it belongs to this family.
    fn threshold_of(&self, column: &str) -> Option<String> {
        let middle = column
            .strip_prefix(&self.prefix)?
            .strip_suffix(&self.suffix)?;
        let percent: f64 = middle.replace('_', ".").parse().ok()?;
        Some(
            format!("{:.6}", percent / 100.0)
                .trim_end_matches(['0', '.'])
                .to_owned(),
        )
    }
}

/// A column of `layers.parquet` as `[prompt][layer]`.
///
/// Errors: [`Error::UnknownName`], [`Error::Invalid`] for no prompt or an incomplete one,
/// [`Error::NotFinite`].
pub(super) fn by_layer(profile: &Profile, column: &str) -> Result<Vec<Vec<f64>>> {
    let values = profile.layer_grid(column)?;
    let complete = values
        .iter()
        .all(|layers| layers.len() == profile.meta.model.num_layers);
    check(profile, column, values.iter().flatten(), complete)?;
    Ok(values)
}

/// A column of `heads.parquet` as `[prompt][layer][query head]`.
///
/// Errors: as [`by_layer`].
pub(super) fn by_head(profile: &Profile, column: &str) -> Result<Vec<Vec<Vec<f64>>>> {
    let values = profile.head_grid(column)?;
    let complete = values.iter().all(|layers| {
        layers.len() == profile.meta.model.num_layers
            && layers
                .iter()
                .all(|heads| heads.len() == profile.meta.model.num_heads)
    });
    check(profile, column, values.iter().flatten().flatten(), complete)?;
    Ok(values)
}

fn check<'a>(
    profile: &Profile,
    column: &str,
    values: impl Iterator<Item = &'a f64>,
    complete: bool,
) -> Result<()> {
    let mut count = 0;
    for value in values {
        finite(profile, column, *value)?;
        count += 1;
    }
    if count == 0 {
        return Err(no_prompts(profile));
    }
    if !complete {
        let bound = format!(
            "the profile of {} must hold every layer and head: profile again",
            profile.meta.model.name
        );
        return Err(Error::invalid(
            format!("number of values in column {column}"),
            count,
            bound,
        ));
    }
    Ok(())
}

/// Refuses NaN and infinity, naming the column.
///
/// Errors: [`Error::NotFinite`].
pub(super) fn finite(profile: &Profile, column: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::NotFinite {
        place: format!(
            "column {column} of the profile of {}",
            profile.meta.model.name
        ),
        advice: "its weights or its dtype are at fault; profile again, with --dtype f32".to_owned(),
    })
}

/// The error for a profile that holds nothing to draw.
pub(super) fn no_prompts(profile: &Profile) -> Error {
    let bound = "a chart needs at least one; profile again without --limit 0";
    Error::invalid(
        format!(
            "number of prompts in the profile of {}",
            profile.meta.model.name
        ),
        0,
        bound,
    )
}

/// Refuses a query that `chart` has no columns for.
///
/// Errors: [`Error::Unsupported`].
pub(super) fn output_query(query: Query) -> Result<&'static str> {
    match query {
        Query::Last | Query::Pooled => Ok(query.name()),
        Query::Rows => Err(Error::Unsupported {
            what: "query for an output measure",
            found: query.name().to_owned(),
            supported: "last, pooled".to_owned(),
        }),
    }
}

/// The only profile or evaluation of a chart that draws one.
///
/// Errors: [`Error::Invalid`] for none or several.
pub(super) fn only<'s, T>(chart: &str, all: &'s [T]) -> Result<&'s T>
where
    Subject<'s>: From<&'s [T]>,
{
    let kind = Subject::from(all).kind().name();
    match all {
        [one] => Ok(one),
        _ => Err(Error::invalid(
            format!("number of {kind}s for {chart}"),
            all.len(),
            format!("this chart draws one at a time; run it once per {kind}"),
        )),
    }
}

/// Refuses more profiles or plans than a chart can keep apart, or none.
///
/// Errors: [`Error::Invalid`].
pub(super) fn at_most<'s>(most: usize, chart: &str, subject: impl Into<Subject<'s>>) -> Result<()> {
    let subject = subject.into();
    if (1..=most).contains(&subject.len()) {
        return Ok(());
    }
    let bound = format!("it must lie between 1 and {most}");
    let what = format!("number of {}s for {chart}", subject.kind().name());
    Err(Error::invalid(what, subject.len(), bound))
}

/// What a figure calls a profile.
pub(super) struct Name {
    long: String,
    short: String,
}

impl Name {
    /// The long name where `room` units hold it, else the short one, cut if need be.
    pub(super) fn within(&self, room: i32) -> String {
        let long = text::printable(&self.long);
        if text::width(&long) <= room {
            long
        } else {
            text::fitted(&text::printable(&self.short), room)
        }
    }
}

/// A name for every profile: its model, what tells it from the others, and its prompt lengths if they fit; its number
/// where nothing tells it from another.
pub(super) fn names(profiles: &[Profile]) -> Vec<Name> {
    let differ =
        |part: fn(&Profile) -> &str| profiles.windows(2).any(|p| part(&p[0]) != part(&p[1]));
    let by_data = differ(|p| &p.meta.data.name);
    let by_dtype = differ(|p| &p.meta.model.dtype);
    let short = |p: &Profile| {
        let mut parts = vec![p.meta.model.name.clone()];
        parts.extend(by_data.then(|| p.meta.data.name.clone()));
        parts.extend(by_dtype.then(|| p.meta.model.dtype.clone()));
        parts.join(", ")
    };
    let shorts: Vec<String> = profiles.iter().map(short).collect();
    let longs: Vec<String> = (profiles.iter().zip(&shorts))
        .map(|(profile, short)| match lengths(profile) {
            Some(lengths) => format!("{short}, {lengths}"),
            None => short.clone(),
        })
        .collect();
    let alone = |name: &String, all: &[String]| all.iter().filter(|n| *n == name).count() == 1;
    let name = |(i, (short, long)): (usize, (&String, &String))| {
        // Twins are numbered in the order given, which is that of the figure's provenance.
        let long = match alone(long, &longs) {
            true => long.clone(),
            false => format!("{long}, profile {}", i + 1),
        };
        let short = if alone(short, &shorts) {
            short.clone()
        } else {
            long.clone()
        };
        Name { long, short }
    };
    shorts.iter().zip(&longs).enumerate().map(name).collect()
}

/// The prompts' lengths in words.
fn lengths(profile: &Profile) -> Option<String> {
    let tokens = profile.layers.counts("tokens").ok()?;
    let (low, high) = (tokens.iter().min()?, tokens.iter().max()?);
    let show = |t: &u32| super::axis::number(f64::from(*t));
    Some(if low == high {
        format!("T = {}", show(low))
    } else {
        format!("T = {}\u{2013}{}", show(low), show(high))
    })
}

/// The number of prompts, where every profile has the same.
pub(super) fn common_count(counts: &[usize]) -> Option<usize> {
    let first = *counts.first()?;
    counts.iter().all(|&n| n == first).then_some(first)
}
