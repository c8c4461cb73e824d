//! What charts are drawn from: how each kind of folder is named and read, and what a figure records of it.

use std::any::Any;
use std::path::Path;

use crate::bench::Bench;
use crate::budget::BudgetPlan;
use crate::error::Result;
use crate::eval::Results;
use crate::eval::hit_rate::HitRates;
use crate::eval::speed::Speed;
use crate::eval::trace::Trace;
use crate::profile::Profile;
use crate::run::{DataRecord, Made, ModelRecord};

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
    /// Folders of `kvprof trace`.
    Traces,
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
    pub const ALL: [Self; 7] = [
        Self::Profiles,
        Self::Plans,
        Self::Results,
        Self::HitRates,
        Self::Speeds,
        Self::Benches,
        Self::Traces,
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
            Self::Traces => ("trace", "--trace"),
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
            Self::Traces => Box::new(Trace::load(path)?),
        })
    }
}

/// Those of `all` that are a `S`.
pub fn of_type<'s, S: Source>(all: &[&'s dyn Source]) -> Vec<&'s S> {
    let found = all.iter().map(|source| *source as &dyn Any);
    found.filter_map(|source| source.downcast_ref()).collect()
}

/// A model's files; `name` may say more than the record's own.
fn model(name: &str, of: &ModelRecord) -> String {
    let (source, sha256) = (&of.source, &of.sha256);
    format!("model {name}, from {source}\nmodel sha256 {sha256}")
}

fn data_set(of: &DataRecord) -> String {
    let (name, prompts, sha256) = (&of.name, of.prompts, &of.sha256);
    let protocol = of.protocol.as_ref();
    let protocol = protocol.map_or(String::new(), |protocol| format!(", {protocol}"));
    format!("data set {name}, {prompts} prompts{protocol}\ndata set sha256 {sha256}")
}

/// Types and device.
fn computed(of: &ModelRecord) -> String {
    format!("{} on {}", of.dtype, of.device)
}

/// What `made` it, after the verb that says how.
fn made(verb: &str, by: &Made) -> String {
    format!("{verb} by kvprof {}: {}", by.kvprof, by.command)
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
        let (template, computed) = (&m.data.template, computed(&m.model));
        let lines = [
            model(&name, &m.model),
            data_set(&m.data),
            format!("template {template}, window {window}, {computed}"),
            made("measured", &m.made),
        ];
        lines.join("\n")
    }
}

impl Source for BudgetPlan {
    fn kind(&self) -> SourceKind {
        SourceKind::Plans
    }

    fn origin(&self) -> String {
        let (from, of) = (&self.provenance, &self.geometry);
        let known = |text: &Option<String>| text.clone().unwrap_or("unknown".to_owned());
        let (strategy, parameters) = (&self.strategy, &self.parameters);
        let (budget, by) = (self.budget, self.granularity.name());
        let (floor, sinks, window) = (self.floor, self.sinks, self.window);
        let tokens = self.reference_tokens;
        let (name, sha256) = (&of.model, &of.model_sha256);
        let (source, source_sha256) = (known(&from.source), known(&from.source_sha256));
        let lines = [
            format!("strategy {strategy} {parameters}, budget {budget} by {by}"),
            format!(
                "floor {floor}, sinks {sinks}, window {window}, worked out for {tokens} tokens"
            ),
            format!("model {name}, from {source}\nmodel sha256 {sha256}"),
            format!("source sha256 {source_sha256}"),
            format!("allocated by kvprof {}: {}", from.kvprof, from.command),
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
        let profile = m.settings.profile_sha256.as_deref().unwrap_or("none");
        let computed = computed(&m.model);
        let lines = [
            format!("task {}, model {}", m.settings.task, m.model.name),
            format!("model sha256 {}", m.model.sha256),
            data_set(&m.data),
            format!("profile sha256 {profile}"),
            format!("sinks {sinks}, window {window}, seed {seed}, {computed}"),
            made("evaluated", &m.made),
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
            model(&m.model.name, &m.model),
            data_set(&m.data),
            format!("template {template}, {windows}, top {top}, theta {theta}"),
            computed(&m.model),
            made("measured", &m.made),
        ];
        lines.join("\n")
    }
}

impl Source for Speed {
    fn kind(&self) -> SourceKind {
        SourceKind::Speeds
    }

    fn origin(&self) -> String {
        let (m, s) = (&self.meta, &self.meta.settings);
        let (steps, uncached, repeats) = (s.steps, s.uncached_steps, s.repeats);
        let (computed, threads) = (computed(&m.model), s.threads);
        let (scorer, set, sinks, window) = (&s.scorer, &s.scorer_parameters, s.sinks, s.window);
        let (seed, ids) = (s.seed, &m.data.prompts_sha256);
        let steps = format!("{steps} steps ({uncached} without a cache)");
        let lines = [
            model(&m.model.name, &m.model),
            format!("needle prompts of seed {seed}, ids sha256 {ids}"),
            format!("{steps}, {repeats} repeats, {computed} with {threads} threads"),
            format!("budgets by {scorer} {set}, sinks {sinks}, window {window}"),
            made("measured", &m.made),
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
        let (name, source, sha256) = (&of.name, &of.source, &of.sha256);
        let (dtype, device, threads) = (&of.dtype, &of.device, machine.threads);
        let on = format!("{dtype} on {device} with {threads} threads of {cpu}{load}");
        let lines = [
            format!("model {name}, from {source}\nmodel sha256 {sha256}"),
            format!("bench.json sha256 {}", self.sha256),
            format!("{repeats} repeats in turns, {on}"),
            made("measured", &self.made),
        ];
        lines.join("\n")
    }
}

impl Source for Trace {
    fn kind(&self) -> SourceKind {
        SourceKind::Traces
    }

    fn origin(&self) -> String {
        let (m, s) = (&self.meta, &self.meta.settings);
        let (name, sha256, ids) = (&m.data.name, &m.data.sha256, &m.data.prompts_sha256);
        let record = s
            .index
            .map_or(String::new(), |index| format!(", record {index}"));
        let (template, tokens) = (&m.data.template, s.prompt_tokens);
        let budget = s.budget.as_deref().unwrap_or("none");
        let (sinks, window, new, repeats) = (s.sinks, s.window, s.new_tokens, s.repeats);
        let (computed, threads) = (computed(&m.model), s.threads);
        let lines = [
            model(&m.model.name, &m.model),
            format!("prompt of {name}{record}, {tokens} tokens, ids sha256 {ids}"),
            format!("data set sha256 {sha256}\ntemplate {template}"),
            format!("budget {budget}, sinks {sinks}, window {window}"),
            format!("{new} new tokens, {repeats} repeats, {computed} with {threads} threads"),
            made("measured", &m.made),
        ];
        lines.join("\n")
    }
}
