//! What a profile would take, as a table or as JSON.

use std::io::Write;

use super::memory_need::amount;
use super::profile_estimate::ProfileEstimate;
use super::profile_need::ProfileNeed;
use super::{counted, print_json};

impl ProfileNeed {
    /// Prints it for a model of this name, with what else the run costs.
    pub fn write(&self, model: &str, estimate: &ProfileEstimate, json: bool) -> anyhow::Result<()> {
        if json {
            let all = serde_json::json!({ "model": model, "room": self, "estimate": estimate });
            return print_json(&all);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{model} in {} on {}", self.dtype, self.device)?;
        for (what, bytes, note) in self.lines() {
            let line = format!("{what:<10}{:>12}  {note}", amount(bytes));
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(
            out,
            "With all layers at once, weights and cache alone would take {}",
            amount(self.all_layers)
        )?;
        if let Some(most) = self.most_prompt_tokens {
            let whole = most == self.context;
            let end = if whole { ", the model's context" } else { "" };
            match most {
                0 => writeln!(out, "By these bounds not even a prompt of one token fits")?,
                _ => writeln!(out, "Prompts of up to {most} tokens fit{end}")?,
            }
        }
        estimate.write(&mut out, self.prompts_at_once)
    }

    fn lines(&self) -> Vec<(&'static str, usize, String)> {
        let at_once = match self.prompts_at_once {
            1 => String::new(),
            n => format!("{n} prompts at once, "),
        };
        let cache = format!(
            "of one layer: {at_once}{} tokens, the longest of {}",
            self.longest_prompt_tokens,
            counted(self.prompts, "prompt")
        );
        let hidden = match self.batches {
            1 => {
                "residual streams of all prompts, which pass through the layers together".to_owned()
            }
            n => format!("residual streams of one of {n} batches, each of which reads all weights"),
        };
        let workspace = "at most: activations, attention, measures, the process itself";
        let mut lines = vec![
            (
                "weights",
                self.footprint.weights,
                "of the largest layer, embedding or output head".to_owned(),
            ),
            ("cache", self.footprint.cache, cache),
            ("hidden", self.footprint.hidden, hidden),
            ("workspace", self.footprint.workspace, workspace.to_owned()),
            ("total", self.total, self.verdict()),
        ];
        let disk = format!(
            "at most, while it runs: {} of residual streams that do not fit, the rest for --resume",
            amount(self.scratch)
        );
        lines.push(("disk", self.scratch + 2 * self.kept, disk));
        lines
    }

    fn verdict(&self) -> String {
        match (self.available, self.bound) {
            (Some(available), Some(bound)) if self.total <= bound => {
                format!("fits into the {} that are left", amount(available))
            }
            (Some(_), Some(bound)) => {
                let bound = amount(bound);
                format!(
                    "does not fit into the {bound} that may be taken: {}",
                    self.advice()
                )
            }
            _ => "the device does not tell what it has left".to_owned(),
        }
    }
}
