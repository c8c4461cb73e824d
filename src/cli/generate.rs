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
use kvprof::generate::{self, Continuation, DECODE_ROOM, Prefilled};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::memory;
use kvprof::model::{Model, ModelHeader, message_ids};
use kvprof::select::Slots;

use super::compress::{CompressArguments, Compression};
use super::generate_report::{Comparison, Cut, GenerateReport, Rates};
use super::load::ModelArguments;

/// Tokens that a full cache gets as room for an answer; longer ones make it grow.
const MOST_ROOM: usize = 1024;

/// Logits divided by less may be infinite.
const LEAST_TEMPERATURE: f64 = 1e-3;

/// Arguments of `kvprof generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArguments {
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
    #[arg(long, requires = "data", conflicts_with_all = ["prompt", "prompt_file"])]
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

    fn ids(&self, message: Message, model: &ModelHeader) -> anyhow::Result<Vec<u32>> {
        let ids = match message {
            Message::Ids(ids) => ids,
            Message::Text(text) => {
                let chat = model.chat.as_ref().filter(|_| !self.raw);
                let limit = self.max_prompt_tokens;
                message_ids(&model.tokenizer, chat, &text, limit, cut::middle_cut)?
            }
        };
        model.config.check_prompt("text", &ids)?;
        Ok(ids)
    }
}

impl GenerateArguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let compression = self.compress.compression()?;
        let (model, ids) = self.load(compression.as_ref())?;
        let context = model.decoder.config().max_position_embeddings;
        let most = self
            .max_new_tokens
            .min(context.saturating_sub(ids.len()) + 1);
        let start = Instant::now();
        let (mut full, kept) = match &compression {
            Some(c) => {
                let (full, budgets) = c.prefill(&model, &ids)?;
                let kept = generate::kept_slots(&full.scores, &budgets, &c.selector)?;
                (full, Some(kept))
            }
            None => {
                let room = most.min(MOST_ROOM);
                let full = generate::prefill(&model.decoder, &ids, room, None, &mut NoProbe)?;
                (full, None)
            }
        };
        let choice_s = start.elapsed().as_secs_f64() - full.seconds;
        let full_bytes = full.cache.bytes();
        let comparison = match (&kept, self.compare) {
            (Some(kept), true) => Some(self.compared(&model, &full, kept, most)?),
            _ => None,
        };
        let cut = kept.map(|kept| retain(&mut full.cache, &kept, most.min(DECODE_ROOM), choice_s));
        let cut = cut.transpose()?;
        let logits = full.logits.clone();
        let (done, text) = self.decode(&model, &mut full.cache, &logits, most, !self.json)?;
        let report = GenerateReport {
            quiet: self.quiet,
            json: self.json,
            model: &model,
            compression: compression.as_ref(),
            prompt_tokens: ids.len(),
            prefill_s: full.seconds,
            full_bytes,
            most_bytes: full.cache.most_allocated_bytes(),
            cut,
            done,
            text,
            comparison,
        };
        report.print()
    }

    /// The model and the prompt's ids; what the prompt rules out is refused before the weights are read.
    fn load(&self, compression: Option<&Compression>) -> anyhow::Result<(Model, Vec<u32>)> {
        let message = self.prompt.message()?;
        let mut ids = Vec::new();
        let model = self.model.load_checked(self.quiet, |header| {
            let geometry = Geometry::of_files(&header.files, &header.config);
            if let Some(c) = compression {
                c.check_model(&geometry)?;
            }
            ids = self.prompt.ids(message, header)?;
            if let Some(c) = compression {
                c.check_prompt(ids.len(), &geometry)?;
            }
            let caches = 1 + usize::from(self.compare);
            Ok(caches * ids.len())
        })?;
        Ok((model, ids))
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.temperature == 0.0 || (LEAST_TEMPERATURE..=1e3).contains(&self.temperature),
            "--temperature is {:e}, expected 0 (greedy), or {LEAST_TEMPERATURE} to 1000",
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
    /// Both caches run the same steps in turns, in opposite orders, so that neither has the warmer machine.
    fn compared(
        &self,
        model: &Model,
        full: &Prefilled,
        kept: &[Slots],
        most: usize,
    ) -> anyhow::Result<Comparison> {
        let mut cache = full.cache.copy(most.min(MOST_ROOM))?;
        let (done, text) = self.decode(model, &mut cache, &full.logits, most, false)?;
        drop(cache);
        // The last token has no place in a context that is full.
        let context = model.decoder.config().max_position_embeddings;
        let steps = done.ids.len().min(context - full.cache.next_position());
        let forced = |cache: anyhow::Result<KvCache>| {
            let ids = &done.ids[..steps];
            let rows = generate::teacher_forced(&model.decoder, &mut cache?, ids);
            Ok::<_, anyhow::Error>(rows?)
        };
        // Room for every step: nothing is moved while it is timed.
        let whole = || Ok(full.cache.copy(steps)?);
        let cut = || Ok(full.cache.cut(kept, steps)?);
        let (reference, full_first) = forced(whole())?;
        let (rows, cut_first) = forced(cut())?;
        let fidelity = generate::fidelity(&reference, &rows);
        drop((reference, rows));
        let (_, cut_second) = forced(cut())?;
        let (_, full_second) = forced(whole())?;
        let rounds = [(full_first, cut_first), (full_second, cut_second)];
        Ok(Comparison {
            fidelity,
            steps,
            rates: Rates::of(steps, rounds),
            full: done,
            text,
        })
    }
}

/// Cuts the cache, and sees what that frees; `choice_s` are the seconds in which it was decided.
fn retain(cache: &mut KvCache, kept: &[Slots], room: usize, choice_s: f64) -> anyhow::Result<Cut> {
    memory::return_freed();
    let resident_before = memory::resident_bytes();
    let start = Instant::now();
    cache.retain(kept, room)?;
    let seconds = choice_s + start.elapsed().as_secs_f64();
    Ok(Cut {
        kept: cache.lengths(),
        held_bytes: cache.bytes(),
        allocated_bytes: cache.allocated_bytes(),
        seconds,
        resident: resident_before.zip(memory::resident_bytes()),
    })
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
