//! Where a figure comes from, as the text inside its files.

use super::subject::Subject;
use crate::bench::Bench;
use crate::budget::BudgetPlan;
use crate::eval::EvalRecord;
use crate::eval::hit_rate::HitRateRecord;
use crate::eval::speed;
use crate::profile::ProfileRecord;

/// A record of the figure: its command, this program, and every source with its checksums.
pub(super) fn record(chart: &str, subject: Subject<'_>, command: &str) -> String {
    let mut lines = vec![
        format!("chart: {chart}"),
        format!("command: {command}"),
        format!("kvprof: {}", env!("CARGO_PKG_VERSION")),
    ];
    let sources: Vec<Vec<String>> = match subject {
        Subject::Profiles(all) => all.iter().map(|p| of_profile(&p.meta)).collect(),
        Subject::Plans(all) => all.iter().map(of_plan).collect(),
        Subject::Results(all) => all.iter().map(|r| of_results(&r.meta)).collect(),
        Subject::HitRates(all) => all.iter().map(|h| of_hit_rates(&h.meta)).collect(),
        Subject::Speeds(all) => all.iter().map(|s| of_speed(&s.meta)).collect(),
        Subject::Benches(all) => all.iter().map(of_bench).collect(),
    };
    let kind = subject.kind().name();
    for (number, source) in sources.into_iter().enumerate() {
        let named = |line| format!("{kind} {}: {line}", number + 1);
        lines.extend(source.into_iter().map(named));
    }
    lines.join("\n")
}

fn of_profile(meta: &ProfileRecord) -> Vec<String> {
    let window = meta
        .settings
        .measures
        .window
        .map_or_else(|| "all rows".to_owned(), |w| format!("{w} rows"));
    vec![
        format!(
            "model {} ({}), from {}",
            meta.model.name, meta.model.architecture, meta.model.source
        ),
        format!("model sha256 {}", meta.model.sha256),
        format!("data set {}, {} prompts", meta.data.name, meta.data.prompts),
        format!("data set sha256 {}", meta.data.sha256),
        format!(
            "template {}, window {window}, {} on {}",
            meta.data.template, meta.model.dtype, meta.model.device
        ),
        format!(
            "measured by kvprof {}: {}",
            meta.made.kvprof, meta.made.command
        ),
    ]
}

fn of_plan(plan: &BudgetPlan) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let made = &plan.provenance;
    vec![
        format!(
            "strategy {} {}, budget {} by {}",
            plan.strategy,
            plan.parameters,
            plan.budget,
            plan.granularity.name()
        ),
        format!(
            "floor {}, sinks {}, window {}, worked out for {} tokens",
            plan.floor, plan.sinks, plan.window, plan.reference_tokens
        ),
        format!(
            "model {}, from {}",
            plan.geometry.model,
            made.source.clone().unwrap_or_else(unknown)
        ),
        format!("model sha256 {}", plan.geometry.model_sha256),
        format!(
            "source sha256 {}",
            made.source_sha256.clone().unwrap_or_else(unknown)
        ),
        format!("allocated by kvprof {}: {}", made.kvprof, made.command),
    ]
}

fn of_results(meta: &EvalRecord) -> Vec<String> {
    let none = || "none".to_owned();
    vec![
        format!("task {}, model {}", meta.settings.task, meta.model.name),
        format!("model sha256 {}", meta.model.sha256),
        format!("data set {}, {} prompts", meta.data.name, meta.data.prompts),
        format!("data set sha256 {}", meta.data.sha256),
        format!(
            "profile sha256 {}",
            meta.settings.profile_sha256.clone().unwrap_or_else(none)
        ),
        format!(
            "sinks {}, window {}, seed {}, {} on {}",
            meta.settings.sinks,
            meta.settings.window,
            meta.settings.seed,
            meta.model.dtype,
            meta.model.device
        ),
        format!(
            "evaluated by kvprof {}: {}",
            meta.made.kvprof, meta.made.command
        ),
    ]
}

fn of_hit_rates(meta: &HitRateRecord) -> Vec<String> {
    let options = &meta.settings.options;
    vec![
        format!("model {}, from {}", meta.model.name, meta.model.source),
        format!("model sha256 {}", meta.model.sha256),
        format!("data set {}, {} prompts", meta.data.name, meta.data.prompts),
        format!("data set sha256 {}", meta.data.sha256),
        format!(
            "template {}, {} prompt and {} generated windows of {} rows, top {}, theta {}",
            meta.data.template,
            options.windows,
            options.generated_windows,
            options.window,
            options.top,
            options.theta
        ),
        format!("{} on {}", meta.model.dtype, meta.model.device),
        format!(
            "measured by kvprof {}: {}",
            meta.made.kvprof, meta.made.command
        ),
    ]
}

fn of_speed(meta: &speed::SpeedRecord) -> Vec<String> {
    vec![
        format!("model {}, from {}", meta.model.name, meta.model.source),
        format!("model sha256 {}", meta.model.sha256),
        format!(
            "needle prompts of seed {}, ids sha256 {}",
            meta.settings.seed, meta.data.prompts_sha256
        ),
        format!(
            "{} steps ({} without a cache), {} repeats, {} on {} with {} threads",
            meta.settings.steps,
            meta.settings.uncached_steps,
            meta.settings.repeats,
            meta.model.dtype,
            meta.model.device,
            meta.settings.threads
        ),
        format!(
            "budgets by {} {}, sinks {}, window {}",
            meta.settings.scorer,
            meta.settings.scorer_parameters,
            meta.settings.sinks,
            meta.settings.window
        ),
        format!(
            "measured by kvprof {}: {}",
            meta.made.kvprof, meta.made.command
        ),
    ]
}

fn of_bench(bench: &Bench) -> Vec<String> {
    let (model, machine) = (&bench.model, &bench.machine);
    let load = machine.load.map_or(String::new(), |load| {
        format!(", load {load:.1} before the start")
    });
    vec![
        format!("model {}, from {}", model.name, model.source),
        format!("model sha256 {}", model.sha256),
        format!("bench.json sha256 {}", bench.sha256),
        format!(
            "{} repeats in turns, {} on {} with {} threads of {}{load}",
            bench.repeats,
            model.dtype,
            model.device,
            machine.threads,
            machine.cpu.as_deref().unwrap_or("a CPU without a name"),
        ),
        format!(
            "measured by kvprof {}: {}",
            bench.made.kvprof, bench.made.command
        ),
    ]
}
