//! `kvprof list`: the names that other verbs take.

use std::io::Write;

use clap::ValueEnum;
use kvprof::registry::Entry;
use kvprof::{bench, budget, dataset, eval, method, model, plot, select};

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
    /// Rules that rank tokens, with their papers and what differs from them
    Scorers,
    /// Strategies of `kvprof allocate`, likewise
    Strategies,
    /// What leaves a cache while it lives, likewise
    Residencies,
    /// Named methods of `kvprof eval`, with their papers and what differs from them
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

impl Kind {
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
            Self::Models => rows(model::source::MODELS, |m| {
                let (megabytes, places) = (m.bytes.div_ceil(1_000_000), m.places.join("\nor "));
                let about = format!("{}, {megabytes} MB; {}", m.about, m.licence);
                (
                    m.name,
                    format!("{about}\nfrom {places}\nSHA-256 {}", m.sha256),
                )
            }),
            Self::Families => rows(model::config::FAMILIES, |f| {
                (f.architecture, f.about.to_owned())
            }),
            Self::Data => rows(dataset::BUILT_IN, |d| (d.name, d.about.to_owned())),
            Self::Scorers => rows(select::SCORERS, of_paper),
            Self::Residencies => rows(method::RESIDENCIES, of_paper),
            Self::Strategies => rows(budget::ALLOCATORS, of_paper),
            Self::Methods => rows(method::METHODS, |m| {
                let (about, paper, differs) = (m.about, m.paper, m.differs);
                let spelled = if m.spelled.is_empty() { "-" } else { m.spelled };
                let about = format!("{about} [{paper}]\nis: {spelled}; differs: {differs}");
                (m.name, about)
            }),
            Self::Metrics => rows(eval::METRICS, |m| {
                (m.name, format!("{} [{}]", m.about, m.unit))
            }),
            Self::Charts => rows(plot::CHARTS, |c| (c.name, c.about.to_owned())),
            Self::Workloads => rows(bench::WORKLOADS, |w| (w.name, w.about.to_owned())),
        }
    }
}
