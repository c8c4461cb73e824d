//! `kvprof trace`: what every method holds, sees and takes, step by step, while a long text is written.

use anyhow::Context;
use candle_core::Device;
use kvprof::budget::{Budget, CacheBudget, Floor, Geometry};
use kvprof::eval::trace::{Trace, TraceRecord, TraceRun, TraceSettings, TracedPrompt, turns};
use kvprof::method::Method;
use kvprof::model::{Model, ModelHeader};
use kvprof::run::{DataRecord, ModelRecord};

use super::compress::check_alone;
use super::load::ModelArguments;
use super::long_run::{RunArguments, progress_bar, run_command, stop_cleanly};
use super::memory_need::refuse_what_cannot_fit;
use super::one_prompt::OnePromptArguments;
use super::reference::WindowArguments;
use super::trace_table;

/// Arguments of `kvprof trace`.
#[derive(Debug, clap::Args)]
pub struct TraceArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    prompt: OnePromptArguments,
    /// Methods, separated by commas, as `kvprof eval` spells them: full, snapkv+evict-h2o, clusterkv, full+cache(q4)
    #[arg(long, default_value = "full,snapkv,snapkv+evict-h2o,clusterkv,leankv")]
    methods: String,
    /// What methods spend: mean tokens per KV head and layer (128), a share of the prompt (12%), bytes (5MB), or a share
    /// of the full cache's bytes (12%bytes)
    #[arg(long, allow_hyphen_values = true)]
    budget: Option<CacheBudget>,
    /// Tokens that every method writes, past every stop id
    #[arg(long, default_value_t = 1500)]
    new_tokens: usize,
    /// How often every method writes them, in turns: texts and bytes are the same each time, seconds are not
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// First tokens of the prompt that always stay
    #[arg(long, default_value_t = Floor::SINKS)]
    sinks: usize,
    /// Last tokens of the prompt that always stay, and the rows that scorers look from
    #[arg(long, default_value_t = Floor::WINDOW)]
    window: usize,
    #[command(flatten)]
    windows: WindowArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// A prompt's ids, and what a run keeps of it.
struct TokenisedPrompt {
    ids: Vec<u32>,
    record: DataRecord,
}

impl TraceArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let methods = Method::parse_list(&self.methods)?;
        self.check(&methods)?;
        let (model, prompt) = self.load(&methods)?;
        let record = self.record(&model, &prompt, &methods);
        let folder = (self.run).folder(&["trace", &record.model.name, &record.data.name]);
        let parts = methods.len() * self.repeats;
        let run = TraceRun::prepare(&folder, record, parts, self.run.resume)?
            .reading(model.files.in_use.clone());
        stop_cleanly(&folder);
        self.measure(&run, &model, &prompt.ids, &methods)?;
        run.finish()?;
        trace_table::report(&Trace::load(&folder)?, &folder, &self.run)
    }

    /// What can be refused before anything is read.
    fn check(&self, methods: &[Method]) -> anyhow::Result<()> {
        TraceSettings::check_counts(self.new_tokens, self.repeats)?;
        for method in methods {
            check_alone(method).with_context(|| format!("method {}", method.name))?;
        }
        let spender = methods.iter().find(|method| method.spends_budget());
        match (self.budget, spender) {
            (Some(budget), Some(_)) => budget.check()?,
            (None, Some(method)) => anyhow::bail!(
                "method {} spends a budget: give it with --budget",
                method.name
            ),
            (Some(_), None) => {
                anyhow::bail!("none of --methods spends a budget: leave --budget out")
            }
            (None, None) => {}
        }
        self.check_floor(methods)?;
        self.run.check_place::<TraceSettings>()
    }

    fn check_floor(&self, methods: &[Method]) -> anyhow::Result<()> {
        let (sinks, window) = (self.sinks, self.window);
        let stays = sinks.saturating_add(window);
        let in_tokens = self.budget.and_then(CacheBudget::tokens);
        if let Some(Budget::TokensPerHead(budget)) = in_tokens {
            anyhow::ensure!(
                budget >= stays as f64 || methods.iter().all(|method| method.cut.is_none()),
                "--budget {budget} is below the {stays} tokens that sinks ({sinks}) and window ({window}) take: allow \
                 more, or lower them"
            );
        }
        Ok(())
    }

    fn floor(&self) -> Floor {
        self.windows.of(Floor::of(self.sinks, self.window))
    }

    /// The model and the prompt; what either rules out is refused before the weights are read.
    fn load(&self, methods: &[Method]) -> anyhow::Result<(Model, TokenisedPrompt)> {
        let message = self.prompt.message()?;
        let (header, device) = self.model.open(self.run.quiet)?;
        let ids = self.prompt.ids(&message, &header)?;
        self.check_model(&header, &device, methods, ids.len())?;
        // The full cache, and a method's own beside it: a whole one, for methods that let nothing go.
        let whole = |method: &Method| method.cut.is_none() && method.held_as().is_none();
        let own = if methods.iter().any(whole) {
            ids.len() + self.new_tokens
        } else {
            0
        };
        refuse_what_cannot_fit(
            &header,
            &device,
            self.model.precision()?,
            ids.len().saturating_add(own),
        )?;
        let record = self.prompt.record(&message, &ids);
        let model = self.model.read(header, &device)?;
        Ok((model, TokenisedPrompt { ids, record }))
    }

    fn check_model(
        &self,
        header: &ModelHeader,
        device: &Device,
        methods: &[Method],
        tokens: usize,
    ) -> anyhow::Result<()> {
        let (config, floor) = (&header.config, self.floor());
        TraceSettings::check_room(tokens, self.new_tokens, config.context_of(tokens))?;
        let cuts = methods.iter().any(|method| method.cut.is_some());
        anyhow::ensure!(
            self.window < tokens || !cuts,
            "the prompt has {tokens} tokens, the window of {} must be shorter: lower --window",
            self.window
        );
        let geometry = Geometry::of_files(&header.files, config);
        if cuts {
            floor.check_layers(&geometry, usize::MAX)?;
        }
        let precision = self.model.precision()?;
        for method in methods {
            let budget = self.budget.filter(|_| method.spends_budget());
            let checked = method
                .check_geometry(&geometry)
                .and_then(|()| method.check_device(device, precision))
                .and_then(|()| method.check_prompt(tokens, &geometry, budget, &floor));
            checked.with_context(|| format!("method {}", method.name))?;
        }
        Ok(())
    }

    fn record(&self, model: &Model, prompt: &TokenisedPrompt, methods: &[Method]) -> TraceRecord {
        let settings = TraceSettings {
            index: self.prompt.index(),
            prompt_tokens: prompt.ids.len(),
            methods: methods.iter().map(Method::described).collect(),
            budget: self.budget.map(|budget| budget.to_string()),
            sinks: self.sinks,
            window: self.window,
            whole_windows: self.windows.whole_windows,
            new_tokens: self.new_tokens,
            repeats: self.repeats,
            threads: candle_core::utils::get_num_threads(),
        };
        let model = ModelRecord::of_model(model);
        TraceRecord::new(run_command(), model, prompt.record.clone(), settings)
    }

    /// Lets every method take the turns that are not there yet.
    fn measure(
        &self,
        run: &TraceRun,
        model: &Model,
        ids: &[u32],
        methods: &[Method],
    ) -> anyhow::Result<()> {
        let all = turns(methods.len(), self.repeats).into_iter();
        let todo: Vec<_> = all.filter(|turn| !run.has(turn.part)).collect();
        if todo.is_empty() {
            return Ok(());
        }
        let bar = progress_bar(todo.len() * self.new_tokens, "tokens", self.run.quiet);
        bar.set_message("prefill");
        let prompt = TracedPrompt::prefill(
            model,
            ids,
            methods,
            self.budget,
            self.floor(),
            self.new_tokens,
        )?;
        for turn in todo {
            let (name, repeat) = (&methods[turn.method].name, turn.repeat + 1);
            bar.set_message(format!("repeat {repeat}/{}, {name}", self.repeats));
            run.measure(turn, &prompt, &mut || bar.inc(1))
                .with_context(|| format!("tracing {name}"))?;
        }
        bar.finish_and_clear();
        Ok(())
    }
}
