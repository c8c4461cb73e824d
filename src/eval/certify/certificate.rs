//! A decision written down: what is certified, and on what it rests.

use serde_json::Value;

use super::goal::{Decision, Goal};
use super::held_out::HeldOut;
use super::loss::Loss;
use super::units::UnitLosses;
use crate::budget::{CERTIFICATE_SCHEMA, Calibration, Certificate, HeldOutRecord};
use crate::eval::results::Results;

/// A decision with all that it was made from.
#[derive(Clone, Copy, Debug)]
pub struct Calibrated<'a> {
    /// The evaluation.
    pub results: &'a Results,
    /// Its folder, as it was named.
    pub folder: &'a str,
    /// Its [`crate::eval::results_digest`].
    pub digest: &'a str,
    /// Name of the method.
    pub method: &'a str,
    /// What was bounded.
    pub loss: &'a Loss,
    /// The bound.
    pub goal: &'a Goal,
    /// What was calibrated on.
    pub losses: &'a UnitLosses,
    /// What came of it.
    pub decision: &'a Decision,
}

impl Calibrated<'_> {
    /// "prompt", or what a cluster of prompts is called.
    pub fn unit(&self) -> &'static str {
        if self.losses.prompts() == self.losses.units.len() {
            "prompt"
        } else {
            "cluster of prompts"
        }
    }

    /// What holds for a new prompt at `budget`, in a sentence.
    pub fn statement(&self, budget: &str) -> String {
        let (goal, name, unit) = (self.goal, self.loss.name, self.unit());
        let under = format!("under {} at budget {budget}", self.method);
        let bound = self.amount(goal.at_most);
        let clip = match (goal.except, self.loss.most()) {
            (None, None) => format!(
                "; more than {} counts as {}",
                self.amount(goal.most),
                goal.most
            ),
            _ => String::new(),
        };
        match (goal.except, goal.confidence) {
            (None, None) => format!(
                "The expected {name} of a new {unit} {under} is at most {bound}, in the mean over calibrations{clip}."
            ),
            (None, Some(sure)) => format!(
                "With confidence {}, the expected {name} of a new {unit} {under} is at most {bound}{clip}.",
                percent(sure)
            ),
            (Some(share), None) => format!(
                "A new {unit} has a {name} above {bound} {under} with a probability of at most {}, in the mean over \
                 calibrations.",
                percent(share)
            ),
            (Some(share), Some(sure)) => format!(
                "With confidence {}, a new {unit} has a {name} above {bound} {under} with a probability of at most {}.",
                percent(sure),
                percent(share)
            ),
        }
    }

    /// What a certificate rests on, and what it says nothing of.
    pub fn assumes(&self) -> String {
        let data = &self.results.meta.data;
        let (unit, n) = (self.unit(), self.losses.units.len());
        let [least, most] = self.losses.tokens();
        let drawn = match self.goal.confidence {
            None => format!("exchangeable with the {n} of {}", data.name),
            Some(_) => format!(
                "drawn independently from where the {n} of {} are from",
                data.name
            ),
        };
        let asked = match &data.protocol {
            Some(protocol) => format!(" asked in the same way ({protocol}) and"),
            None => String::new(),
        };
        format!(
            "It holds for a new {unit} that is{asked} {drawn} ({least} to {most} tokens), before it is known which: not for other tasks, \
             lengths, templates or models, not for each {unit} by itself, and not where method, loss or bound were chosen by \
             what these prompts gave."
        )
    }

    /// Why no budget passes.
    pub fn reason(&self) -> String {
        let (goal, decision, unit) = (self.goal, self.decision, self.unit());
        let n = self.losses.units.len();
        let Some(allowed) = decision.allowed else {
            return format!(
                "{} are too few: at least {} are needed, even if nothing is lost",
                counted(n, unit),
                decision.fewest_units
            );
        };
        let Some(largest) = decision.steps.first() else {
            return "there is no budget".to_owned();
        };
        let budget = &largest.budget;
        match (goal.except, decision.violations_allowed) {
            (Some(_), Some(most)) => format!(
                "at {budget}, the largest budget that was tried, {} of {n} lose more than {}, and {most} are allowed",
                largest.violations,
                self.amount(goal.at_most)
            ),
            _ => format!(
                "at {budget}, the largest budget that was tried, the mean {} of {} is {}, and {} is allowed",
                self.loss.name,
                counted(n, unit),
                readable(largest.seen),
                readable(allowed)
            ),
        }
    }

    /// A loss with its unit.
    pub fn amount(&self, value: f64) -> String {
        match self.loss.unit {
            "share" => format!("{value}"),
            unit => format!("{value} {unit}"),
        }
    }
}

/// The certificate of a decision; none where no budget passes.
///
/// `held_out` says where the held-out prompts are from.
pub fn certificate(
    calibrated: &Calibrated<'_>,
    command: String,
    held_out: Option<(&str, &HeldOut)>,
) -> Option<Certificate> {
    let Calibrated {
        goal,
        decision,
        losses,
        ..
    } = calibrated;
    let certified = decision.certified()?;
    let meta = &calibrated.results.meta;
    let (settings, data) = (&meta.settings, &meta.data);
    let named = |method: &&Value| method["name"] == calibrated.method;
    Some(Certificate {
        schema: CERTIFICATE_SCHEMA,
        kvprof: env!("CARGO_PKG_VERSION").to_owned(),
        command,
        statement: calibrated.statement(&certified.budget),
        assumes: calibrated.assumes(),
        budget: certified.budget.clone(),
        loss: calibrated.loss.name.to_owned(),
        at_most: goal.at_most,
        except: goal.except,
        clip: goal.except.is_none().then_some(goal.most),
        confidence: goal.confidence,
        calibration: Calibration {
            results: calibrated.folder.to_owned(),
            results_sha256: calibrated.digest.to_owned(),
            dataset: data.name.clone(),
            dataset_sha256: data.sha256.clone(),
            template: data.template.clone(),
            units: losses.units.len(),
            prompts: losses.prompts(),
            tokens: losses.tokens(),
            seen: certified.seen,
            allowed: decision.allowed.unwrap_or(0.0),
            violations: certified.violations,
            failed: decision.smallest.map_or(0, |budget| losses.failed(budget)),
        },
        method: settings
            .methods
            .iter()
            .find(named)
            .cloned()
            .unwrap_or_default(),
        sinks: settings.sinks,
        window: settings.window,
        whole_windows: settings.whole_windows,
        max_new_tokens: settings.max_new_tokens,
        protocol: data.protocol.clone(),
        observed_from: settings.observed_from.clone(),
        model: meta.model.name.clone(),
        model_sha256: meta.model.sha256.clone(),
        dtype: meta.model.dtype.clone(),
        profile_sha256: settings.profile_sha256.clone(),
        held_out: held_out.map(|(source, held_out)| HeldOutRecord {
            source: source.to_owned(),
            units: held_out.units,
            seen: held_out.seen,
            violations: held_out.violations,
            interval: held_out.interval.map(|i| [i.low, i.high]),
            verdict: held_out.verdict.words().to_owned(),
        }),
    })
}

/// A share in per cent, without digits that were not typed.
fn percent(share: f64) -> String {
    let percent = (share * 1e8).round() / 1e6;
    format!("{percent} %")
}

fn readable(value: f64) -> String {
    format!("{value:.4}")
}

fn counted(n: usize, unit: &str) -> String {
    match (n, unit) {
        (1, unit) => format!("1 {unit}"),
        (n, "prompt") => format!("{n} prompts"),
        (n, _) => format!("{n} clusters of prompts"),
    }
}
