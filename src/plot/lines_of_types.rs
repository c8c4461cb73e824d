//! Methods that differ only in how many bits they hold: points of one line.

use super::outcomes::{FULL, Outcome, distinct};
use crate::model::cache::{Elements, Grouped, Representation};

/// Methods whose points one line joins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line<'m> {
    /// The method's name as a panel has room for it, or one for all: `q2|q4|q8`, `snapkv+q4`.
    pub(super) name: String,
    /// Its methods.
    pub(super) methods: Vec<&'m str>,
}

/// A line for every method; those that spend no budget and differ only in the bits of one kind of type share one.
pub(super) fn lines_of_types<'m>(methods: &[&'m str], rows: &[Outcome<'_>]) -> Vec<Line<'m>> {
    let mut lines: Vec<(Option<String>, Line<'m>)> = Vec::new();
    for &method in methods {
        let own = rows.iter().filter(|row| row.method == method);
        let budgets = distinct(own.map(|row| row.budget));
        let kind = (budgets == [FULL]).then(|| kind(method)).flatten();
        let same = lines
            .iter_mut()
            .find(|(known, _)| known.is_some() && *known == kind);
        match same {
            Some((_, line)) => line.methods.push(method),
            None => {
                let methods = vec![method];
                let name = short(method);
                lines.push((kind, Line { name, methods }));
            }
        }
    }
    let named = lines.into_iter().map(|(_, mut line)| {
        if line.methods.len() > 1 {
            line.methods
                .sort_by(|a, b| held(rows, a).total_cmp(&held(rows, b)));
            line.name = joined(&line.methods);
        }
        line
    });
    named.collect()
}

/// A method's name with its type's bits left out; `None` where it names no type of few bits.
fn kind(method: &str) -> Option<String> {
    let (before, after) = method.split_once("cache(")?;
    let held_as: Representation = after.strip_suffix(')')?.parse().ok()?;
    let kind = |elements: Elements| match elements {
        Elements::Grouped(Grouped {
            group, residual, ..
        }) => Some(format!("groups of {group} behind {residual}")),
        Elements::Blocks(_) => Some("blocks".to_owned()),
        Elements::RotatedBlocks(_) => Some("rotated blocks".to_owned()),
        _ => None,
    };
    Some(format!(
        "{before}, {}, {}",
        kind(held_as.keys)?,
        kind(held_as.values)?
    ))
}

/// Bytes that a method holds, in any row: they grow alike with prompts.
fn held(rows: &[Outcome<'_>], method: &str) -> f64 {
    let row = rows.iter().find(|row| row.method == method);
    row.map_or(0.0, |row| row.held)
}

/// A name without the words around its type: `full+cache(q4)` is `q4`, `snapkv+cache(q4)` is `snapkv+q4`.
fn short(method: &str) -> String {
    let Some((before, held_as)) = method
        .strip_suffix(')')
        .and_then(|m| m.rsplit_once("cache("))
    else {
        return method.to_owned();
    };
    let before = if before == "full+" { "" } else { before };
    format!("{before}{held_as}")
}

/// `q2|q4|q8`, or `snapkv+q2|q4|q8`.
fn joined(methods: &[&str]) -> String {
    let first = methods.first().map(|m| short(m)).unwrap_or_default();
    let others = methods.iter().skip(1).filter_map(|method| {
        let (_, held_as) = method.strip_suffix(')')?.rsplit_once("cache(")?;
        Some(held_as)
    });
    [first.as_str()]
        .into_iter()
        .chain(others)
        .collect::<Vec<_>>()
        .join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'r>(method: &'r str, budget: &'r str, held: f64) -> Outcome<'r> {
        Outcome {
            prompt: 0,
            sample: 0,
            method,
            budget,
            held,
            full: 10.0,
            value: 0.1,
            length: f64::NAN,
            depth: f64::NAN,
        }
    }

    #[test]
    fn bits_of_one_kind_are_points_of_one_line() {
        let rows = [
            row("snapkv", "64", 1.0),
            row("full+cache(q8)", FULL, 3.0),
            row("full+cache(q2)", FULL, 1.0),
            row("full+cache(q4_0)", FULL, 2.0),
            row("full+cache(q8_0)", FULL, 4.0),
            row("full+cache(q4_0-hadamard)", FULL, 2.0),
            row("snapkv+cache(q4)", "64", 1.0),
            row("full+cache(bf16)", FULL, 5.0),
            row("full+cache(q2(residual=0))", FULL, 0.5),
        ];
        let methods = distinct(rows.iter().map(|row| row.method));
        let lines = lines_of_types(&methods, &rows);
        let names: Vec<&str> = lines.iter().map(|line| &*line.name).collect();
        assert_eq!(
            names,
            [
                "snapkv",
                "q2|q8",
                "q4_0|q8_0",
                "q4_0-hadamard",
                "snapkv+q4",
                "bf16",
                "q2(residual=0)",
            ]
        );
        assert_eq!(lines[1].methods, ["full+cache(q2)", "full+cache(q8)"]);
    }
}
