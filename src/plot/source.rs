//! What charts are drawn from: how each kind of folder is named and read, and what a figure records of it.

use std::any::Any;
use std::path::Path;

use crate::bench::Bench;
use crate::budget::BudgetPlan;
use crate::error::Result;
use crate::eval::Results;
use crate::eval::hit_rate::HitRates;
use crate::eval::speed::Speed;
use crate::profile::Profile;

/// Which kind of thing a chart is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Profile folders.
    Profiles,
    /// Plan files.
    Plans,
    /// Results folders.
    Results,
    /// Folders of hit rates.
    HitRates,
    /// Folders of `kvprof speed`.
    Speeds,
    /// Folders of `kvprof bench`.
    Benches,
}

/// Something that charts are drawn from.
pub trait Source: Any {
    /// What it is.
    fn kind(&self) -> SourceKind;

    /// Where it comes from, with its checksums, line by line.
    fn origin(&self) -> String;
}

impl SourceKind {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Profiles,
        Self::Plans,
        Self::Results,
        Self::HitRates,
        Self::Speeds,
        Self::Benches,
    ];

    /// The option that names one on the command line.
    pub fn option(self) -> &'static str {
        self.words().1
    }

    /// One of them in words.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Profiles => ("profile", "--profile"),
            Self::Plans => ("plan", "--plan"),
            Self::Results => ("evaluation", "--results"),
            Self::HitRates => ("hit-rate run", "--hitrate"),
            Self::Speeds => ("speed measurement", "--speed"),
            Self::Benches => ("bench run", "--bench"),
        }
    }

    /// Reads one.
    ///
    /// Errors: those of the kind's own reader.
    pub fn read(self, path: &Path) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Profiles => Box::new(Profile::load(path)?),
            Self::Plans => Box::new(BudgetPlan::read(path)?),
            Self::Results => Box::new(Results::load(path)?),
            Self::HitRates => Box::new(HitRates::load(path)?),
            Self::Speeds => Box::new(Speed::load(path)?),
            Self::Benches => Box::new(Bench::load(path)?),
        })
    }
}

/// Those of `all` that are a `S`.
pub fn of_type<'s, S: Source>(all: &[&'s dyn Source]) -> Vec<&'s S> {
    let found = all.iter().map(|source| *source as &dyn Any);
    found.filter_map(|source| source.downcast_ref()).collect()
}

fn model(name: &str, source: &str, sha256: &str) -> String {
    format!("model {name}, from {source}\nmodel sha256 {sha256}")
}

fn data_set(name: &str, prompts: usize, sha256: &str) -> String {
    format!("data set {name}, {prompts} prompts\ndata set sha256 {sha256}")
}

fn measured(kvprof: &str, command: &str) -> String {
    format!("measured by kvprof {kvprof}: {command}")
}

impl Source for Profile {
    fn kind(&self) -> SourceKind {
        SourceKind::Profiles
    }

    fn origin(&self) -> String {
        let m = &self.meta;
        let name = format!("{} ({})", m.model.name, m.model.architecture);
        let window = (m.settings.measures.window)
            .map_or("all rows".to_owned(), |rows| format!("{rows} rows"));
        let (template, dtype, device) = (&m.data.template, &m.model.dtype, &m.model.device);
        let lines = [
            model(&name, &m.model.source, &m.model.sha256),
            data_set(&m.data.name, m.data.prompts, &m.data.sha256),
            format!("template {template}, window {window}, {dtype} on {device}"),
            measured(&m.made.kvprof, &m.made.command),
        ];
        lines.join("\n")
    }
}

impl Source for BudgetPlan {
    fn kind(&self) -> SourceKind {
        SourceKind::Plans
    }

    fn origin(&self) -> String {
        let made = &self.provenance;
        let known = |text: &Option<String>| text.clone().unwrap_or("unknown".to_owned());
        let (strategy, parameters) = (&self.strategy, &self.parameters);
        let (budget, by) = (self.budget, self.granularity.name());
        let (floor, sinks, window) = (self.floor, self.sinks, self.window);
        let (tokens, of) = (self.reference_tokens, &self.geometry);
        let lines = [
            format!("strategy {strategy} {parameters}, budget {budget} by {by}"),
            format!(
                "floor {floor}, sinks {sinks}, window {window}, worked out for {tokens} tokens"
            ),
            model(&of.model, &known(&made.source), &of.model_sha256),
            format!("source sha256 {}", known(&made.source_sha256)),
            format!("allocated by kvprof {}: {}", made.kvprof, made.command),
        ];
        lines.join("\n")
    }
}

impl Source for Results {
    fn kind(&self) -> SourceKind {
        SourceKind::Results
    }

    fn origin(&self) -> String {
        let m = &self.meta;
        let (sinks, window, seed) = (m.settings.sinks, m.settings.window, m.settings.seed);
        let (dtype, device) = (&m.model.dtype, &m.model.device);
        let profile = m.settings.profile_sha256.as_deref().unwrap_or("none");
        let lines = [
            format!("task {}, model {}", m.settings.task, m.model.name),
            format!("model sha256 {}", m.model.sha256),
            data_set(&m.data.name, m.data.prompts, &m.data.sha256),
            format!("profile sha256 {profile}"),
            format!("sinks {sinks}, window {window}, seed {seed}, {dtype} on {device}"),
            format!("evaluated by kvprof {}: {}", m.made.kvprof, m.made.command),
        ];
        lines.join("\n")
    }
}

impl Source for HitRates {
    fn kind(&self) -> SourceKind {
        SourceKind::HitRates
    }

    fn origin(&self) -> String {
        let (m, o) = (&self.meta, &self.meta.settings.options);
        let (prompt, generated, rows) = (o.windows, o.generated_windows, o.window);
        let windows = format!("{prompt} prompt and {generated} generated windows of {rows} rows");
        let (template, top, theta) = (&m.data.template, o.top, o.theta);
        let lines = [
            model(&m.model.name, &m.model.source, &m.model.sha256),
            data_set(&m.data.name, m.data.prompts, &m.data.sha256),
            format!("template {template}, {windows}, top {top}, theta {theta}"),
            format!("{} on {}", m.model.dtype, m.model.device),
            measured(&m.made.kvprof, &m.made.command),
        ];
        lines.join("\n")
    }
}

impl Source for Speed {
    fn kind(&self) -> SourceKind {
        SourceKind::Speeds
    }

    fn origin(&self) -> String {
        let m = &self.meta;
        let steps = format!(
            "{} steps ({} without a cache)",
            m.settings.steps, m.settings.uncached_steps
        );
        let (repeats, dtype, device, threads) = (
            m.settings.repeats,
            &m.model.dtype,
            &m.model.device,
            m.settings.threads,
        );
        let (scorer, set) = (&m.settings.scorer, &m.settings.scorer_parameters);
        let lines = [
            model(&m.model.name, &m.model.source, &m.model.sha256),
            format!(
                "needle prompts of seed {}, ids sha256 {}",
                m.settings.seed, m.data.prompts_sha256
            ),
            format!("{steps}, {repeats} repeats, {dtype} on {device} with {threads} threads"),
            format!(
                "budgets by {scorer} {set}, sinks {}, window {}",
                m.settings.sinks, m.settings.window
            ),
            measured(&m.made.kvprof, &m.made.command),
        ];
        lines.join("\n")
    }
}

impl Source for Bench {
    fn kind(&self) -> SourceKind {
        SourceKind::Benches
    }

    fn origin(&self) -> String {
        let (of, machine, repeats) = (&self.model, &self.machine, self.repeats);
        let load = machine.load.map_or(String::new(), |load| {
            format!(", load {load:.1} before the start")
        });
        let cpu = machine.cpu.as_deref().unwrap_or("a CPU without a name");
        let on = format!(
            "{} on {} with {} threads",
            of.dtype, of.device, machine.threads
        );
        let lines = [
            model(&of.name, &of.source, &of.sha256),
            format!("bench.json sha256 {}", self.sha256),
            format!("{repeats} repeats in turns, {on} of {cpu}{load}"),
            measured(&self.made.kvprof, &self.made.command),
        ];
        lines.join("\n")
    }
}
