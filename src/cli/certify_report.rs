//! What `kvprof certify` found, as text and as JSON.

use std::io::{self, Write};
use std::path::Path;

use kvprof::budget::Certificate;
use kvprof::eval::certify::{Calibrated, Step};
use kvprof::model::source::MODELS;
use serde_json::{Value, json};

use super::certified_plan::CertifiedAllocation;
use super::text_table::{cell, text_table};
use super::{counted, quoted};

/// A decision, and the certificate where there is one.
pub struct CertifyReport<'a> {
    /// The decision with what it was made from.
    pub calibrated: Calibrated<'a>,
    /// What was certified.
    pub certificate: Option<&'a Certificate>,
    /// Where held-out prompts are from.
    pub held_out: Option<&'a str>,
    /// Where the certificate was to be written.
    pub out: Option<&'a Path>,
}

impl CertifyReport<'_> {
    /// Everything, also where no budget passes.
    pub fn to_json(&self) -> Value {
        let Calibrated {
            goal,
            losses,
            decision,
            loss,
            ..
        } = self.calibrated;
        let steps = decision.steps.iter().enumerate().map(|(place, step)| {
            let budget = losses.budgets.len() - 1 - place;
            let mut step_json = json!(step);
            step_json["failed"] = losses.failed(budget).into();
            step_json["kv_bytes"] = losses.kv_bytes[budget].into();
            step_json
        });
        json!({
            "budget": self.certificate.map(|c| &c.budget),
            "reason": self.certificate.is_none().then(|| self.calibrated.reason()),
            "rule": self.rule(),
            "loss": {"name": loss.name, "about": loss.about, "unit": loss.unit},
            "at_most": goal.at_most, "except": goal.except, "confidence": goal.confidence,
            "clip": goal.except.is_none().then_some(goal.most),
            "units": losses.units.len(), "prompts": losses.prompts(), "undefined": losses.undefined,
            "tokens": losses.tokens(), "fewest_units": decision.fewest_units,
            "allowed": decision.allowed, "violations_allowed": decision.violations_allowed,
            "limit": decision.limit, "steps": steps.collect::<Vec<_>>(),
            "smallest_tried_passes": decision.smallest_tried_passes(),
            "out": self.out.filter(|_| self.certificate.is_some()), "certificate": self.certificate,
        })
    }

    fn rule(&self) -> &'static str {
        match (self.calibrated.goal.confidence, self.calibrated.goal.except) {
            (None, _) => "conformal risk control",
            (Some(_), None) => "learn-then-test, Hoeffding-Bentkus",
            (Some(_), Some(_)) => "learn-then-test, binomial",
        }
    }

    /// A table of budgets, and what is certified.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Calibrated {
            losses, decision, ..
        } = self.calibrated;
        self.write_head(out)?;
        writeln!(out, "\n{}\n", self.table())?;
        let Some(certificate) = self.certificate else {
            writeln!(out, "Certified: none; {}.", self.calibrated.reason())?;
            return Ok(());
        };
        writeln!(
            out,
            "Certified: {}. {}",
            certificate.budget, certificate.statement
        )?;
        writeln!(out, "{}", certificate.assumes)?;
        if decision.smallest_tried_passes() && losses.budgets.len() > 1 {
            writeln!(
                out,
                "It is the smallest budget that was tried: a smaller one may do."
            )?;
        }
        self.write_held_out(out, certificate)?;
        let Some(path) = self.out else {
            return writeln!(out, "\nNothing is written without --out.");
        };
        let file = quoted(&path.to_string_lossy());
        writeln!(out, "\nWritten to {file}")?;
        match CertifiedAllocation::read(path) {
            Ok(_) => writeln!(
                out,
                "Next: kvprof allocate --certificate {file}{}",
                self.source()
            ),
            Err(why) => writeln!(out, "No plan can carry it: {why:#}"),
        }
    }

    /// How `kvprof allocate` gets the model's geometry.
    fn source(&self) -> String {
        let meta = &self.calibrated.results.meta;
        let name = &meta.model.name;
        let known = MODELS.iter().any(|model| model.name == name);
        match meta.settings.profile_sha256 {
            Some(_) => " --profile FOLDER --out plan.json".to_owned(),
            None if known => format!(" --model {name} --out plan.json"),
            None => " --model MODEL --out plan.json".to_owned(),
        }
    }

    fn write_head(&self, out: &mut impl Write) -> io::Result<()> {
        let Calibrated {
            goal,
            losses,
            decision,
            loss,
            method,
            results,
            ..
        } = self.calibrated;
        let meta = &results.meta;
        let bound = self.calibrated.amount(goal.at_most);
        let wanted = match goal.except {
            None => format!("mean {} at most {bound}", loss.name),
            Some(share) => format!(
                "{} at most {bound} but for {:.3} % of prompts",
                loss.name,
                100.0 * share
            ),
        };
        let sure = match goal.confidence {
            None => "in the mean over calibrations".to_owned(),
            Some(confidence) => format!("with confidence {confidence}"),
        };
        writeln!(
            out,
            "{method} on {}: {wanted}, {sure} ({})",
            meta.model.name,
            self.rule()
        )?;
        writeln!(out, "{:<9} {}", loss.name, loss.about)?;
        if goal.except.is_none() && loss.most().is_none() {
            writeln!(
                out,
                "{:<9} larger losses count as {}",
                "",
                self.calibrated.amount(goal.most)
            )?;
        }
        let [least, most] = losses.tokens();
        let n = losses.units.len();
        let clusters = match losses.prompts() {
            prompts if prompts > n => format!(" in {}", counted(n, "cluster")),
            _ => String::new(),
        };
        writeln!(
            out,
            "Calibrated on {}{clusters} of {}, {least} to {most} tokens; at least {} are needed",
            counted(losses.prompts(), "prompt"),
            meta.data.name,
            decision.fewest_units
        )?;
        if losses.undefined > 0 {
            writeln!(
                out,
                "{} without this loss left out",
                counted(losses.undefined, "prompt")
            )?;
        }
        Ok(())
    }

    fn table(&self) -> String {
        let Calibrated {
            goal,
            losses,
            decision,
            ..
        } = self.calibrated;
        let n = losses.units.len();
        let seen = if goal.except.is_some() {
            "above"
        } else {
            "mean loss"
        };
        let statistic = if goal.confidence.is_some() {
            "p"
        } else {
            "corrected"
        };
        let failed = (0..losses.budgets.len()).any(|budget| losses.failed(budget) > 0);
        let last = if failed { &["failed"][..] } else { &[] };
        let headings = ["budget", "MB", seen, "allowed", statistic, "limit", "<"];
        let mut table = text_table(headings.iter().chain(last));
        for (place, step) in decision.steps.iter().enumerate() {
            let budget = losses.budgets.len() - 1 - place;
            let (seen, allowed) = match goal.except {
                Some(_) => (
                    format!("{} of {n}", step.violations),
                    decision
                        .violations_allowed
                        .map_or("-".to_owned(), |k| k.to_string()),
                ),
                None => (format!("{:.4}", step.seen), cell(decision.allowed, 4)),
            };
            let cells = [
                step.budget.clone(),
                format!("{:.2}", losses.kv_bytes[budget] / 1e6),
                seen,
                allowed,
                cell(step.statistic, 4),
                cell(step.statistic.map(|_| decision.limit), 4),
                outcome(step).to_owned(),
            ];
            let failures = failed.then(|| losses.failed(budget).to_string());
            table.add_row(cells.into_iter().chain(failures));
        }
        table.trim_fmt()
    }

    fn write_held_out(&self, out: &mut impl Write, certificate: &Certificate) -> io::Result<()> {
        let (Some(source), Some(held_out)) = (self.held_out, &certificate.held_out) else {
            return match self.held_out {
                None => Ok(()),
                Some(source) => writeln!(out, "\nHeld out ({source}): not tried at this budget."),
            };
        };
        let interval = held_out.interval.map_or(String::new(), |[low, high]| {
            format!(" (95 % interval {low:.4} to {high:.4})")
        });
        let seen = match certificate.except {
            None => format!("mean {} {:.4}", certificate.loss, held_out.seen),
            Some(_) => format!(
                "{} of {} above the bound, a share of {:.4}",
                held_out.violations, held_out.units, held_out.seen
            ),
        };
        let units = counted(held_out.units, self.calibrated.unit());
        writeln!(
            out,
            "\nHeld out ({source}), {units}: {seen}{interval}; {}",
            held_out.verdict
        )
    }
}

fn outcome(step: &Step) -> &'static str {
    match (step.passes, step.statistic) {
        (true, _) => "passes",
        (false, Some(_)) => "fails",
        (false, None) => "not tested",
    }
}
