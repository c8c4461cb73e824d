//! `kvprof generate`: plain generation from the full cache.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use kvprof::dataset::cut;
use kvprof::model::Model;
use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;

use super::load::ModelArguments;

/// Arguments of `kvprof generate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The user's message
    #[arg(
        long,
        required_unless_present = "prompt_file",
        conflicts_with = "prompt_file"
    )]
    prompt: Option<String>,
    /// A file with the user's message
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Leave the model's chat template out
    #[arg(long)]
    raw: bool,
    /// Cut a longer prompt in the middle
    #[arg(long, value_name = "TOKENS")]
    max_prompt_tokens: Option<usize>,
    /// Most tokens to generate
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Sample from the most likely tokens that hold this share
    #[arg(long)]
    top_p: Option<f64>,
    /// Seed of the sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the text
    #[arg(long)]
    quiet: bool,
    /// Print text, ids and timings as JSON at the end
    #[arg(long)]
    json: bool,
}

/// What one generation gave.
struct Generated {
    prompt_tokens: usize,
    ids: Vec<u32>,
    text: String,
    prefill_s: f64,
    decode_s: f64,
    cache_bytes: usize,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let message = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?,
            (None, None) => anyhow::bail!("--prompt or --prompt-file is needed"),
        };
        let model = self.model.load(self.quiet)?;
        let ids = model.message_ids(&message, self.raw, self.max_prompt_tokens, cut::middle_cut)?;
        let generated = self.generate(&model, &ids)?;
        if self.json {
            let value = serde_json::json!({
                "model": model.files.name, "prompt_tokens": generated.prompt_tokens,
                "ids": generated.ids, "text": generated.text,
                "prefill_s": generated.prefill_s, "decode_s": generated.decode_s,
                "cache_bytes": generated.cache_bytes,
            });
            writeln!(
                std::io::stdout().lock(),
                "{}",
                serde_json::to_string_pretty(&value)?
            )?;
        } else if !self.quiet {
            let steps = generated.ids.len().saturating_sub(1);
            eprintln!(
                "\n{} prompt tokens at {:.0} tokens/s, {} new ones at {:.1} tokens/s, cache {:.1} MB",
                generated.prompt_tokens,
                generated.prompt_tokens as f64 / generated.prefill_s,
                generated.ids.len(),
                steps as f64 / generated.decode_s.max(1e-9),
                generated.cache_bytes as f64 / 1e6,
            );
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "--temperature is {}, expected 0 (greedy) or more",
            self.temperature
        );
        if let Some(p) = self.top_p {
            anyhow::ensure!(
                p > 0.0 && p <= 1.0,
                "--top-p is {p}, expected above 0 and at most 1"
            );
            anyhow::ensure!(
                self.temperature > 0.0,
                "--top-p needs --temperature above 0: greedy decoding samples nothing"
            );
        }
        anyhow::ensure!(
            self.max_new_tokens > 0,
            "--max-new-tokens is 0, at least one is needed"
        );
        Ok(())
    }

    fn generate(&self, model: &Model, ids: &[u32]) -> anyhow::Result<Generated> {
        let context = model.decoder.config().max_position_embeddings;
        let room = context.saturating_sub(ids.len());
        let most = self.max_new_tokens.min(room.saturating_add(1));
        let sampling = match (self.temperature, self.top_p) {
            (0.0, _) => Sampling::ArgMax,
            (temperature, None) => Sampling::All { temperature },
            (temperature, Some(p)) => Sampling::TopP { p, temperature },
        };
        let mut sampler = LogitsProcessor::from_sampling(self.seed, sampling);
        let mut cache = model.decoder.new_cache(ids.len() + most.min(1024))?;
        let start = Instant::now();
        let mut logits = model
            .decoder
            .prefill(ids, &mut cache, PREFILL_RUN, &mut NoProbe)?;
        let prefill_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut stream = model.tokenizer.stream(false);
        let (mut new_ids, mut text) = (Vec::new(), String::new());
        let mut emit = |piece: &str| -> anyhow::Result<()> {
            text.push_str(piece);
            if !self.json {
                let mut out = std::io::stdout().lock();
                out.write_all(piece.as_bytes())?;
                out.flush()?;
            }
            Ok(())
        };
        loop {
            let id = sampler.sample(&logits)?;
            if model.tokenizer.stop_ids().contains(&id) {
                break;
            }
            new_ids.push(id);
            emit(&stream.push(id)?)?;
            if new_ids.len() == most {
                break;
            }
            logits = model.decoder.decode(id, &mut cache)?;
        }
        let rest = stream.finish();
        emit(&rest)?;
        if !self.json {
            writeln!(std::io::stdout().lock())?;
        }
        Ok(Generated {
            prompt_tokens: ids.len(),
            ids: new_ids,
            text,
            prefill_s,
            decode_s: start.elapsed().as_secs_f64(),
            cache_bytes: cache.bytes(),
        })
    }
}
