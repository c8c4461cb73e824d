//! What a figure says of its source as a whole: model, data, machine. It stands above the legend, once.

use super::axis::number;
use super::series::names;
use crate::bench::Bench;
use crate::eval::EvalRecord;
use crate::eval::speed;
use crate::profile::Profile;

/// Model and prompts of a profile that a figure shows alone.
pub(super) fn of_profile(profile: &Profile, room: i32) -> Vec<String> {
    let mut facts = name_of(profile, room);
    facts.push(prompts(profile.meta.data.prompts));
    facts
}

/// Model and lengths of a profile that a figure shows alone.
pub(super) fn name_of(profile: &Profile, room: i32) -> Vec<String> {
    let names = names(std::slice::from_ref(profile));
    names.iter().map(|name| name.within(room)).collect()
}

/// A number of prompts.
pub(super) fn prompts(number: usize) -> String {
    match number {
        1 => "1 prompt".to_owned(),
        n => format!("{n} prompts"),
    }
}

/// Model and data of an evaluation.
pub(super) fn of_results(meta: &EvalRecord) -> Vec<String> {
    vec![on_data(&meta.model.name, &meta.data.name)]
}

/// A model on the data of a name.
pub(super) fn on_data(model: &str, dataset: &str) -> String {
    format!("{model}, {dataset}")
}

/// Model and machine of a measurement of speed.
pub(super) fn of_speed(meta: &speed::SpeedRecord) -> Vec<String> {
    let machine = format!(
        "{} on {}",
        meta.model.dtype,
        meta.model.device.to_lowercase()
    );
    vec![
        format!("{}, {machine}", meta.model.name),
        threads(meta.settings.threads),
    ]
}

/// Model and machine of a run of the bench.
pub(super) fn of_bench(bench: &Bench) -> Vec<String> {
    let (model, machine) = (&bench.model, &bench.machine);
    let cpu = machine.cpu.as_ref();
    let of = cpu.map_or(String::new(), |cpu| format!(" of {cpu}"));
    vec![
        format!("{}, {}", model.name, model.dtype),
        format!("{}{of}", threads(machine.threads)),
    ]
}

fn threads(count: usize) -> String {
    match count {
        1 => "1 thread".to_owned(),
        n => format!("{} threads", number(n as f64)),
    }
}
