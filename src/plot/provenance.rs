//! Where a figure comes from, as the text inside its files.

use super::subject::Subject;
use crate::bench::Bench;
use crate::budget::BudgetPlan;
use crate::eval::ResultsMeta;
use crate::eval::hit_rate::HitRateMeta;
use crate::eval::speed;
use crate::profile::Meta;

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

fn of_profile(meta: &Meta) -> Vec<String> {
    let window = meta
        .window
        .map_or_else(|| "all rows".to_owned(), |w| format!("{w} rows"));
    vec![
        format!(
            "model {} ({}), from {}",
            meta.model, meta.architecture, meta.model_source
        ),
        format!("model sha256 {}", meta.model_sha256),
        format!("data set {}, {} prompts", meta.dataset, meta.prompts),
        format!("data set sha256 {}", meta.dataset_sha256),
        format!(
            "template {}, window {window}, {} on {}",
            meta.template, meta.dtype, meta.device
        ),
        format!("measured by kvprof {}: {}", meta.kvprof, meta.command),
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

fn of_results(meta: &ResultsMeta) -> Vec<String> {
    let none = || "none".to_owned();
    vec![
        format!("task {}, model {}", meta.task, meta.model),
        format!("model sha256 {}", meta.model_sha256),
        format!("data set {}, {} prompts", meta.dataset, meta.prompts),
        format!("data set sha256 {}", meta.dataset_sha256),
        format!(
            "profile sha256 {}",
            meta.profile_sha256.clone().unwrap_or_else(none)
        ),
        format!(
            "sinks {}, window {}, seed {}, {} on {}",
            meta.sinks, meta.window, meta.seed, meta.dtype, meta.device
        ),
        format!("evaluated by kvprof {}: {}", meta.kvprof, meta.command),
    ]
}

fn of_hit_rates(meta: &HitRateMeta) -> Vec<String> {
    let options = &meta.options;
    vec![
        format!("model {}, from {}", meta.model, meta.model_source),
        format!("model sha256 {}", meta.model_sha256),
        format!("data set {}, {} prompts", meta.dataset, meta.prompts),
        format!("data set sha256 {}", meta.dataset_sha256),
        format!(
            "template {}, {} prompt and {} generated windows of {} rows, top {}, theta {}",
            meta.template,
            options.windows,
            options.generated_windows,
            options.window,
            options.top,
            options.theta
        ),
        format!("{} on {}", meta.dtype, meta.device),
        format!("measured by kvprof {}: {}", meta.kvprof, meta.command),
    ]
}

fn of_speed(meta: &speed::Meta) -> Vec<String> {
    vec![
        format!("model {}, from {}", meta.model, meta.model_source),
        format!("model sha256 {}", meta.model_sha256),
        format!(
            "needle prompts of seed {}, ids sha256 {}",
            meta.seed, meta.prompts_sha256
        ),
        format!(
            "{} steps ({} without a cache), {} repeats, {} on {} with {} threads",
            meta.steps, meta.uncached_steps, meta.repeats, meta.dtype, meta.device, meta.threads
        ),
        format!(
            "budgets by {} {}, sinks {}, window {}",
            meta.scorer, meta.scorer_parameters, meta.sinks, meta.window
        ),
        format!("measured by kvprof {}: {}", meta.kvprof, meta.command),
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
        format!("measured by kvprof {}: {}", bench.kvprof, bench.command),
    ]
}
