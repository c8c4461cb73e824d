//! What a run would take in memory, said before it starts.

use std::io::Write;

use candle_core::Device;
use kvprof::compute::memory::available_bytes;
use kvprof::model::ModelHeader;
use kvprof::model::cache::Representation;
use kvprof::model::footprint::{Footprint, Prefill};
use kvprof::model::precision::Precision;
use kvprof::profile::Prompt;
use serde::Serialize;

/// An error where the weights and a cache of `cached` tokens are more than the device has left.
pub fn refuse_what_cannot_fit(
    header: &ModelHeader,
    device: &Device,
    precision: Precision,
    cached: usize,
) -> anyhow::Result<()> {
    let least = Least {
        weights: header.weight_memory(device, precision.dtype).held,
        cached,
        cache: header.config.cache_bytes(cached, precision.cache),
    };
    match available_bytes(device).filter(|available| least.bytes() > *available) {
        Some(available) => anyhow::bail!(least.shortage(device, precision.cache, available)),
        None => Ok(()),
    }
}

/// What must be there at once, whatever else is.
struct Least {
    weights: usize,
    /// Tokens.
    cached: usize,
    /// Bytes of their keys and values.
    cache: usize,
}

impl Least {
    fn bytes(&self) -> usize {
        self.weights.saturating_add(self.cache)
    }

    fn shortage(&self, device: &Device, cache: Representation, available: usize) -> String {
        let halved = if cache == Representation::FLOAT32 {
            ", hold keys and values in half the bytes with --cache-dtype bf16"
        } else {
            ""
        };
        format!(
            "weights ({}) and {} cached tokens ({}) take {}, {:?} has {} left; take shorter \
             prompts{halved}, or a smaller model",
            megabytes(self.weights),
            self.cached,
            megabytes(self.cache),
            megabytes(self.bytes()),
            device.location(),
            megabytes(available),
        )
    }
}

/// The memory that the longest prompts of a run need, and what there is.
#[derive(Debug, Serialize)]
pub struct MemoryNeed {
    device: String,
    dtype: String,
    prompts: usize,
    longest_prompt_tokens: usize,
    prompts_at_once: usize,
    cache_bytes_per_token: usize,
    #[serde(flatten)]
    footprint: Footprint,
    total: usize,
    /// `None` where the device does not tell.
    available: Option<usize>,
    /// Tokens of the longest prompt that would fit; `None` as for `available`.
    most_prompt_tokens: Option<usize>,
    context: usize,
}

impl MemoryNeed {
    /// Of prompts that are prefilled and measured.
    pub fn of(prefill: &Prefill<'_>, prompts: &[Prompt]) -> Self {
        let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
        let footprint = prefill.footprint(longest);
        let available = available_bytes(prefill.device);
        Self {
            device: format!("{:?}", prefill.device.location()),
            dtype: prefill.precision.to_string(),
            prompts: prompts.len(),
            longest_prompt_tokens: longest,
            prompts_at_once: prefill.jobs,
            cache_bytes_per_token: prefill
                .config
                .cache_bytes_per_token(prefill.precision.cache),
            total: footprint.total(),
            footprint,
            available,
            most_prompt_tokens: available.map(|bytes| prefill.most_tokens(bytes)),
            context: prefill.config.max_position_embeddings,
        }
    }

    /// An error where weights and cache alone are more than there is; a warning where only the bound of
    /// everything together is.
    pub fn refuse_what_cannot_fit(&self) -> anyhow::Result<()> {
        let Some(available) = self.available else {
            return Ok(());
        };
        let least = self.footprint.weights + self.footprint.cache;
        anyhow::ensure!(
            least <= available,
            "weights and cache take {}, {} has {} left; {}",
            megabytes(least),
            self.device,
            megabytes(available),
            self.advice()
        );
        if self.total > available {
            eprintln!(
                "warning: up to {} may be needed, {} has {} left; {}",
                megabytes(self.total),
                self.device,
                megabytes(available),
                self.advice()
            );
        }
        Ok(())
    }

    fn advice(&self) -> String {
        let mut ways = Vec::new();
        if let Some(most) = self.most_prompt_tokens.filter(|most| *most > 0) {
            ways.push(format!("cut prompts with --max-prompt-tokens {most}"));
        }
        if self.prompts_at_once > 1 {
            ways.push("lower --jobs".to_owned());
        }
        if self.dtype == "f32" {
            ways.push("hold keys and values in half the bytes with --cache-dtype bf16".to_owned());
        }
        ways.push("take a smaller model".to_owned());
        ways.join(", or ")
    }

    /// Prints it as a table or as JSON.
    pub fn write(&self, header: &ModelHeader, json: bool) -> anyhow::Result<()> {
        let name = &header.files.name;
        if json {
            return super::print_json(&serde_json::json!({ "model": name, "room": self }));
        }
        let at_once = match self.prompts_at_once {
            1 => String::new(),
            n => format!("{n} prompts at once, "),
        };
        let tokens = self.prompts_at_once * self.longest_prompt_tokens;
        let each = if tokens * self.cache_bytes_per_token == self.footprint.cache {
            format!("tokens of {} bytes", self.cache_bytes_per_token)
        } else {
            "tokens, the newest and those of a run in float16".to_owned()
        };
        let cache = format!(
            "{at_once}{} {each}, the longest of {}",
            self.longest_prompt_tokens,
            super::counted(self.prompts, "prompt")
        );
        let workspace = "at most: activations, attention, measures, the process itself";
        let verdict = match self.available {
            Some(available) if self.total <= available => {
                format!("fits into the {} that are left", megabytes(available))
            }
            Some(available) => format!(
                "does not fit into the {} that are left: {}",
                megabytes(available),
                self.advice()
            ),
            None => "the device does not tell what it has left".to_owned(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{name} in {} on {}", self.dtype, self.device)?;
        for (what, bytes, note) in [
            ("weights", self.footprint.weights, ""),
            ("cache", self.footprint.cache, &*cache),
            ("workspace", self.footprint.workspace, workspace),
            ("total", self.total, &*verdict),
        ] {
            let line = format!("{what:<10}{:>12}  {note}", megabytes(bytes));
            writeln!(out, "{}", line.trim_end())?;
        }
        if let Some(most) = self.most_prompt_tokens {
            let whole = most == self.context;
            let end = if whole { ", the model's context" } else { "" };
            writeln!(out, "Prompts of up to {most} tokens fit{end}")?;
        }
        Ok(())
    }
}

fn megabytes(bytes: usize) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvprof::model::cache::Elements;

    fn need(available: Option<usize>) -> MemoryNeed {
        MemoryNeed {
            device: "Cuda { gpu_id: 0 }".into(),
            dtype: "f32".into(),
            prompts: 3,
            longest_prompt_tokens: 8192,
            prompts_at_once: 2,
            cache_bytes_per_token: 1000,
            footprint: Footprint {
                weights: 100_000_000,
                cache: 50_000_000,
                workspace: 30_000_000,
            },
            total: 180_000_000,
            available,
            most_prompt_tokens: available.map(|_| 4000),
            context: 8192,
        }
    }

    #[test]
    fn a_shortage_is_said_with_every_number() {
        let least = Least {
            weights: 100_000_000,
            cached: 2000,
            cache: 100_000_000,
        };
        assert_eq!(least.bytes(), 200_000_000);
        let text = least.shortage(&Device::Cpu, Representation::FLOAT32, 150_000_000);
        for part in [
            "100 MB",
            "2000",
            "2000 cached tokens (100 MB)",
            "200 MB",
            "150 MB",
            "--cache-dtype bf16",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let halved = least.shortage(
            &Device::Cpu,
            Representation::both(Elements::Bfloat16),
            150_000_000,
        );
        assert!(!halved.contains("-dtype"), "{halved}");
        let endless = Least {
            cache: usize::MAX,
            ..least
        };
        assert_eq!(endless.bytes(), usize::MAX);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_every_way_out() {
        for available in [None, Some(200_000_000), Some(160_000_000)] {
            need(available).refuse_what_cannot_fit().unwrap();
        }
        let error = need(Some(149_000_000))
            .refuse_what_cannot_fit()
            .unwrap_err();
        let text = error.to_string();
        for part in [
            "take 150 MB",
            "has 149 MB left",
            "--max-prompt-tokens 4000",
            "--jobs",
            "--cache-dtype bf16",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
