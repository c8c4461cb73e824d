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

impl Source for Profile {
    fn kind(&self) -> SourceKind {
        SourceKind::Profiles
    }

    fn origin(&self) -> String {
        let meta = &self.meta;
        let window = (meta.window).map_or("all rows".to_owned(), |rows| format!("{rows} rows"));
        format!(
            "model {} ({}), from {}\nmodel sha256 {}\ndata set {}, {} prompts\ndata set sha256 {}\n\
             template {}, window {window}, {} on {}\nmeasured by kvprof {}: {}",
            meta.model,
            meta.architecture,
            meta.model_source,
            meta.model_sha256,
            meta.dataset,
            meta.prompts,
            meta.dataset_sha256,
            meta.template,
            meta.dtype,
            meta.device,
            meta.kvprof,
            meta.command
        )
    }
}

impl Source for BudgetPlan {
    fn kind(&self) -> SourceKind {
        SourceKind::Plans
    }

    fn origin(&self) -> String {
        let made = &self.provenance;
        let known = |text: &Option<String>| text.clone().unwrap_or("unknown".to_owned());
        format!(
            "strategy {} {}, budget {} by {}\n\
             floor {}, sinks {}, window {}, worked out for {} tokens\nmodel {}, from {}\n\
             model sha256 {}\nsource sha256 {}\nallocated by kvprof {}: {}",
            self.strategy,
            self.parameters,
            self.budget,
            self.granularity.name(),
            self.floor,
            self.sinks,
            self.window,
            self.reference_tokens,
            self.geometry.model,
            known(&made.source),
            self.geometry.model_sha256,
            known(&made.source_sha256),
            made.kvprof,
            made.command
        )
    }
}

impl Source for Results {
    fn kind(&self) -> SourceKind {
        SourceKind::Results
    }

    fn origin(&self) -> String {
        let meta = &self.meta;
        format!(
            "task {}, model {}\nmodel sha256 {}\ndata set {}, {} prompts\ndata set sha256 {}\n\
             profile sha256 {}\nsinks {}, window {}, seed {}, {} on {}\n\
             evaluated by kvprof {}: {}",
            meta.task,
            meta.model,
            meta.model_sha256,
            meta.dataset,
            meta.prompts,
            meta.dataset_sha256,
            meta.profile_sha256.as_deref().unwrap_or("none"),
            meta.sinks,
            meta.window,
            meta.seed,
            meta.dtype,
            meta.device,
            meta.kvprof,
            meta.command
        )
    }
}

impl Source for HitRates {
    fn kind(&self) -> SourceKind {
        SourceKind::HitRates
    }

    fn origin(&self) -> String {
        let (meta, options) = (&self.meta, &self.meta.options);
        format!(
            "model {}, from {}\nmodel sha256 {}\ndata set {}, {} prompts\ndata set sha256 {}\n\
             template {}, {} prompt and {} generated windows of {} rows, top {}, theta {}\n\
             {} on {}\nmeasured by kvprof {}: {}",
            meta.model,
            meta.model_source,
            meta.model_sha256,
            meta.dataset,
            meta.prompts,
            meta.dataset_sha256,
            meta.template,
            options.windows,
            options.generated_windows,
            options.window,
            options.top,
            options.theta,
            meta.dtype,
            meta.device,
            meta.kvprof,
            meta.command
        )
    }
}

impl Source for Speed {
    fn kind(&self) -> SourceKind {
        SourceKind::Speeds
    }

    fn origin(&self) -> String {
        let meta = &self.meta;
        format!(
            "model {}, from {}\nmodel sha256 {}\nneedle prompts of seed {}, ids sha256 {}\n\
             {} steps ({} without a cache), {} repeats, {} on {} with {} threads\n\
             budgets by {} {}, sinks {}, window {}\nmeasured by kvprof {}: {}",
            meta.model,
            meta.model_source,
            meta.model_sha256,
            meta.seed,
            meta.prompts_sha256,
            meta.steps,
            meta.uncached_steps,
            meta.repeats,
            meta.dtype,
            meta.device,
            meta.threads,
            meta.scorer,
            meta.scorer_parameters,
            meta.sinks,
            meta.window,
            meta.kvprof,
            meta.command
        )
    }
}

impl Source for Bench {
    fn kind(&self) -> SourceKind {
        SourceKind::Benches
    }

    fn origin(&self) -> String {
        let (model, machine) = (&self.model, &self.machine);
        let load = machine.load.map_or(String::new(), |load| {
            format!(", load {load:.1} before the start")
        });
        format!(
            "model {}, from {}\nmodel sha256 {}\nbench.json sha256 {}\n\
             {} repeats in turns, {} on {} with {} threads of {}{load}\n\
             measured by kvprof {}: {}",
            model.name,
            model.source,
            model.sha256,
            self.sha256,
            self.repeats,
            model.dtype,
            model.device,
            machine.threads,
            machine.cpu.as_deref().unwrap_or("a CPU without a name"),
            self.kvprof,
            self.command
        )
    }
}
