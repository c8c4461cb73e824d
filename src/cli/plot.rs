//! `kvprof plot`: charts from profiles, plans and measurements.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::budget::BudgetPlan;
use kvprof::eval::speed::Speed;
use kvprof::plot::{self, ChartOptions, Crossing, Query, SubjectKind};
use kvprof::profile::Profile;

/// Arguments of `kvprof plot`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Chart to draw; `kvprof list charts` names them all
    chart: String,
    /// Profile folder; repeat it to compare
    #[arg(long = "profile", value_name = "FOLDER")]
    profiles: Vec<PathBuf>,
    /// Plan of `kvprof allocate`, for charts of plans; repeat it to compare
    #[arg(long = "plan", value_name = "PLAN.json")]
    plans: Vec<PathBuf>,
    /// Folder of `kvprof speed`, for its chart
    #[arg(long = "speed", value_name = "FOLDER")]
    speeds: Vec<PathBuf>,
    /// Where to write, without an ending: .svg and .png are added
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Which rows were measured: last, pooled or rows
    #[arg(long, default_value = "pooled")]
    query: Query,
    /// Retained-mass threshold of MBA and LMBA
    #[arg(long, default_value_t = 0.9)]
    threshold: f64,
    /// Cosine thresholds of LMBO
    #[arg(long, value_delimiter = ',', default_values_t = [0.9, 0.99, 0.999])]
    output_thresholds: Vec<f64>,
    /// Which crossing of a cosine threshold counts: first or stable
    #[arg(long, default_value = "first")]
    crossing: Crossing,
    /// Kept probabilities as they were, not renormalised
    #[arg(long)]
    raw: bool,
    /// Shares of the prompt instead of tokens
    #[arg(long)]
    relative: bool,
    /// Logarithmic vertical axis of lmba and budgets
    #[arg(long)]
    log: bool,
    /// Width in inches
    #[arg(long, default_value_t = plot::COLUMN)]
    width: f64,
    /// Title above the chart
    #[arg(long)]
    title: Option<String>,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        let chart = plot::find(&self.chart)?;
        let wanted = chart.takes();
        let given = [
            (SubjectKind::Profiles, &self.profiles),
            (SubjectKind::Plans, &self.plans),
            (SubjectKind::Speeds, &self.speeds),
        ];
        for (kind, paths) in given {
            if let Some(idle) = paths.first().filter(|_| kind != wanted) {
                anyhow::bail!(
                    "{} is drawn from {}s: leave {} out, and name a --{}",
                    chart.name,
                    wanted.name(),
                    idle.display(),
                    wanted.name()
                );
            }
        }
        let options = ChartOptions {
            query: self.query,
            threshold: self.threshold,
            output_thresholds: self.output_thresholds,
            crossing: self.crossing,
            raw: self.raw,
            relative: self.relative,
            log: self.log,
            width: self.width,
            title: self.title,
            ..ChartOptions::default()
        };
        let provenance = super::command_line(&[]);
        let figure = match wanted {
            SubjectKind::Profiles => {
                let profiles = self.profiles.iter().map(|folder| Profile::load(folder));
                let profiles = profiles.collect::<Result<Vec<_>, _>>();
                let profiles = profiles.context("reading profiles")?;
                plot::draw(chart.name, &profiles, &options, &provenance)
            }
            SubjectKind::Plans => {
                let plans = self.plans.iter().map(|file| BudgetPlan::read(file));
                let plans = plans.collect::<Result<Vec<_>, _>>();
                let plans = plans.context("reading plans")?;
                plot::draw(chart.name, &plans, &options, &provenance)
            }
            SubjectKind::Speeds => {
                let speeds = self.speeds.iter().map(|folder| Speed::load(folder));
                let speeds = speeds.collect::<Result<Vec<_>, _>>();
                let speeds = speeds.context("reading measurements of speed")?;
                plot::draw(chart.name, &speeds, &options, &provenance)
            }
        };
        let figure = figure.with_context(|| format!("drawing {}", self.chart))?;
        let mut base = self.out.unwrap_or_else(|| PathBuf::from(&self.chart));
        // Both endings are added: one that was typed is meant as the base.
        if base.extension().is_some_and(|e| e == "svg" || e == "png") {
            base.set_extension("");
        }
        let mut out = std::io::stdout().lock();
        for path in figure.write(&base)? {
            writeln!(out, "{}", path.display())?;
        }
        Ok(())
    }
}
