//! `kvprof list`: the names that other verbs take.

use std::io::Write;

use clap::ValueEnum;

/// Arguments of `kvprof list`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,
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

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        let rows: Vec<(&str, String)> = match self.kind {
            Kind::Models => (kvprof::model::source::MODELS.iter())
                .map(|m| (m.name, m.about.to_owned()))
                .collect(),
            Kind::Families => (kvprof::model::config::FAMILIES.iter())
                .map(|f| (f.architecture, f.about.to_owned()))
                .collect(),
            Kind::Data => kvprof::dataset::BUILT_IN
                .iter()
                .map(|d| (d.name, d.about.to_owned()))
                .collect(),
            Kind::Scorers => (kvprof::select::SCORERS.iter())
                .map(|s| (s.name, format!("{} [{}]", s.about, s.paper)))
                .collect(),
            Kind::Strategies => kvprof::budget::ALLOCATORS
                .iter()
                .map(|a| (a.name, format!("{} [{}]", a.about, a.paper)))
                .collect(),
            Kind::Methods => (kvprof::eval::METHODS.iter())
                .map(|m| (m.name, format!("{} [{}]", m.about, m.spelled)))
                .collect(),
            Kind::Metrics => (kvprof::eval::METRICS.iter())
                .map(|m| (m.name, format!("{} [{}]", m.about, m.unit)))
                .collect(),
            Kind::Charts => kvprof::plot::CHARTS
                .iter()
                .map(|c| (c.name, c.about.to_owned()))
                .collect(),
            Kind::Workloads => (kvprof::bench::WORKLOADS.iter())
                .map(|w| (w.name, w.about.to_owned()))
                .collect(),
        };
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = std::io::stdout().lock();
        for (name, about) in rows {
            writeln!(out, "{name:width$}  {about}")?;
        }
        Ok(())
    }
}
