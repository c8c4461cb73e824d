//! One prompt, as the verbs take it that look at a single one.

use std::path::PathBuf;

use anyhow::Context;
use kvprof::dataset::{Dataset, Protocol, Rendered, Template, cut};
use kvprof::eval::context_tokens;
use kvprof::files::sha256_hex;
use kvprof::model::{ModelHeader, message_ids};
use kvprof::profile::{Prompt, prompts_sha256};
use kvprof::run::DataRecord;

/// Which prompt.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("message").required(true).args(["prompt", "prompt_file", "data"])))]
pub struct OnePromptArguments {
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

/// A question that comes after its context.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct QuestionArguments {
    /// What is asked about --prompt or --prompt-file: it follows after an empty line
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    question: Option<String>,
    /// What is prefilled and cut: question-known, the whole prompt; question-after, its context alone, behind which
    /// question and template tail come uncut
    #[arg(long, default_value_t = Protocol::default(), value_name = "PROTOCOL")]
    protocol: Protocol,
}

/// A prompt before it is tokenised, and where it is from.
pub struct Message {
    content: Content,
    /// What follows the context, where it is known where that ends.
    rest: Option<String>,
    name: String,
    sha256: String,
    template: String,
}

/// A prompt before it is tokenised, or ids that are taken as they are.
enum Content {
    Text(String),
    Ids(Vec<u32>),
}

impl Message {
    /// A message that is no part of a data set.
    fn alone(text: String, name: String) -> Self {
        Self {
            sha256: sha256_hex(text.as_bytes()),
            content: Content::Text(text),
            rest: None,
            name,
            template: "none".to_owned(),
        }
    }
}

impl QuestionArguments {
    /// A message with the question behind it, if there is one.
    pub fn asked_of(&self, mut message: Message) -> Message {
        if let (Some(question), Content::Text(text)) = (&self.question, &mut message.content) {
            let rest = format!("\n\n{question}");
            text.push_str(&rest);
            message.rest = Some(rest);
        }
        message
    }
}

impl OnePromptArguments {
    /// The text or ids that were asked for, read before a model is loaded.
    pub fn message(&self) -> anyhow::Result<Message> {
        match (&self.prompt, &self.prompt_file, &self.data) {
            (Some(text), ..) => Ok(Message::alone(text.clone(), "a prompt".to_owned())),
            (_, Some(path), _) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("reading {}", path.display()))?;
                let name = path.file_stem().unwrap_or(path.as_os_str());
                Ok(Message::alone(text, name.to_string_lossy().into_owned()))
            }
            (_, _, Some(data)) => self.record_of(data),
            _ => anyhow::bail!("one of --prompt, --prompt-file and --data is needed"),
        }
    }

    /// The record of a data set that was asked for.
    fn record_of(&self, data: &str) -> anyhow::Result<Message> {
        let data = Dataset::open(data).context("reading the data set")?;
        let (index, count) = (self.index.unwrap_or(0), data.records.len());
        let record = data.records.get(index).with_context(|| {
            format!(
                "--index {index} is past the last of {count} records, {}",
                count - 1
            )
        })?;
        let template = Template::default_for(data.kind);
        let (content, rest) = if record.ids.is_empty() {
            let Rendered {
                text, context_end, ..
            } = template.render(record)?;
            let rest = context_end.map(|end| text[end..].to_owned());
            (Content::Text(text), rest)
        } else {
            let limit = self.max_prompt_tokens.unwrap_or(usize::MAX);
            (Content::Ids(cut::middle_cut(&record.ids, limit)), None)
        };
        Ok(Message {
            content,
            rest,
            name: data.name,
            sha256: data.sha256,
            template: template.sha256(),
        })
    }

    /// The prompt's ids in a model's vocabulary.
    pub fn ids(&self, message: &Message, model: &ModelHeader) -> anyhow::Result<Vec<u32>> {
        let ids = match &message.content {
            Content::Ids(ids) => ids.clone(),
            Content::Text(text) => {
                let chat = model.chat.as_ref().filter(|_| !self.raw);
                let limit = self.max_prompt_tokens;
                message_ids(&model.tokenizer, chat, text, limit, cut::middle_cut)?
            }
        };
        model.config.check_prompt("text", &ids)?;
        Ok(ids)
    }

    /// How many of a prompt's last ids are the question, where it comes after the context.
    pub fn question_tokens(
        &self,
        asked: &QuestionArguments,
        message: &Message,
        ids: &[u32],
        model: &ModelHeader,
    ) -> anyhow::Result<usize> {
        if asked.protocol == Protocol::QuestionKnown {
            return Ok(0);
        }
        let rest = message.rest.as_deref().context(
            "--protocol question-after needs to know where the context ends: give --question beside --prompt or \
             --prompt-file, or a data set that keeps its question apart",
        )?;
        let context = context_tokens(&message.name, &model.tokenizer, ids, rest)?;
        Ok(ids.len() - context)
    }

    /// Which record of a data set the prompt is.
    pub fn index(&self) -> Option<usize> {
        self.data.as_ref().map(|_| self.index.unwrap_or(0))
    }

    /// What the record of a run keeps of the prompt.
    pub fn record(&self, message: &Message, ids: &[u32]) -> DataRecord {
        let raw = if self.raw { " raw" } else { "" };
        let prompt = Prompt {
            id: message.name.clone(),
            ids: ids.to_vec(),
        };
        DataRecord {
            name: message.name.clone(),
            sha256: message.sha256.clone(),
            template: format!("{}{raw}", message.template),
            prompts: 1,
            prompts_sha256: prompts_sha256(&[prompt]),
            max_prompt_tokens: self.max_prompt_tokens,
            protocol: None,
        }
    }
}
