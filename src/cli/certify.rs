//! `kvprof certify`: the smallest budget at which what a method loses is bounded on new prompts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::eval::certify::{
    CLIP, Calibrated, Decision, Goal, HeldOut, Loss, UnitLosses, certificate,
};
use kvprof::eval::{Bootstrap, Results, results_digest};

use super::certify_report::CertifyReport;
use super::output_file::{check_writable, refuse_to_overwrite};

/// Arguments of `kvprof certify`.
#[derive(Debug, clap::Args)]
pub struct CertifyArguments {
    /// Finished evaluation to calibrate on, of `kvprof eval`
    #[arg(long, value_name = "FOLDER")]
    results: PathBuf,
    /// Method of that evaluation, as it is named there
    #[arg(long)]
    method: String,
    /// What a prompt loses against its full cache: `kvprof list losses` names them all
    #[arg(long)]
    loss: String,
    /// Bound on the loss, in its unit; on the mean loss unless --except is given
    #[arg(long, value_name = "LOSS", allow_negative_numbers = true)]
    at_most: f64,
    /// Bound every prompt's loss but for this share of prompts (10%), instead of the mean
    #[arg(long, value_name = "SHARE", value_parser = share)]
    except: Option<f64>,
    /// How sure: the share of calibrations in which the bound holds (0.95), by learn-then-test; without it the bound holds in
    /// the mean over calibrations, by conformal risk control
    #[arg(long, value_name = "SHARE", value_parser = share)]
    confidence: Option<f64>,
    /// Count larger losses as this one, of losses without a bound of their own (kl, nll) [default: 2]
    #[arg(long, value_name = "LOSS", conflicts_with = "except")]
    clip: Option<f64>,
    /// Budgets of the evaluation to choose among [default: all]
    #[arg(long, value_delimiter = ',')]
    budgets: Vec<String>,
    /// Prompts to check the certificate on and not to calibrate on: a share of them (30%), or the folder of another evaluation
    #[arg(long, value_name = "SHARE|FOLDER")]
    held_out: Option<String>,
    /// Seed of what is held out, and of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Certificate to write; `kvprof allocate --certificate` makes a plan of it
    #[arg(long, value_name = "CERTIFICATE.json")]
    out: Option<PathBuf>,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prompts that are held out.
struct HeldOutUnits {
    losses: UnitLosses,
    /// Where they are from, in words.
    source: String,
}

impl CertifyArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let loss = Loss::find(&self.loss)?;
        let goal = self.goal(loss)?;
        if let Some(out) = &self.out {
            check_writable(out)?;
        }
        let results = Results::load(&self.results).context("reading the evaluation")?;
        let all = self.losses(&results, loss, &goal)?;
        let (losses, held_out) = self.parted(&results, all, loss, &goal)?;
        let decision = goal.decide(&losses)?;
        let digest = results_digest(&self.results)?;
        let folder = self.results.to_string_lossy();
        let calibrated = Calibrated {
            results: &results,
            folder: &folder,
            digest: &digest,
            method: &self.method,
            loss,
            goal: &goal,
            losses: &losses,
            decision: &decision,
        };
        let checked = held_out.as_ref().and_then(|held_out| {
            let checked = self.check_on(held_out, &goal, &decision, &losses)?;
            Some((held_out.source.as_str(), checked))
        });
        let command = super::command_line(&["--force", "--json"]);
        let of_held_out = checked.as_ref().map(|(source, checked)| (*source, checked));
        let certificate = certificate(&calibrated, command, of_held_out);
        if let (Some(out), Some(certificate)) = (&self.out, &certificate) {
            let same =
                || kvprof::budget::Certificate::read(out).is_ok_and(|old| old == *certificate);
            refuse_to_overwrite(out, self.force, same)?;
            certificate.write(out)?;
        }
        let report = CertifyReport {
            calibrated,
            certificate: certificate.as_ref(),
            held_out: held_out.as_ref().map(|held_out| held_out.source.as_str()),
            out: self.out.as_deref(),
        };
        if self.json {
            super::print_json(&report.to_json())?;
        } else {
            report.write(&mut std::io::stdout().lock())?;
        }
        anyhow::ensure!(
            certificate.is_some(),
            "no budget of {} is certified: {}",
            self.method,
            calibrated.reason()
        );
        Ok(())
    }

    fn goal(&self, loss: &Loss) -> anyhow::Result<Goal> {
        if let (Some(clip), Some(most)) = (self.clip, loss.most()) {
            anyhow::bail!(
                "--clip {clip} is not needed: {} is at most {most}",
                loss.name
            );
        }
        let clip = self.clip.unwrap_or(CLIP);
        let goal = Goal {
            at_most: self.at_most,
            except: self.except,
            most: match (loss.most(), self.except) {
                (Some(most), _) => most,
                // Whether a loss is above the bound needs no largest one.
                (None, Some(_)) => f64::INFINITY,
                (None, None) => clip,
            },
            confidence: self.confidence,
        };
        goal.check()?;
        Ok(goal)
    }

    fn losses(&self, results: &Results, loss: &Loss, goal: &Goal) -> anyhow::Result<UnitLosses> {
        let read = UnitLosses::read(
            &results.results,
            &self.method,
            loss,
            goal.most,
            &self.budgets,
        );
        Ok(read?)
    }

    /// What is calibrated on, and what is held out.
    fn parted(
        &self,
        results: &Results,
        all: UnitLosses,
        loss: &Loss,
        goal: &Goal,
    ) -> anyhow::Result<(UnitLosses, Option<HeldOutUnits>)> {
        let Some(held_out) = &self.held_out else {
            return Ok((all, None));
        };
        if let Ok(share) = share(held_out) {
            let (rest, losses) = all.split(share, self.seed)?;
            let source = format!(
                "{held_out} of the same evaluation, drawn with seed {}",
                self.seed
            );
            return Ok((rest, Some(HeldOutUnits { losses, source })));
        }
        let folder = Path::new(held_out);
        let other = Results::load(folder).context("reading the held-out evaluation")?;
        check_other(results, &other, held_out, &self.method)?;
        let losses = self.losses(&other, loss, goal);
        let losses = losses.with_context(|| format!("held-out evaluation {held_out}"))?;
        let name = &other.meta.data.name;
        let source = if other.meta.data.sha256 == results.meta.data.sha256 {
            format!("{held_out}, other prompts of {name}")
        } else {
            format!("{held_out}, the other data set {name}, which the certificate does not cover")
        };
        Ok((all, Some(HeldOutUnits { losses, source })))
    }

    /// The certified budget on what was held out; none where no budget passes.
    fn check_on(
        &self,
        held_out: &HeldOutUnits,
        goal: &Goal,
        decision: &Decision,
        losses: &UnitLosses,
    ) -> Option<HeldOut> {
        let budget = &losses.budgets[decision.smallest?];
        let place = held_out.losses.budgets.iter().position(|b| b == budget)?;
        let bootstrap = Bootstrap {
            seed: self.seed,
            ..Bootstrap::default()
        };
        HeldOut::of(goal, &held_out.losses.at(place), bootstrap)
    }
}

/// Refuses a held-out evaluation that is of something else, or of the same prompts.
fn check_other(ours: &Results, other: &Results, folder: &str, method: &str) -> anyhow::Result<()> {
    let (mine, theirs) = (&ours.meta, &other.meta);
    anyhow::ensure!(
        mine.model.sha256 == theirs.model.sha256,
        "--held-out {folder} is of another model ({}, here {}): hold prompts of the same one out",
        theirs.model.name,
        mine.model.name
    );
    let of = |results: &Results| {
        let mut all = results.meta.settings.methods.iter();
        all.find(|m| m["name"] == method).cloned()
    };
    anyhow::ensure!(
        of(ours) == of(other),
        "--held-out {folder} did not try {method} with the same parameters"
    );
    let settings = |results: &Results| {
        let s = &results.meta.settings;
        let asked = (results.meta.data.protocol.clone(), s.observed_from.clone());
        (
            (s.sinks, s.window, s.whole_windows, s.max_new_tokens),
            asked,
        )
    };
    anyhow::ensure!(
        settings(ours) == settings(other),
        "--held-out {folder} has other sinks, window, new tokens or another protocol: evaluate both alike"
    );
    let ids = |results: &Results| results.results.texts("prompt_id").map(<[String]>::to_vec);
    let mine_ids = ids(ours)?;
    let same_data = mine.data.sha256 == theirs.data.sha256;
    let shared = ids(other)?.into_iter().find(|id| mine_ids.contains(id));
    match shared.filter(|_| same_data) {
        None => Ok(()),
        Some(id) => anyhow::bail!(
            "--held-out {folder} has prompt {id} too, which was calibrated on: hold other prompts out"
        ),
    }
}

/// A share as `10%` or `0.1`.
pub fn share(text: &str) -> Result<f64, String> {
    let number = match text.trim().strip_suffix('%') {
        // The exponent shifts the decimal point without rounding twice.
        Some(percent) => format!("{}e-2", percent.trim_end()),
        None => text.trim().to_owned(),
    };
    let share: f64 = number
        .parse()
        .map_err(|_| format!("'{text}' is no share, such as 10% or 0.1"))?;
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err(format!("{text} is not between 0 and 100%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_per_cent_or_fractions() {
        assert_eq!(
            (share("10%"), share("0.1"), share("29 %")),
            (Ok(0.1), Ok(0.1), Ok(0.29))
        );
        for wrong in ["95", "0", "100%", "1", "-5%", "ten", "", "%", "NaN"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
