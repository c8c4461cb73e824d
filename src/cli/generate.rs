//! `kvprof generate`: an answer from the full cache or from a cut one, and how the two differ.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use kvprof::budget::Geometry;
use kvprof::dataset::{Dataset, Template, cut};
use kvprof::error::Error;
use kvprof::generate::{self, Continuation, DECODE_ROOM, Fidelity, Prefilled};
use kvprof::model::Model;
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::memory;
use kvprof::select::Slots;

use super::compress::{CompressArguments, Compression};
use super::load::ModelArguments;

/// Fewer decoding steps than this are not timed against each other.
const LEAST_TIMED_STEPS: usize = 8;

/// Arguments of `kvprof generate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Also decode from the full cache, and compare texts, predictions and speed
    #[arg(long, requires = "cut")]
    compare: bool,
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
    /// Print text, ids, kept tokens, bytes and timings as JSON at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compress: CompressArguments,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("message").required(true).args(["prompt", "prompt_file", "data"])))]
struct PromptArguments {
    /// The user's message
    #[arg(long)]
    prompt: Option<String>,
    /// A file with the user's message
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// A data set, by name or path
    #[arg(long)]
    data: Option<String>,
    /// Which record of the data set, counted from 0
    #[arg(long, requires = "data")]
    index: Option<usize>,
    /// Leave the model's chat template out
    #[arg(long)]
    raw: bool,
    /// Cut a longer prompt in the middle
    #[arg(long, value_name = "TOKENS")]
    max_prompt_tokens: Option<usize>,
}

/// A prompt before it is tokenised, or ids that are taken as they are.
enum Message {
    Text(String),
    Ids(Vec<u32>),
}

/// What the cut kept.
struct Cut {
    /// `[layer][kv_head]`.
    kept: Vec<Vec<usize>>,
    held_bytes: usize,
    /// With the room for tokens to come.
    allocated_bytes: usize,
    /// Of measuring, allocating, selecting and cutting.
    seconds: f64,
    /// Of the process, before and after the cut; `None` where the system does not tell.
    resident: Option<(usize, usize)>,
}

/// The same prompt decoded from the full cache.
struct Comparison {
    full: Continuation,
    text: String,
    fidelity: Fidelity,
    /// Tokens per second of the full and of the cut cache over the same steps; `None` for too few.
    rates: Option<(f64, f64)>,
}

impl PromptArguments {
    /// The text or ids that were asked for, read before a model is loaded.
    fn message(&self) -> anyhow::Result<Message> {
        let text = match (&self.prompt, &self.prompt_file, &self.data) {
            (Some(text), ..) => text.clone(),
            (_, Some(path), _) => std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?,
            (_, _, Some(data)) => {
                let data = Dataset::open(data).context("reading the data set")?;
                let (index, count) = (self.index.unwrap_or(0), data.records.len());
                let record = data.records.get(index).with_context(|| {
                    format!(
                        "--index {index} is past the last of {count} records, {}",
                        count - 1
                    )
                })?;
                if !record.ids.is_empty() {
                    let limit = self.max_prompt_tokens.unwrap_or(usize::MAX);
                    return Ok(Message::Ids(cut::middle_cut(&record.ids, limit)));
                }
                Template::default_for(data.kind).render(record)?.text
            }
            _ => anyhow::bail!("one of --prompt, --prompt-file and --data is needed"),
        };
        Ok(Message::Text(text))
    }

    fn ids(&self, message: Message, model: &Model) -> anyhow::Result<Vec<u32>> {
        match message {
            Message::Ids(ids) => Ok(ids),
            Message::Text(text) => {
                Ok(model.message_ids(&text, self.raw, self.max_prompt_tokens, cut::middle_cut)?)
            }
        }
    }
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let compression = self.compress.compression()?;
        let message = self.prompt.message()?;
        let model = self.model.load_checked(self.quiet, |files, config| {
            let geometry = Geometry {
                model: files.name.clone(),
                model_sha256: files.sha256.clone(),
                layers: config.num_hidden_layers,
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
            };
            compression
                .as_ref()
                .map_or(Ok(()), |c| c.check_model(&geometry))
        })?;
        let ids = self.prompt.ids(message, &model)?;
        let context = model.decoder.config().max_position_embeddings;
        let most = self
            .max_new_tokens
            .min(context.saturating_sub(ids.len()) + 1);
        let room = DECODE_ROOM;
        let start = Instant::now();
        let (mut full, kept) = match &compression {
            Some(c) => {
                let (full, budgets) = c.prefill(&model, &ids, room)?;
                let kept = generate::kept_slots(&full.scores, &budgets, &c.selector)?;
                (full, Some(kept))
            }
            None => (
                generate::prefill(&model.decoder, &ids, room, None, &mut NoProbe)?,
                None,
            ),
        };
        let mut cut_s = start.elapsed().as_secs_f64() - full.seconds;
        let full_bytes = full.cache.bytes();
        let comparison = match (&kept, self.compare) {
            (Some(kept), true) => Some(self.compared(&model, &full, kept, most, room)?),
            _ => None,
        };
        memory::return_freed();
        let resident_before = memory::resident_bytes();
        if let Some(kept) = &kept {
            let start = Instant::now();
            full.cache.retain(kept, room)?;
            cut_s += start.elapsed().as_secs_f64();
        }
        let resident_after = memory::resident_bytes();
        let cut = kept.map(|_| Cut {
            kept: full.cache.lengths(),
            held_bytes: full.cache.bytes(),
            allocated_bytes: full.cache.allocated_bytes(),
            seconds: cut_s,
            resident: resident_before.zip(resident_after),
        });
        let logits = full.logits.clone();
        let (done, text) = self.decode(&model, &mut full.cache, &logits, most, !self.json)?;
        let report = Report {
            arguments: &self,
            model: &model,
            compression: compression.as_ref(),
            prompt_tokens: ids.len(),
            prefill_s: full.seconds,
            full_bytes,
            cut,
            done,
            text,
            comparison,
        };
        report.print()
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
            self.json || !(self.quiet && self.compare),
            "--compare has nothing to show with --quiet: leave one out, or add --json"
        );
        anyhow::ensure!(
            self.max_new_tokens > 0,
            "--max-new-tokens is 0, at least one is needed"
        );
        Ok(())
    }

    fn decode(
        &self,
        model: &Model,
        cache: &mut KvCache,
        logits: &Tensor,
        most: usize,
        show: bool,
    ) -> anyhow::Result<(Continuation, String)> {
        let sampling = match (self.temperature, self.top_p) {
            (0.0, _) => Sampling::ArgMax,
            (temperature, None) => Sampling::All { temperature },
            (temperature, Some(p)) => Sampling::TopP { p, temperature },
        };
        let mut sampler = LogitsProcessor::from_sampling(self.seed, sampling);
        let mut stream = model.tokenizer.stream(false);
        let mut text = String::new();
        let done = generate::decode(
            &model.decoder,
            cache,
            logits,
            most,
            model.tokenizer.stop_ids(),
            &mut |logits| Ok(sampler.sample(logits)?),
            &mut |id| {
                let piece = stream.push(id)?;
                text.push_str(&piece);
                write_piece(&piece, show)
            },
        )?;
        let rest = stream.finish();
        write_piece(&rest, show)?;
        text.push_str(&rest);
        if show {
            writeln!(std::io::stdout().lock())?;
        }
        Ok((done, text))
    }

    /// Decodes from a copy of the full cache, and feeds what it says to copies of both.
    ///
    /// Both caches run the same steps twice, in turns and in opposite orders, so that neither has the
    /// warmer machine.
    fn compared(
        &self,
        model: &Model,
        full: &Prefilled,
        kept: &[Slots],
        most: usize,
        room: usize,
    ) -> anyhow::Result<Comparison> {
        let mut cache = full.cache.copy(room)?;
        let (done, text) = self.decode(model, &mut cache, &full.logits, most, false)?;
        drop(cache);
        let forced = |cache: anyhow::Result<KvCache>| {
            let ids = &done.ids;
            let rows = generate::teacher_forced(&model.decoder, &mut cache?, &full.logits, ids);
            Ok::<_, anyhow::Error>(rows?)
        };
        let whole = || Ok(full.cache.copy(room)?);
        let cut = || Ok(full.cache.cut(kept, room)?);
        let (reference, full_first) = forced(whole())?;
        let (rows, cut_first) = forced(cut())?;
        let fidelity = generate::fidelity(&reference, &rows);
        drop((reference, rows));
        let (_, cut_second) = forced(cut())?;
        let (_, full_second) = forced(whole())?;
        let steps = done.ids.len().saturating_sub(1);
        let rates = (steps >= LEAST_TIMED_STEPS).then(|| {
            let rate = |seconds: f64| 2.0 * steps as f64 / seconds.max(1e-9);
            (rate(full_first + full_second), rate(cut_first + cut_second))
        });
        Ok(Comparison {
            fidelity,
            full: done,
            text,
            rates,
        })
    }
}

fn write_piece(piece: &str, show: bool) -> Result<(), Error> {
    if !show {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(piece.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("write to", std::path::Path::new("standard output"), e))
}

/// Everything that is said after the text.
struct Report<'a> {
    arguments: &'a Arguments,
    model: &'a Model,
    compression: Option<&'a Compression>,
    prompt_tokens: usize,
    prefill_s: f64,
    full_bytes: usize,
    cut: Option<Cut>,
    done: Continuation,
    text: String,
    comparison: Option<Comparison>,
}

impl Report<'_> {
    fn print(&self) -> anyhow::Result<()> {
        if self.arguments.json {
            let text = serde_json::to_string_pretty(&self.json())?;
            writeln!(std::io::stdout().lock(), "{text}")?;
        } else if !self.arguments.quiet {
            let mut out = std::io::stderr().lock();
            self.write(&mut out)?;
        }
        Ok(())
    }

    /// First token at which the two greedy texts differ.
    fn parting(&self, full: &Continuation) -> Option<usize> {
        let pairs = || self.done.ids.iter().zip(&full.ids);
        match pairs().position(|(a, b)| a != b) {
            Some(at) => Some(at),
            None if self.done.ids.len() != full.ids.len() => Some(pairs().count()),
            None => None,
        }
    }

    fn json(&self) -> serde_json::Value {
        let held = self.cut.as_ref().map_or(self.full_bytes, |c| c.held_bytes);
        let compression = self.compression.map(Compression::described);
        let compared = self.comparison.as_ref().map(|c| {
            serde_json::json!({
                "full_text": c.text, "full_ids": c.full.ids, "parting_token": self.parting(&c.full),
                "kl": c.fidelity.kl, "top1": c.fidelity.top1,
                "steps": c.full.ids.len().saturating_sub(1),
                "full_tokens_per_s": c.rates.map(|r| r.0), "cut_tokens_per_s": c.rates.map(|r| r.1),
                "speedup": c.rates.map(|(full, cut)| cut / full),
            })
        });
        let resident =
            self.cut.as_ref().and_then(|c| c.resident).map(
                |(before, after)| serde_json::json!({"before_cut": before, "after_cut": after}),
            );
        serde_json::json!({
            "model": self.model.files.name, "prompt_tokens": self.prompt_tokens,
            "ids": self.done.ids, "text": self.text,
            "prefill_s": self.prefill_s, "decode_s": self.done.seconds,
            "decode_tokens_per_s": self.done.tokens_per_second(),
            "cache_bytes": held, "full_cache_bytes": self.full_bytes,
            "resident_bytes": resident, "allocated_bytes": self.cut.as_ref().map(|c| c.allocated_bytes),
            "cut_s": self.cut.as_ref().map(|c| c.seconds),
            "compression": compression, "kept": self.cut.as_ref().map(|c| &c.kept),
            "comparison": compared,
        })
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        if let (Some(cut), Some(compression)) = (&self.cut, self.compression) {
            writeln!(
                out,
                "\nTokens kept per KV head by {}:",
                compression.strategy()
            )?;
            write_kept(out, &cut.kept)?;
        }
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        writeln!(
            out,
            "\nPrefill  {} tokens in {:.2} s, {:.0} tokens/s",
            self.prompt_tokens,
            self.prefill_s,
            self.prompt_tokens as f64 / self.prefill_s
        )?;
        if let Some(cut) = &self.cut {
            writeln!(
                out,
                "Cut      {:.2} s to measure, allocate, select and cut, beside what prefill's probes took",
                cut.seconds
            )?;
        }
        let rate = self.done.tokens_per_second();
        let rate = rate.map_or(String::new(), |r| format!(", {r:.1} tokens/s"));
        writeln!(out, "Decode   {} tokens{rate}", self.done.ids.len())?;
        match &self.cut {
            Some(cut) => writeln!(
                out,
                "Cache    {:.2} MB held after the cut, {:.1} % of the {:.2} MB that prefill held",
                megabytes(cut.held_bytes),
                100.0 * cut.held_bytes as f64 / self.full_bytes as f64,
                megabytes(self.full_bytes)
            )?,
            None => writeln!(
                out,
                "Cache    {:.2} MB after prefill",
                megabytes(self.full_bytes)
            )?,
        }
        if let Some((before, after)) = self.cut.as_ref().and_then(|c| c.resident) {
            writeln!(
                out,
                "Process  {:.0} MB resident before the cut, {:.0} MB after it",
                megabytes(before),
                megabytes(after)
            )?;
        }
        if let Some(c) = &self.comparison {
            let parting = match self.parting(&c.full) {
                Some(at) => format!("the texts part after {at} tokens"),
                None => "the texts are the same".to_owned(),
            };
            let speed = match c.rates {
                Some((full, cut)) => format!(
                    "decoding {:.2} x as fast ({cut:.1} against {full:.1} tokens/s over {} steps, twice each)",
                    cut / full,
                    c.full.ids.len().saturating_sub(1)
                ),
                None => format!("too few steps to time, {LEAST_TIMED_STEPS} are needed"),
            };
            writeln!(
                out,
                "Against the full cache: {parting}; over its {} tokens KL {:.4} nats, top-1 agreement {:.1} %; {speed}",
                c.full.ids.len(),
                c.fidelity.kl,
                100.0 * c.fidelity.top1,
            )?;
            writeln!(out, "Its text: {}", c.text.trim())?;
        }
        Ok(())
    }
}

/// One line per layer, with a bar.
fn write_kept(out: &mut impl Write, kept: &[Vec<usize>]) -> std::io::Result<()> {
    const BAR: f64 = 40.0;
    let mean = |heads: &[usize]| heads.iter().sum::<usize>() as f64 / heads.len().max(1) as f64;
    let most = kept.iter().map(|h| mean(h)).fold(1.0, f64::max);
    writeln!(out, "layer     mean  heads")?;
    for (layer, heads) in kept.iter().enumerate() {
        let bar = "█".repeat(((mean(heads) / most * BAR).round() as usize).max(1));
        let list: Vec<String> = heads.iter().take(8).map(ToString::to_string).collect();
        let more = if heads.len() > 8 { " …" } else { "" };
        writeln!(
            out,
            "{layer:>5}  {:>7.1}  {}{more}  {bar}",
            mean(heads),
            list.join(" ")
        )?;
    }
    Ok(())
}
