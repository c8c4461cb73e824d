//! The prompts of a data set, as every verb that measures them takes them.

use std::path::PathBuf;

use anyhow::Context;
use kvprof::dataset::{Dataset, Kind, Protocol, Template};
use kvprof::eval::{Case, Reader};
use kvprof::model::ModelHeader;
use kvprof::model::config::ModelConfig;
use kvprof::profile::{Prompt, prompts_sha256};
use kvprof::run::DataRecord;

/// How prompts are made of a data set's records.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct PromptArguments {
    /// Template over the data set's columns (minijinja)
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Leave the model's chat template out
    #[arg(long)]
    pub raw: bool,
    /// Number of prompts to take from the start of the data set
    #[arg(long)]
    limit: Option<usize>,
    /// Cut longer prompts in the middle
    #[arg(long, value_name = "TOKENS")]
    pub max_prompt_tokens: Option<usize>,
    /// What is prefilled and measured or cut: question-known, the whole prompt; question-after, its context alone,
    /// behind which question and template tail come uncut
    #[arg(long, default_value_t = Protocol::default(), value_name = "PROTOCOL")]
    pub protocol: Protocol,
}

/// A data set that was read, and how its records become prompts.
pub struct PromptSet<'a> {
    /// The records.
    pub data: Dataset,
    template: Template,
    arguments: &'a PromptArguments,
}

impl PromptArguments {
    /// Whether prompts were to be written or cut in a way of their own.
    pub fn shapes_text(&self) -> bool {
        self.template.is_some() || self.max_prompt_tokens.is_some()
    }

    /// What can be refused before a data set is read.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.limit != Some(0),
            "--limit is 0, at least one prompt is needed"
        );
        Ok(())
    }

    /// Reads a data set and the template.
    pub fn open(&self, data: &str) -> anyhow::Result<PromptSet<'_>> {
        self.of(Dataset::open(data).context("reading the data set")?)
    }

    /// The same of a data set that is there already.
    pub fn of(&self, data: Dataset) -> anyhow::Result<PromptSet<'_>> {
        if data.kind == Kind::Ids && (self.raw || self.template.is_some()) {
            anyhow::bail!(
                "--raw and --template do nothing for a data set of token ids: leave them out"
            );
        }
        let template = match &self.template {
            Some(path) => Template::from_file(path)?,
            None => Template::default_for(data.kind),
        };
        Ok(PromptSet {
            data,
            template,
            arguments: self,
        })
    }
}

/// Refuses a prompt after which `new` tokens, or its accepted answers, do not fit the model's context; `option` asks for
/// so many.
pub fn check_room(
    case: &Case,
    config: &ModelConfig,
    new: usize,
    option: &str,
) -> anyhow::Result<()> {
    let (id, tokens) = (&case.id, case.ids.len());
    let context = config.context_of(tokens);
    let longest = case.longest(context, new);
    anyhow::ensure!(
        tokens <= longest,
        "prompt {id} has {tokens} tokens, at most {longest} leave room for {new} new ones and the accepted answers in a context \
         of {context}: shorten prompts (--max-prompt-tokens), or lower {option}"
    );
    Ok(())
}

impl PromptSet<'_> {
    /// Prompts with their answers and evidence, all of them inside the model's vocabulary and context.
    pub fn cases(&self, reader: &Reader<'_>) -> anyhow::Result<Vec<Case>> {
        let reader = Reader {
            chat: reader.chat.filter(|_| !self.arguments.raw),
            ..*reader
        };
        let limit = self.arguments.limit.unwrap_or(usize::MAX);
        let records = self.data.records.iter().take(limit);
        let most = self.arguments.max_prompt_tokens;
        let protocol = self.arguments.protocol;
        let cases = records.map(|record| Case::of(record, &self.template, &reader, most, protocol));
        Ok(cases.collect::<Result<_, _>>()?)
    }

    /// The same of a model whose weights have not been read yet.
    pub fn cases_of(&self, header: &ModelHeader) -> anyhow::Result<Vec<Case>> {
        self.cases(&Reader {
            tokenizer: &header.tokenizer,
            chat: header.chat.as_ref(),
            config: &header.config,
        })
    }

    /// What the record of a run keeps of the data set, its template and the prompts that came of both.
    pub fn record(&self, prompts: &[Prompt]) -> DataRecord {
        let raw = if self.arguments.raw { " raw" } else { "" };
        DataRecord {
            name: self.data.name.clone(),
            sha256: self.data.sha256.clone(),
            template: format!("{}{raw}", self.template.sha256()),
            prompts: prompts.len(),
            prompts_sha256: prompts_sha256(prompts),
            max_prompt_tokens: self.arguments.max_prompt_tokens,
            protocol: self.arguments.protocol.in_files(),
        }
    }
}
