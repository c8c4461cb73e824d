//! `kvprof list`: the names that other verbs take.

use std::io::Write;

use clap::ValueEnum;
use kvprof::{bench, budget, dataset, eval, model, plot, select};

/// Arguments of `kvprof list`.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// What to list [default: everything]
    #[arg(value_enum)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Models that can be asked for by name
    Models,
    /// Model families that the decoder runs
    Families,
    /// Built-in data sets
    Data,
    /// Rules that rank tokens
    Scorers,
    /// Strategies of `kvprof allocate`, with their papers
    Strategies,
    /// Methods of `kvprof eval`: strategy, scorer and head split
    Methods,
    /// Metrics of `kvprof eval`
    Metrics,
    /// Charts of `kvprof plot`
    Charts,
    /// Workloads of `kvprof bench`
    Workloads,
}

impl ListArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if let Some(kind) = self.kind {
            return Ok(kind.write(&mut out, "")?);
        }
        for (place, kind) in Kind::value_variants().iter().enumerate() {
            let gap = if place == 0 { "" } else { "\n" };
            let name = kind.to_possible_value();
            let name = name.as_ref().map_or("", |value| value.get_name());
            writeln!(out, "{gap}{name}")?;
            kind.write(&mut out, "  ")?;
        }
        Ok(())
    }
}

impl Kind {
    fn write(self, out: &mut impl Write, indent: &str) -> std::io::Result<()> {
        let rows = self.rows();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter()
            .try_for_each(|(name, about)| writeln!(out, "{indent}{name:width$}  {about}"))
    }

    /// Names, and what they stand for.
    fn rows(self) -> Vec<(&'static str, String)> {
        /// `of` reads name, meaning and what stands in brackets behind it.
        fn rows<T>(
            table: &'static [T],
            of: fn(&'static T) -> (&'static str, &'static str, &'static str),
        ) -> Vec<(&'static str, String)> {
            let row = |(name, about, source): (_, &str, &str)| match source {
                "" => (name, about.to_owned()),
                source => (name, format!("{about} [{source}]")),
            };
            table.iter().map(|entry| row(of(entry))).collect()
        }
        match self {
            Self::Models => rows(model::source::MODELS, |m| (m.name, m.about, "")),
            Self::Families => rows(model::config::FAMILIES, |f| (f.architecture, f.about, "")),
            Self::Data => rows(dataset::BUILT_IN, |d| (d.name, d.about, "")),
            Self::Scorers => rows(select::SCORERS, |s| (s.name, s.about, s.paper)),
            Self::Strategies => rows(budget::ALLOCATORS, |a| (a.name, a.about, a.paper)),
            Self::Methods => rows(eval::METHODS, |m| (m.name, m.about, m.spelled)),
            Self::Metrics => rows(eval::METRICS, |m| (m.name, m.about, m.unit)),
            Self::Charts => rows(plot::CHARTS, |c| (c.name, c.about, "")),
            Self::Workloads => rows(bench::WORKLOADS, |w| (w.name, w.about, "")),
        }
    }
}
