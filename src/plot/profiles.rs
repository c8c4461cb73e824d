//! Profiles as charts need them: complete and finite columns, one list per prompt, and names that tell them apart.

use super::figure::{Words, number};
use crate::error::{Error, Result};
use crate::profile::{Profile, Query, threshold_name};
use crate::table::Table;

/// What a column is called: a prefix, a threshold and a suffix.
pub(super) type Sought<'s> = (&'s str, f64, &'s str);

/// The column of every profile's `table` that is called as `sought`.
///
/// Errors: [`Error::UnknownName`] where no profile has it, listing the thresholds that all have; else [`Error::Invalid`],
/// naming the first profile that lacks it.
pub(super) fn columns(
    profiles: &[&Profile],
    table: fn(&Profile) -> &Table,
    sought: Sought<'_>,
) -> Result<Vec<String>> {
    let (prefix, threshold, suffix) = sought;
    let name = format!("{prefix}{}{suffix}", threshold_name(threshold));
    let lacks = |profile: &&Profile| table(profile).column(&name).is_none();
    let Some(without) = profiles.iter().position(lacks) else {
        return Ok(vec![name; profiles.len()]);
    };
    let tables = profiles.iter().map(|profile| table(profile));
    let known: Vec<Vec<String>> = tables.map(|table| thresholds(table, sought)).collect();
    let in_all = |threshold: &&String| known.iter().all(|own| own.contains(threshold));
    let common: Vec<&str> = (known[without].iter().filter(in_all))
        .map(String::as_str)
        .collect();
    if profiles.iter().all(lacks) {
        if known.iter().all(Vec::is_empty) {
            let names = table(profiles[without]).names();
            return Err(Error::unknown("column", &name, names));
        }
        if !common.is_empty() {
            return Err(Error::unknown("threshold", &threshold.to_string(), common));
        }
    }
    let profile = names(profiles)[without].within(i32::MAX);
    let has = match &known[without][..] {
        [] => "has none".to_owned(),
        own => format!("has {}", own.join(", ")),
    };
    let way_out = if common.is_empty() {
        "no threshold is in all profiles: leave some out, or profile them alike".to_owned()
    } else {
        format!(
            "take one that all profiles have ({}), leave this one out, or profile it again",
            common.join(", ")
        )
    };
    let what = format!("threshold of {prefix}THRESHOLD{suffix}");
    let bound = format!("the profile of {profile} {has}; {way_out}");
    Err(Error::invalid(what, threshold, bound))
}

/// The thresholds of the columns of `table` that are called as those sought.
fn thresholds(table: &Table, (prefix, _, suffix): Sought<'_>) -> Vec<String> {
    let threshold_of = |column: &str| {
        let middle = column.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let percent: f64 = middle.replace('_', ".").parse().ok()?;
        let share = format!("{:.6}", percent / 100.0);
        Some(share.trim_end_matches(['0', '.']).to_owned())
    };
    table.names().filter_map(threshold_of).collect()
}

/// T of every prompt.
///
/// Errors: as [`by_layer`].
pub(super) fn prompt_tokens(profile: &Profile) -> Result<Vec<f64>> {
    let prompts = by_layer(profile, "tokens")?.into_iter();
    let first = prompts.map(|layers| layers.first().copied().unwrap_or(1.0).max(1.0));
    Ok(first.collect())
}

/// `values` of every prompt as per cent of its T.
///
/// Errors: as [`by_layer`].
pub(super) fn of_prompts(profile: &Profile, mut values: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    for (prompt, tokens) in values.iter_mut().zip(prompt_tokens(profile)?) {
        prompt.iter_mut().for_each(|value| *value *= 100.0 / tokens);
    }
    Ok(values)
}

/// A column of `layers.parquet` as `[prompt][layer]`.
///
/// Errors: [`Error::UnknownName`], [`Error::Invalid`] for no prompt or an incomplete one,
/// [`Error::NotFinite`].
pub(super) fn by_layer(profile: &Profile, column: &str) -> Result<Vec<Vec<f64>>> {
    let values = profile.layer_grid(column)?;
    let count = profile.meta.model.num_layers;
    let complete = values.iter().all(|layers| layers.len() == count);
    check(profile, column, &values.concat(), complete)?;
    Ok(values)
}

/// A column of `heads.parquet` as `[prompt][layer][query head]`.
///
/// Errors: as [`by_layer`].
pub(super) fn by_head(profile: &Profile, column: &str) -> Result<Vec<Vec<Vec<f64>>>> {
    let values = profile.head_grid(column)?;
    let (layers, heads) = (profile.meta.model.num_layers, profile.meta.model.num_heads);
    let is_whole = |prompt: &Vec<Vec<f64>>| {
        prompt.len() == layers && prompt.iter().all(|values| values.len() == heads)
    };
    let complete = values.iter().all(is_whole);
    check(profile, column, &values.concat().concat(), complete)?;
    Ok(values)
}

fn check(profile: &Profile, column: &str, values: &[f64], complete: bool) -> Result<()> {
    for value in values {
        finite(profile, column, *value)?;
    }
    if values.is_empty() {
        return Err(no_prompts(profile));
    }
    if complete {
        return Ok(());
    }
    let model = &profile.meta.model.name;
    Err(Error::invalid(
        format!("number of values in column {column}"),
        values.len(),
        format!("the profile of {model} must hold every layer and head: profile again"),
    ))
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
    Error::invalid(
        format!(
            "number of prompts in the profile of {}",
            profile.meta.model.name
        ),
        0,
        "a chart needs at least one; profile again without --limit 0",
    )
}

/// Refuses a query that there are no columns of outputs for.
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

/// A name for every profile: its model, what tells it from the others (data, type, rows of the observation window), and
/// its prompt lengths if they fit; its number where nothing tells it from another.
pub(super) fn names(profiles: &[&Profile]) -> Vec<Words> {
    let differ = |part: fn(&Profile) -> &str| profiles.windows(2).any(|p| part(p[0]) != part(p[1]));
    let by_data = differ(|p| &p.meta.data.name);
    let by_dtype = differ(|p| &p.meta.model.dtype);
    let rows = |p: &Profile| p.meta.settings.measures.window;
    let by_rows = profiles.windows(2).any(|p| rows(p[0]) != rows(p[1]));
    let short = |p: &&Profile| {
        let mut parts = vec![p.meta.model.name.clone()];
        parts.extend(by_data.then(|| p.meta.data.name.clone()));
        parts.extend(by_dtype.then(|| p.meta.model.dtype.clone()));
        parts.extend(by_rows.then(|| match rows(p) {
            Some(rows) => format!("w = {}", number(rows as f64)),
            None => "w = T".to_owned(),
        }));
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
        let long = if alone(long, &longs) {
            long.clone()
        } else {
            format!("{long}, profile {}", i + 1)
        };
        if alone(short, &shorts) {
            Words::of([&long, short])
        } else {
            Words::from(long)
        }
    };
    shorts.iter().zip(&longs).enumerate().map(name).collect()
}

/// What a figure says of the only profile that it shows: its model, lengths and prompts.
pub(super) fn facts(profile: &Profile) -> Vec<Words> {
    let mut facts = names(&[profile]);
    facts.push(prompts(profile.meta.data.prompts).into());
    facts
}

/// The prompts' lengths in words.
fn lengths(profile: &Profile) -> Option<String> {
    let tokens = profile.layers.counts("tokens").ok()?;
    let (low, high) = (tokens.iter().min()?, tokens.iter().max()?);
    let [first, last] = [low, high].map(|t| number(f64::from(*t)));
    Some(if low == high {
        format!("T = {first}")
    } else {
        format!("T = {first}\u{2013}{last}")
    })
}

/// A number of prompts.
pub(super) fn prompts(number: usize) -> String {
    match number {
        1 => "1 prompt".to_owned(),
        n => format!("{n} prompts"),
    }
}
