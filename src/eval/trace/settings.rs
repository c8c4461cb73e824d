//! What a trace is asked for, and how it lies on disk.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::run::{RunKind, RunRecord, RunSettings};

/// Tables of a trace: what repeats byte for byte, and seconds.
pub(super) const TABLES: [&str; 2] = ["steps", "step_times"];

/// The most steps of a trace; no context is longer.
const MOST_TOKENS: usize = 1 << 20;

/// The most repeats of a trace.
const MOST_REPEATS: usize = 1000;

/// What a trace was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceSettings {
    /// Which record of the data set the prompt is, from 0; `None` for a prompt that is no part of one.
    pub index: Option<usize>,
    /// T.
    pub prompt_tokens: usize,
    /// Methods in full, in the order asked for; the names are those of the tables.
    pub methods: Vec<Value>,
    /// The budget as it was asked for, where some method spends one.
    pub budget: Option<String>,
    /// First tokens of the prompt that always stayed.
    pub sinks: usize,
    /// Last tokens of the prompt that always stayed, and the rows that scorers looked from.
    pub window: usize,
    /// Whether layers with a window kept all that they see, apart from the budget.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_windows: bool,
    /// Tokens that every method wrote.
    pub new_tokens: usize,
    /// How often every method wrote them.
    pub repeats: usize,
    /// Threads that shared the work on a CPU.
    pub threads: usize,
}

/// Provenance and settings of a trace.
pub type TraceRecord = RunRecord<TraceSettings>;

/// How traces lie on disk: a part per repeat and method.
pub static KIND: RunKind = RunKind {
    noun: "trace",
    made_with: "kvprof trace",
    or_made_with: &[],
    drawn_with: "kvprof plot residency --trace",
    tables: &TABLES,
    schema: 1,
    fields: "schema kvprof command model model_source model_sha256 num_layers num_kv_heads head_dim windows? device dtype threads \
             dataset dataset_sha256 template index? prompts_sha256 max_prompt_tokens? prompt_tokens methods budget? sinks window \
             whole_windows? new_tokens repeats",
};

impl RunSettings for TraceSettings {
    const KIND: &'static RunKind = &KIND;

    fn check(&self) -> Result<()> {
        Self::check_counts(self.new_tokens, self.repeats)
    }
}

impl TraceSettings {
    /// Refuses no token, no repeat, and more of either than any run takes.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check_counts(new_tokens: usize, repeats: usize) -> Result<()> {
        for (what, count, most) in [
            ("--new-tokens", new_tokens, MOST_TOKENS),
            ("--repeats", repeats, MOST_REPEATS),
        ] {
            if !(1..=most).contains(&count) {
                let bound = format!("it must lie between 1 and {most}");
                return Err(Error::invalid(what, count, bound));
            }
        }
        Ok(())
    }

    /// Refuses a prompt of `tokens` behind which a `context` has no room for what is written.
    ///
    /// Errors: [`Error::Invalid`] with the room that is left.
    pub fn check_room(tokens: usize, new_tokens: usize, context: usize) -> Result<()> {
        let room = context.saturating_sub(tokens);
        if new_tokens <= room {
            return Ok(());
        }
        let bound = format!(
            "the prompt's {tokens} tokens leave room for {room} in the model's context of {context}: write fewer, or cut \
             the prompt with --max-prompt-tokens"
        );
        Err(Error::invalid("--new-tokens", new_tokens, bound))
    }

    /// Names of the methods, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.methods.iter().map(|method| method["name"].as_str());
        names.map(Option::unwrap_or_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_room_are_bounded() {
        assert!(TraceSettings::check_counts(1, 1).is_ok());
        for (tokens, repeats, part) in [
            (0, 1, "--new-tokens is 0"),
            (MOST_TOKENS + 1, 1, "--new-tokens is 1048577"),
            (1, 0, "--repeats is 0"),
            (1, 1001, "between 1 and 1000"),
        ] {
            let said = TraceSettings::check_counts(tokens, repeats).unwrap_err();
            assert!(said.to_string().contains(part), "{said}");
        }
        assert!(TraceSettings::check_room(1024, 7168, 8192).is_ok());
        let said = TraceSettings::check_room(1024, 7169, 8192)
            .unwrap_err()
            .to_string();
        assert!(said.contains("room for 7168"), "{said}");
        let said = TraceSettings::check_room(9000, 1, 8192)
            .unwrap_err()
            .to_string();
        assert!(said.contains("room for 0"), "{said}");
    }
}
