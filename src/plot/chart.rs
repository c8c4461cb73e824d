//! A kind of chart: what it is called, reads and takes, and how it comes from sources to a figure.

use super::figure::{Description, Figure, render};
use super::options::{ChartOption, ChartOptions};
use super::source::{Source, SourceKind, of_type};
use crate::error::{Error, Result};

/// A kind of chart.
pub struct Chart {
    /// Name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// The columns it reads, and of how many profiles or plans.
    pub needs: &'static str,
    /// The options that it reads, besides title and width.
    pub reads: &'static [ChartOption],
    /// What it is drawn from.
    pub(super) takes: SourceKind,
    /// Describes the figure of some sources of this kind, one at least.
    pub(super) describe: fn(&[&dyn Source], &ChartOptions) -> Result<Description>,
}

impl Chart {
    /// What it is drawn from.
    pub fn takes(&self) -> SourceKind {
        self.takes
    }

    /// Draws `sources`; `command` is the command line that asks for it, kept in both files.
    ///
    /// Equal input gives equal bytes.
    ///
    /// Errors: [`Error::UnknownName`] for a threshold or column that does not exist, [`Error::Unsupported`] for a
    /// query that the chart lacks, [`Error::Invalid`] for nothing to draw, for another kind of source than the chart
    /// takes, for too many of them, no prompt, or an option out of its bounds, [`Error::NotFinite`].
    pub fn draw(
        &self,
        sources: &[&dyn Source],
        options: &ChartOptions,
        command: &str,
    ) -> Result<Figure> {
        if sources.is_empty() || sources.iter().any(|source| source.kind() != self.takes) {
            let option = self.takes.option();
            return Err(Error::invalid(
                self.number_of_sources(),
                0,
                format!("this chart needs at least one; name it with {option}"),
            ));
        }
        let figure = (self.describe)(sources, options)?;
        let record = self.record(sources, command);
        render(&figure, options.title.as_deref(), &record)
    }

    /// What is wrong where there are too few or too many sources.
    fn number_of_sources(&self) -> String {
        format!("number of {}s for {}", self.takes.name(), self.name)
    }

    /// Refuses more sources than the chart can keep apart.
    pub(super) fn at_most(&self, most: usize, sources: usize) -> Result<()> {
        if sources <= most {
            return Ok(());
        }
        let bound = format!("it must lie between 1 and {most}");
        Err(Error::invalid(self.number_of_sources(), sources, bound))
    }

    /// The only one of `sources`.
    pub(super) fn only<'s, S: Source>(&self, sources: &[&'s dyn Source]) -> Result<&'s S> {
        match of_type(sources)[..] {
            [one] => Ok(one),
            _ => Err(Error::invalid(
                self.number_of_sources(),
                sources.len(),
                format!(
                    "this chart draws one at a time; run it once per {}",
                    self.takes.name()
                ),
            )),
        }
    }

    /// Where a figure comes from: its command, this program, and every source with its checksums.
    fn record(&self, sources: &[&dyn Source], command: &str) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            "chart: {}\ncommand: {command}\nkvprof: {version}",
            self.name
        );
        let origins = (1..).zip(sources).flat_map(|(number, source)| {
            let kind = self.takes.name();
            let line = move |line: &str| format!("{kind} {number}: {line}");
            source.origin().lines().map(line).collect::<Vec<_>>()
        });
        [head]
            .into_iter()
            .chain(origins)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
