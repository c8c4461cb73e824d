//! `kvprof generate`: an answer from the full cache or from a cut one, and how the two differ.

use std::io::Write;

use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use kvprof::budget::Geometry;
use kvprof::error::Error;
use kvprof::eval::{fidelity, teacher_forced};
use kvprof::generate::{self, Continuation, Generator, Listener, MOST_ROOM};
use kvprof::method::{LiveCache, Observed};
use kvprof::model::Model;
use kvprof::model::tokenizer::TextStream;
use kvprof::select::Slots;

use super::compress::{CompressArguments, Compression};
use super::generate_report::{Comparison, GenerateReport, Rates};
use super::load::ModelArguments;
use super::one_prompt::{OnePromptArguments, QuestionArguments};

/// Logits divided by less may be infinite.
const LEAST_TEMPERATURE: f64 = 1e-3;

/// Arguments of `kvprof generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: OnePromptArguments,
    #[command(flatten)]
    question: QuestionArguments,
    /// Also decode from the full cache, and compare texts, predictions and speed
    #[arg(long, requires = "change")]
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

impl GenerateArguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let compression = self.compress.compression()?;
        let (model, ids, question_tokens) = self.load(&compression)?;
        let context = model.decoder.config().context_of(ids.len());
        let most = self
            .max_new_tokens
            .min(context.saturating_sub(ids.len()) + 1);
        let generator = Generator {
            model: &model,
            method: &compression.method,
            budget: compression.budget,
            floor: compression.floor,
            question_tokens,
            most,
        };
        let question = generator.parts(&ids).1;
        let mut speaker = Speaker::of(&self, &generator, question, !self.json);
        let generated = generator.generate(&ids, &mut speaker)?;
        let (text, comparison) = speaker.finish()?;
        model.check_files()?;
        let report = GenerateReport {
            quiet: self.quiet,
            json: self.json,
            model: &model,
            compression: &compression,
            comparison,
            generated,
            text,
        };
        report.print()
    }

    /// The model, the prompt's ids, and how many of the last are fed to the cut cache; what the prompt rules out is refused before the weights are read.
    fn load(&self, compression: &Compression) -> anyhow::Result<(Model, Vec<u32>, usize)> {
        let message = self.question.asked_of(self.prompt.message()?);
        let (mut ids, mut question_tokens) = (Vec::new(), 0);
        let model = self.model.load_checked(self.quiet, |header| {
            let geometry = Geometry::of_files(&header.files, &header.config);
            compression.check_model(&geometry)?;
            (compression.method).check_held(self.model.precision()?.cache)?;
            ids = self.prompt.ids(&message, header)?;
            let asked = &self.question;
            question_tokens = (self.prompt).question_tokens(asked, &message, &ids, header)?;
            compression.check_prompt(ids.len() - question_tokens, &geometry)?;
            // What reads a prompt again holds it twice while it does, before a copy is made to compare with.
            let again = compression.method.reads_again(compression.floor.window);
            let caches = 1 + usize::from(self.compare || again);
            Ok(caches * ids.len())
        })?;
        Ok((model, ids, question_tokens))
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

    fn sampler(&self) -> LogitsProcessor {
        let sampling = match (self.temperature, self.top_p) {
            (0.0, _) => Sampling::ArgMax,
            (temperature, None) => Sampling::All { temperature },
            (temperature, Some(p)) => Sampling::TopP { p, temperature },
        };
        LogitsProcessor::from_sampling(self.seed, sampling)
    }
}

/// Samples, streams the text, and compares with the full cache where that was asked for.
struct Speaker<'a> {
    arguments: &'a GenerateArguments,
    generator: &'a Generator<'a>,
    /// What a cut cache is fed before it answers.
    question: &'a [u32],
    sampler: LogitsProcessor,
    stream: TextStream<'a>,
    text: String,
    show: bool,
    comparison: Option<Comparison>,
}

impl<'a> Speaker<'a> {
    fn of(
        arguments: &'a GenerateArguments,
        generator: &'a Generator<'a>,
        question: &'a [u32],
        show: bool,
    ) -> Self {
        Self {
            arguments,
            generator,
            question,
            sampler: arguments.sampler(),
            stream: generator.model.tokenizer.stream(false),
            text: String::new(),
            show,
            comparison: None,
        }
    }

    /// The whole text, its last bytes written, and the comparison.
    fn finish(self) -> anyhow::Result<(String, Option<Comparison>)> {
        let rest = self.stream.finish();
        write_piece(&rest, self.show)?;
        if self.show {
            writeln!(std::io::stdout().lock())?;
        }
        Ok((self.text + &rest, self.comparison))
    }

    /// Decodes from a copy of the full cache, and feeds what it says to copies of both.
    ///
    /// Both caches run the same steps in turns, in opposite orders, so that neither has the warmer machine.
    fn compared(&self, full: &Observed<'_>, kept: &[Slots]) -> Result<Comparison, Error> {
        let Generator {
            model,
            method,
            budget,
            most,
            ..
        } = *self.generator;
        let decoder = &model.decoder;
        let (done, text) = self.full_answer(full, most)?;
        // The last token has no place in a context that is full.
        let context = decoder.config().context_of(full.cache.begun_for());
        let question = self.question;
        let begun = full.cache.next_position() + question.len();
        let steps = done.ids.len().min(context.saturating_sub(begun));
        let ids = &done.ids[..steps];
        let forced = |live: Result<LiveCache, Error>| {
            let mut live = live?;
            let mut rows = Vec::from_iter(live.feed_to_last(decoder, question)?);
            let (more, seconds) = teacher_forced(decoder, &mut live, ids)?;
            rows.extend(more);
            Ok::<_, Error>((rows, seconds))
        };
        // Room for every step: nothing is moved while it is timed.
        let room = question.len() + steps;
        let whole = || Ok(LiveCache::keeping(full.cache.copy(room)?));
        let cut = || full.cut(method, kept, budget, room);
        let (reference, full_first) = forced(whole())?;
        let (rows, cut_first) = forced(cut())?;
        let fidelity = fidelity(&reference, &rows);
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

    /// What a copy of the full cache says.
    fn full_answer(
        &self,
        full: &Observed<'_>,
        most: usize,
    ) -> Result<(Continuation, String), Error> {
        let mut other = Speaker::of(self.arguments, self.generator, self.question, false);
        let room = self.question.len() + most.min(MOST_ROOM);
        let mut live = LiveCache::keeping(full.cache.copy(room)?);
        let model = self.generator.model;
        let logits = match live.feed_to_last(&model.decoder, self.question)? {
            Some(last) => Tensor::new(last, full.logits.device())?,
            None => full.logits.clone(),
        };
        let mut next = |logits: &Tensor| other.next(model, logits);
        let done = generate::decode(&model.decoder, &mut live, &logits, most, &mut next)?;
        Ok((done, other.text + &other.stream.finish()))
    }
}

impl Listener for Speaker<'_> {
    fn before_cut(&mut self, observed: &Observed<'_>, kept: &[Slots]) -> Result<(), Error> {
        if self.arguments.compare {
            self.comparison = Some(self.compared(observed, kept)?);
        }
        Ok(())
    }

    fn choose(&mut self, logits: &Tensor) -> Result<u32, Error> {
        Ok(self.sampler.sample(logits)?)
    }

    fn emit(&mut self, id: u32) -> Result<(), Error> {
        let piece = self.stream.push(id)?;
        self.text.push_str(&piece);
        write_piece(&piece, self.show)
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
