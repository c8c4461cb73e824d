//! `kvprof list`: the names that other verbs take.

use std::io::Write;

use clap::ValueEnum;
use kvprof::method::NamedMethod;
use kvprof::model::source::NamedModel;
use kvprof::registry::Entry;
use kvprof::{bench, budget, dataset, eval, method, model, plot, select};
use serde_json::{Value, json};

/// Arguments of `kvprof list`.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// What to list [default: everything]
    #[arg(value_enum)]
    kind: Option<Kind>,
    /// Print JSON instead: a list of names for each kind; of models and methods all that is known of them
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Models that can be asked for by name
    Models,
    /// Model families that the decoder runs
    Families,
    /// Built-in data sets
    Data,
    /// Rules that rank tokens, with their papers and what differs from them
    Scorers,
    /// Strategies, likewise; those that read the prompt itself are of `eval` and `generate` alone
    Strategies,
    /// What leaves a cache while it lives, likewise
    Residencies,
    /// Named methods of `kvprof eval`, with their papers, what differs from them, what they cost and were made for
    Methods,
    /// Metrics of `kvprof eval`
    Metrics,
    /// Losses of `kvprof certify`
    Losses,
    /// Charts of `kvprof plot`
    Charts,
    /// Workloads of `kvprof bench`
    Workloads,
}

impl ListArguments {
    pub fn run(self) -> anyhow::Result<()> {
        if self.json {
            let all = Kind::value_variants();
            let kinds = self.kind.as_ref().map_or(all, std::slice::from_ref);
            let listed = kinds.iter().map(|kind| (super::name_of(kind), kind.json()));
            return super::print_json(&listed.collect::<serde_json::Map<_, _>>());
        }
        let mut out = std::io::stdout().lock();
        if let Some(kind) = self.kind {
            return Ok(kind.write(&mut out, "")?);
        }
        for (place, kind) in Kind::value_variants().iter().enumerate() {
            let gap = if place == 0 { "" } else { "\n" };
            writeln!(out, "{gap}{}", super::name_of(kind))?;
            kind.write(&mut out, "  ")?;
        }
        Ok(())
    }
}

/// A name, and what it stands for in a line or two.
type Listed = (&'static str, String);

/// A rule with its source, and what it does otherwise.
fn of_paper<T: ?Sized>(rule: &Entry<T>) -> Listed {
    let (about, paper, differs) = (rule.about, rule.paper, rule.differs);
    (rule.name, format!("{about} [{paper}]\ndiffers: {differs}"))
}

/// A named model: size, licence, terms, places in the order in which they are tried, and hash.
fn of_model(model: &'static NamedModel) -> Listed {
    let megabytes = (model.bytes + 500_000) / 1_000_000;
    let mut lines = vec![format!(
        "{}, {megabytes} MB; {}",
        model.about, model.licence
    )];
    lines.extend(model.terms.map(|terms| {
        let (address, key) = (terms.address, terms.key);
        format!("terms {address}, to be accepted once with --accept-terms {key}")
    }));
    lines.push(format!("from {}", model.places.join("\nor ")));
    lines.push(format!("SHA-256 {}", model.sha256));
    (model.name, lines.join("\n"))
}

fn json_of_method(method: &NamedMethod) -> Value {
    json!({
        "name": method.name,
        "about": method.about,
        "is": method.spelled,
        "paper": method.paper,
        "differs": method.differs,
        "costs": method.costs,
        "made_for": method.made_for,
    })
}

fn json_of_model(model: &NamedModel) -> Value {
    let terms = model
        .terms
        .map(|terms| json!({"name": terms.name, "address": terms.address, "accept": terms.key}));
    json!({
        "name": model.name,
        "about": model.about,
        "bytes": model.bytes,
        "licence": model.licence,
        "terms": terms,
        "places": model.places,
        "sha256": model.sha256,
    })
}

impl Kind {
    fn json(self) -> Value {
        if let Self::Models = self {
            return model::source::MODELS.iter().map(json_of_model).collect();
        }
        if let Self::Methods = self {
            return method::METHODS.iter().map(json_of_method).collect();
        }
        let rows = self.rows().into_iter();
        rows.map(|(name, about)| json!({"name": name, "about": about}))
            .collect()
    }

    fn write(self, out: &mut impl Write, indent: &str) -> std::io::Result<()> {
        let rows = self.rows();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, about) in &rows {
            let mut name = *name;
            for line in about.lines() {
                writeln!(out, "{indent}{name:width$}  {line}")?;
                name = "";
            }
        }
        Ok(())
    }

    fn rows(self) -> Vec<Listed> {
        fn rows<T>(table: &'static [T], of: fn(&'static T) -> Listed) -> Vec<Listed> {
            table.iter().map(of).collect()
        }
        match self {
            Self::Models => rows(model::source::MODELS, of_model),
            Self::Families => rows(model::config::FAMILIES, |f| {
                (f.architecture, f.about.to_owned())
            }),
            Self::Data => rows(dataset::BUILT_IN, |d| (d.name, d.about.to_owned())),
            Self::Scorers => rows(select::SCORERS, of_paper),
            Self::Residencies => rows(method::RESIDENCIES, of_paper),
            Self::Strategies => {
                let mut strategies = rows(budget::ALLOCATORS, of_paper);
                strategies.extend(rows(budget::PROMPT_ALLOCATORS, of_paper));
                strategies.push(of_paper(&budget::BITS_AND_TOKENS));
                strategies
            }
            Self::Methods => rows(method::METHODS, |m| {
                let (about, paper, differs) = (m.about, m.paper, m.differs);
                let spelled = if m.spelled.is_empty() { "-" } else { m.spelled };
                let (costs, made_for) = (m.costs, m.made_for);
                let lines = [
                    format!("{about} [{paper}]"),
                    format!("is: {spelled}; made for: {made_for}"),
                    format!("costs: {costs}"),
                    format!("differs: {differs}"),
                ];
                (m.name, lines.join("\n"))
            }),
            Self::Metrics => rows(eval::METRICS, |m| {
                (m.name, format!("{} [{}]", m.about, m.unit))
            }),
            Self::Losses => rows(eval::certify::LOSSES, |l| {
                (l.name, format!("{} [{}]", l.about, l.unit))
            }),
            Self::Charts => rows(plot::CHARTS, |c| (c.name, c.about.to_owned())),
            Self::Workloads => rows(bench::WORKLOADS, |w| (w.name, w.about.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_with_all_that_is_known_of_them() {
        let listed = Kind::Models.json();
        let text = Kind::Models.rows();
        for (place, model) in model::source::MODELS.iter().enumerate() {
            let (json, (name, lines)) = (&listed[place], &text[place]);
            assert_eq!(
                (json["name"].as_str(), *name),
                (Some(model.name), model.name)
            );
            assert_eq!(json["bytes"].as_u64(), Some(model.bytes));
            assert_eq!(json["sha256"].as_str(), Some(model.sha256));
            assert!(lines.contains(model.sha256) && lines.contains(model.licence));
            for (number, place) in model.places.iter().enumerate() {
                assert_eq!(json["places"][number].as_str(), Some(*place));
                assert!(lines.contains(place), "{lines}");
            }
            let address = json["terms"]["address"].as_str();
            assert_eq!(address, model.terms.map(|terms| terms.address));
            assert!(address.is_none_or(|address| lines.contains(address)));
        }
        let scorers = Kind::Scorers.json();
        assert_eq!(
            scorers.as_array().map(Vec::len),
            Some(select::SCORERS.len())
        );
    }
}
