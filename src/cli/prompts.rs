//! The prompts of a data set, as every verb that measures them takes them.

use std::path::PathBuf;

use anyhow::Context;
use kvprof::dataset::{Dataset, Kind, Template, cut};
use kvprof::error::Error;
use kvprof::eval::{Case, Reader};
use kvprof::model::chat::ChatTemplate;
use kvprof::model::config::ModelConfig;
use kvprof::model::gguf::Gguf;
use kvprof::model::source::ModelFiles;
use kvprof::model::tokenizer::Tokenizer;
use kvprof::model::{message_ids, tokenizer_of};
use kvprof::profile::Prompt;

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
}

/// A data set that was read, and how its records become prompts.
pub struct PromptSet<'a> {
    /// The records.
    pub data: Dataset,
    template: Template,
    arguments: &'a PromptArguments,
}

impl PromptArguments {
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

impl PromptSet<'_> {
    /// Token ids of every prompt, all of them inside the model's vocabulary and context.
    pub fn prompts(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
        config: &ModelConfig,
    ) -> anyhow::Result<Vec<Prompt>> {
        let PromptArguments {
            raw,
            limit,
            max_prompt_tokens: most,
            ..
        } = *self.arguments;
        let chat = chat.filter(|_| !raw);
        let context = config.max_position_embeddings;
        let mut prompts = Vec::new();
        for record in self.data.records.iter().take(limit.unwrap_or(usize::MAX)) {
            let ids = if record.ids.is_empty() {
                let text = self.template.render(record)?.text;
                message_ids(tokenizer, chat, &text, most, cut::middle_cut)?
            } else {
                match most {
                    Some(most) => cut::middle_cut(&record.ids, most),
                    None => record.ids.clone(),
                }
            };
            if ids.len() > context {
                return Err(Error::PromptTooLong {
                    prompt: record.id.clone(),
                    tokens: ids.len(),
                    context,
                }
                .into());
            }
            anyhow::ensure!(!ids.is_empty(), "prompt {} has no token", record.id);
            let vocabulary = config.vocab_size;
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
                anyhow::bail!(
                    "prompt {}: token id {id} is outside the model's vocabulary of {vocabulary}",
                    record.id
                );
            }
            prompts.push(Prompt {
                id: record.id.clone(),
                ids,
            });
        }
        Ok(prompts)
    }

    /// The same of a model whose weights have not been read yet.
    pub fn prompts_of_files(
        &self,
        files: &ModelFiles,
        config: &ModelConfig,
    ) -> anyhow::Result<Vec<Prompt>> {
        let gguf = Gguf::open(&files.weights)?;
        let tokenizer = tokenizer_of(files, &gguf)?;
        let chat = ChatTemplate::of_model(&gguf, &tokenizer)?;
        self.prompts(&tokenizer, chat.as_ref(), config)
    }

    /// Prompts with their answers and evidence, of a model whose weights have not been read yet.
    pub fn cases(&self, files: &ModelFiles, config: &ModelConfig) -> anyhow::Result<Vec<Case>> {
        let gguf = Gguf::open(&files.weights)?;
        let tokenizer = tokenizer_of(files, &gguf)?;
        let chat = ChatTemplate::of_model(&gguf, &tokenizer)?;
        let reader = Reader {
            tokenizer: &tokenizer,
            chat: chat.as_ref().filter(|_| !self.arguments.raw),
            config,
        };
        let limit = self.arguments.limit.unwrap_or(usize::MAX);
        let records = self.data.records.iter().take(limit);
        let most = self.arguments.max_prompt_tokens;
        let cases = records.map(|record| Case::of(record, &self.template, &reader, most));
        Ok(cases.collect::<Result<_, _>>()?)
    }

    /// The template as `meta.json` keeps it.
    pub fn template_digest(&self) -> String {
        let raw = if self.arguments.raw { " raw" } else { "" };
        format!("{}{raw}", self.template.sha256())
    }
}
