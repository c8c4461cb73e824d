//! `kvprof plot`: charts from profiles, plans and measurements.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::BudgetPlan;
use kvprof::plot::{
    self, CHARTS, Chart, ChartOption, ChartOptions, Crossing, Depth, Figure, Query, Source,
    SourceKind,
};

use super::output_file::refuse_devices;

/// Arguments of `kvprof plot`.
#[derive(Debug, clap::Args)]
pub struct PlotArguments {
    /// Chart to draw; `kvprof list charts` names them. `all` draws every one that the sources can show
    chart: String,
    /// Profile folder; repeat it to compare
    #[arg(long = "profile", value_name = "FOLDER")]
    profiles: Vec<PathBuf>,
    /// Plan of `kvprof allocate`, for charts of plans; repeat it to compare
    #[arg(long = "plan", value_name = "PLAN.json")]
    plans: Vec<PathBuf>,
    /// Results folder of `kvprof eval`, for charts of evaluations
    #[arg(long, value_name = "FOLDER")]
    results: Vec<PathBuf>,
    /// Folder of `kvprof hitrate`
    #[arg(long = "hitrate", value_name = "FOLDER")]
    hit_rates: Vec<PathBuf>,
    /// Folder of `kvprof speed`
    #[arg(long = "speed", value_name = "FOLDER")]
    speeds: Vec<PathBuf>,
    /// Folder of `kvprof bench`
    #[arg(long = "bench", value_name = "FOLDER")]
    benches: Vec<PathBuf>,
    /// Folder of `kvprof trace`
    #[arg(long = "trace", value_name = "FOLDER")]
    traces: Vec<PathBuf>,
    /// Where to write, without an ending: .svg and .png are added. With `all`, a folder
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Which rows lmba, lmbo, mba-heatmap and curves show: last, pooled or rows [default: pooled]
    #[arg(long)]
    query: Option<Query>,
    /// Retained-mass threshold of MBA and LMBA: lmba, mba-heatmap [default: 0.9]
    #[arg(long)]
    threshold: Option<f64>,
    /// Cosine thresholds of lmbo; of a single one all profiles share a panel [default: 0.9,0.99,0.999]
    #[arg(long, value_delimiter = ',')]
    output_thresholds: Option<Vec<f64>>,
    /// Which crossing of a cosine threshold counts for lmbo: first or stable [default: first]
    #[arg(long)]
    crossing: Option<Crossing>,
    /// Where lmba and lmbo draw layer l of L: at its index, or at its relative depth l/(L − 1) [default: index where all
    /// profiles have as many layers, else relative]
    #[arg(long, value_name = "index|relative")]
    depth: Option<Depth>,
    /// Kept probabilities as they were, not renormalised: lmbo, curves
    #[arg(long)]
    raw: bool,
    /// What is shown: by frontier and needle kl, nll, top1, f1, em, contains or evidence; by hitrate all
    /// important keys or those beyond-sinks; by growth seconds on the wall or of cpu; by residency bytes or ms per token
    #[arg(long)]
    metric: Option<String>,
    /// Methods that frontier, needle, evidence and residency show, in this order [default: all]
    #[arg(long, value_name = "A,B,C")]
    methods: Option<String>,
    /// Budget that needle and evidence show, as `kvprof eval` was told it [default: its first]
    #[arg(long, value_name = "BUDGET")]
    budget: Option<String>,
    /// Shares of the prompt (lmba, lmbo, mba-heatmap, budgets) or of the full cache (frontier) instead of tokens or
    /// bytes; mba-heatmap of profiles whose prompts differ in length always shows them
    #[arg(long)]
    relative: bool,
    /// Logarithmic vertical axis of lmba, budgets, frontier and residency; without it only where values span a decade,
    /// and in lmba never
    #[arg(long)]
    log: bool,
    /// Width in inches
    #[arg(long, default_value_t = plot::COLUMN)]
    width: f64,
    /// Title above the chart
    #[arg(long)]
    title: Option<String>,
}

impl PlotArguments {
    pub fn run(self) -> anyhow::Result<()> {
        if self.chart == "all" {
            return self.draw_all();
        }
        let chart = plot::find(&self.chart)?;
        let mut given = self.given_options().into_iter();
        if let Some(idle) = given.find(|option| !chart.reads.contains(option)) {
            let (name, readers) = (idle.name(), plot::readers(idle));
            anyhow::bail!(
                "{} does not read --{name}: leave it out; it is for {readers}",
                chart.name
            );
        }
        self.draw_one(chart)
    }

    /// Every kind of source with the paths given for it.
    fn given(&self) -> [(SourceKind, &[PathBuf]); 7] {
        SourceKind::ALL.map(|kind| {
            let paths = match kind {
                SourceKind::Profiles => &self.profiles,
                SourceKind::Plans => &self.plans,
                SourceKind::Results => &self.results,
                SourceKind::HitRates => &self.hit_rates,
                SourceKind::Speeds => &self.speeds,
                SourceKind::Benches => &self.benches,
                SourceKind::Traces => &self.traces,
            };
            (kind, &paths[..])
        })
    }

    /// The options given that only some charts read.
    fn given_options(&self) -> Vec<ChartOption> {
        let given = |option| match option {
            ChartOption::Query => self.query.is_some(),
            ChartOption::Threshold => self.threshold.is_some(),
            ChartOption::OutputThresholds => self.output_thresholds.is_some(),
            ChartOption::Crossing => self.crossing.is_some(),
            ChartOption::Raw => self.raw,
            ChartOption::Depth => self.depth.is_some(),
            ChartOption::Relative => self.relative,
            ChartOption::Log => self.log,
            ChartOption::Metric => self.metric.is_some(),
            ChartOption::Methods => self.methods.is_some(),
            ChartOption::Budget => self.budget.is_some(),
            ChartOption::Layers => false,
        };
        let all = ChartOption::ALL.into_iter();
        all.filter(|option| given(*option)).collect()
    }

    /// Everything that was named, read.
    fn read(&self) -> anyhow::Result<Vec<Box<dyn Source>>> {
        let mut sources = Vec::new();
        for (kind, paths) in self.given() {
            for path in paths {
                let source = kind.read(path);
                sources.push(source.with_context(|| format!("reading {}s", kind.name()))?);
            }
        }
        Ok(sources)
    }

    fn options(&self) -> ChartOptions {
        let default = ChartOptions::default();
        ChartOptions {
            query: self.query.unwrap_or(default.query),
            threshold: self.threshold.unwrap_or(default.threshold),
            output_thresholds: (self.output_thresholds.clone())
                .unwrap_or_else(|| default.output_thresholds.clone()),
            crossing: self.crossing.unwrap_or(default.crossing),
            raw: self.raw,
            depth: self.depth,
            relative: self.relative,
            log: self.log,
            metric: self.metric.clone(),
            methods: self.methods.clone(),
            budget: self.budget.clone(),
            width: self.width,
            title: self.title.clone(),
            ..default
        }
    }

    fn draw_one(self, chart: &Chart) -> anyhow::Result<()> {
        let wanted = chart.takes();
        for (kind, paths) in self.given() {
            if let (true, Some(idle)) = (kind != wanted, paths.first()) {
                let (name, wanted, option) = (chart.name, wanted.name(), wanted.option());
                let idle = idle.display();
                anyhow::bail!(
                    "{name} is drawn from {wanted}s: leave {idle} out, and give {option}"
                );
            }
        }
        if let Some(out) = &self.out {
            refuse_devices(out)?;
        }
        let sources = self.read()?;
        let sources = of_kind(&sources, wanted);
        self.note_twins(&plot::of_type(&sources))?;
        let figure = chart
            .draw(&sources, &self.options(), &super::command_line(&[]))
            .with_context(|| format!("drawing {}", chart.name))?;
        let mut base = self.out.unwrap_or_else(|| PathBuf::from(chart.name));
        // Both endings are added: one that was typed is meant as the base.
        if base.extension().is_some_and(|e| e == "svg" || e == "png") {
            base.set_extension("");
        }
        write_figure(&figure, &base)
    }

    /// Says which plan files hold the same budgets, whose lines cover each other.
    fn note_twins(&self, plans: &[&BudgetPlan]) -> std::io::Result<()> {
        for (second, plan) in plans.iter().enumerate() {
            let first = plans[..second].iter().position(|p| p.tokens == plan.tokens);
            if let Some(first) = first {
                let [first, second] = [first, second].map(|i| self.plans[i].display());
                let note = "hold the same budgets: one line covers the other";
                writeln!(std::io::stderr(), "{first} and {second} {note}")?;
            }
        }
        Ok(())
    }

    /// Draws what can be drawn and says of everything else why not.
    fn draw_all(self) -> anyhow::Result<()> {
        let given = self.given();
        let options_of = given.map(|(kind, _)| kind.option()).join(", ");
        anyhow::ensure!(
            given.iter().any(|(_, paths)| !paths.is_empty()),
            "all charts of what? Give at least one of {options_of}"
        );
        let (sources, options) = (self.read()?, self.options());
        let provenance = super::command_line(&[]);
        let folder = self.out.clone().unwrap_or_else(|| PathBuf::from("plots"));
        let mut drawn: Vec<&Chart> = Vec::new();
        for chart in CHARTS {
            let wanted = of_kind(&sources, chart.takes());
            if wanted.is_empty() {
                skipped(chart, &format!("no {}", chart.takes().option()))?;
                continue;
            }
            match chart.draw(&wanted, &options, &provenance) {
                Ok(figure) => {
                    write_figure(&figure, &folder.join(chart.name))?;
                    drawn.push(chart);
                }
                Err(lack) if plot::is_lack(&lack) => skipped(chart, &lack.to_string())?,
                Err(fault) => {
                    return Err(fault).with_context(|| format!("drawing {}", chart.name));
                }
            }
        }
        anyhow::ensure!(
            !drawn.is_empty(),
            "no chart could be drawn; the reasons are above"
        );
        for idle in self.given_options() {
            if !drawn.iter().any(|chart| chart.reads.contains(&idle)) {
                let (name, readers) = (idle.name(), plot::readers(idle));
                writeln!(std::io::stderr(), "unused --{name}: it is for {readers}")?;
            }
        }
        Ok(())
    }
}

fn of_kind(sources: &[Box<dyn Source>], kind: SourceKind) -> Vec<&dyn Source> {
    let sources = sources.iter().map(|source| &**source);
    sources.filter(|source| source.kind() == kind).collect()
}

fn skipped(chart: &Chart, why: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "skipped {}: {why}", chart.name)
}

fn write_figure(figure: &Figure, base: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for path in figure.write(base)? {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
