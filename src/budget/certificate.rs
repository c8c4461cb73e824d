//! A certificate on disk: which bound a method's loss was shown to keep at a budget, and on what that rests.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_problem::json_problem;
use crate::error::{Error, Result};
use crate::files;

/// Version of a certificate's layout; readers refuse others.
pub const CERTIFICATE_SCHEMA: u32 = 1;

/// A budget at which a method's loss on a new prompt is bounded, as `kvprof certify` writes it and a plan carries it.
///
/// Paper: conformal risk control (arXiv 2208.02814); with a confidence learn then test (arXiv 2110.01052).
/// Units: losses in the unit of the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Layout version, [`CERTIFICATE_SCHEMA`].
    pub schema: u32,
    /// Version of kvprof that certified.
    pub kvprof: String,
    /// Command line that repeats it.
    pub command: String,
    /// What is certified, in a sentence.
    pub statement: String,
    /// What it rests on, and what it says nothing of.
    pub assumes: String,
    /// The smallest budget that passed, as it was asked for.
    pub budget: String,
    /// Name of the loss.
    pub loss: String,
    /// Bound on the loss.
    pub at_most: f64,
    /// Share of units that may lose more; `null` where the mean loss is bounded.
    pub except: Option<f64>,
    /// What larger losses were counted as; `null` where the loss itself is not averaged.
    pub clip: Option<f64>,
    /// Share of calibrations in which the bound holds; `null` where it holds in the mean over calibrations.
    pub confidence: Option<f64>,
    /// What was calibrated on.
    pub calibration: Calibration,
    /// The method with all its parameters, as the evaluation has it.
    pub method: Value,
    /// First tokens of the prompt that always stayed.
    pub sinks: usize,
    /// Last tokens of the prompt that always stayed.
    pub window: usize,
    /// Whether layers with a window kept all that they see, apart from the budget.
    pub whole_windows: bool,
    /// Most tokens that were generated.
    pub max_new_tokens: usize,
    /// What was prefilled, where it was not the whole prompt, as in [`crate::run::DataRecord::protocol`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Whose rows scorers looked from, where it was not the end of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_from: Option<String>,
    /// Model.
    pub model: String,
    /// SHA-256 of its weight file.
    pub model_sha256: String,
    /// Type that it computed in, and that of the cache where it is another.
    pub dtype: String,
    /// SHA-256 of the profile that the method was allocated from; `null` where there was none.
    pub profile_sha256: Option<String>,
    /// What became of it on prompts that were not calibrated on; `null` where none were held out.
    pub held_out: Option<HeldOutRecord>,
}

/// The prompts that a certificate rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Folder of the evaluation.
    pub results: String,
    /// SHA-256 over its results and metadata.
    pub results_sha256: String,
    /// Data set.
    pub dataset: String,
    /// SHA-256 of the data set file.
    pub dataset_sha256: String,
    /// SHA-256 of the prompt template.
    pub template: String,
    /// Independent units: prompts, or clusters of them.
    pub units: usize,
    /// Prompts in them.
    pub prompts: usize,
    /// Tokens of the shortest and of the longest prompt.
    pub tokens: [usize; 2],
    /// Mean loss at the certified budget, or share of units that lost more than the bound.
    pub seen: f64,
    /// The most of it that would have passed.
    pub allowed: f64,
    /// Units that lost more than the bound.
    pub violations: usize,
    /// Runs at the certified budget that ended in an error and counted as the largest loss.
    pub failed: usize,
}

/// A certificate on prompts that it was not calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutRecord {
    /// Where the prompts are from.
    pub source: String,
    /// Independent units.
    pub units: usize,
    /// Mean loss, or share of units that lose more than the bound.
    pub seen: f64,
    /// Units that lose more than the bound.
    pub violations: usize,
    /// 95 % interval of what was seen; `null` where one unit gives none.
    pub interval: Option<[f64; 2]>,
    /// What that says of the bound.
    pub verdict: String,
}

/// The one field that says whether the others can be read.
#[derive(Deserialize)]
struct Layout {
    schema: u32,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for what is no certificate, has another layout, an unknown field, or
    /// numbers that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let bad = |e: serde_json::Error| {
            let problem = json_problem(&text, &e);
            let problem =
                format!("is no certificate: {problem}; make one with `kvprof certify --out`");
            Error::format_at(path, e.line(), problem)
        };
        let layout: Layout = serde_json::from_str(&text).map_err(bad)?;
        if layout.schema != CERTIFICATE_SCHEMA {
            let problem = format!(
                "has layout {}, this kvprof reads certificates of layout {CERTIFICATE_SCHEMA}: certify again",
                layout.schema
            );
            return Err(Error::format(path, problem));
        }
        let read: Self = serde_json::from_str(&text).map_err(bad)?;
        let problem = |e: Error| Error::format(path, format!("is no sound certificate: {e}"));
        read.check().map_err(problem)?;
        Ok(read)
    }

    /// Writes the certificate beside its target and renames it into place.
    ///
    /// Errors: [`Error::Io`]; [`Error::Invalid`] for what could not be read back.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check()?;
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::format(path, format!("cannot hold the certificate: {e}")))?;
        files::replace_with(path, format!("{text}\n").as_bytes())
    }

    /// Refuses numbers that no certificate has, and texts that are commands to a terminal.
    ///
    /// Errors: [`Error::Invalid`].
    pub(super) fn check(&self) -> Result<()> {
        let shares = [("except", self.except), ("confidence", self.confidence)];
        for (what, share) in shares {
            if let Some(share) = share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
                let bound = "it is a share between 0 and 1";
                return Err(Error::invalid(what, share, bound));
            }
        }
        if self.at_most < 0.0 || self.calibration.units == 0 {
            let bound = "a certificate bounds a loss from above, and rests on prompts";
            return Err(Error::invalid("at_most", self.at_most, bound));
        }
        let held_out = self.held_out.iter();
        let texts = held_out.flat_map(|h| [("source", &h.source), ("verdict", &h.verdict)]);
        let mut texts = texts.chain([
            ("statement", &self.statement),
            ("assumes", &self.assumes),
            ("budget", &self.budget),
            ("loss", &self.loss),
            ("model", &self.model),
            ("dataset", &self.calibration.dataset),
        ]);
        match texts.find(|(_, text)| text.contains(char::is_control)) {
            None => Ok(()),
            Some((what, text)) => {
                let bound = "it has no control characters";
                Err(Error::invalid(what, format!("{text:?}"), bound))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::BudgetPlan;
    use crate::budget::sample::{Sample, certificate};
    use serde_json::json;

    #[test]
    fn a_certificate_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificate.json");
        certificate().write(&path).unwrap();
        assert_eq!(Certificate::read(&path).unwrap(), certificate());
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificate.json");
        let refused = |field: &str, value: Value| {
            let mut json = serde_json::to_value(certificate()).unwrap();
            json[field] = value;
            std::fs::write(&path, json.to_string()).unwrap();
            Certificate::read(&path).unwrap_err().to_string()
        };
        assert!(refused("schema", json!(2)).contains("layout 2"));
        assert!(refused("luck", json!(1)).contains("unknown field `luck`"));
        assert!(refused("confidence", json!(95)).contains("confidence is 95"));
        assert!(refused("at_most", json!(-1)).contains("from above"));
        assert!(refused("statement", json!("\u{1b}[2J")).contains("control characters"));
        std::fs::write(&path, "{}").unwrap();
        let said = Certificate::read(&path).unwrap_err().to_string();
        assert!(said.contains("kvprof certify"), "{said}");
    }

    #[test]
    fn a_plan_carries_its_certificate_and_is_the_same_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let plain = Sample::default().plan();
        let mut plan = plain.clone();
        plan.provenance.certificate = Some(Box::new(certificate()));
        plan.write(&path).unwrap();
        let back = BudgetPlan::read(&path).unwrap();
        assert_eq!(back, plan);
        assert!(back.allocates_like(&plain) && back != plain);
        plain.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("certificate"),
            "plans without one are as they were"
        );
        plan.provenance.certificate = Some(Box::new(Certificate {
            confidence: Some(2.0),
            ..certificate()
        }));
        std::fs::write(&path, serde_json::to_string(&plan).unwrap()).unwrap();
        let said = BudgetPlan::read(&path).unwrap_err().to_string();
        assert!(
            said.contains("not a sound plan") && said.contains("confidence"),
            "{said}"
        );
    }
}
