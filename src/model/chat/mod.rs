//! Chat templates: the text that a conversation becomes before it is tokenised.

mod date;
mod python_json;

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

pub use date::Date;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;
use crate::model::json_fields::JsonFields;
use crate::model::tokenizer::Tokenizer;

const NAME: &str = "chat template";

/// Steps that a template may take before it is stopped, apart from those that the messages' length allows.
///
/// Long conversations with tool calls need some ten thousand.
const FUEL: u64 = 100_000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A model's own template (Jinja), as transformers runs it.
///
/// Paper: none: house definition. Differs: a run-away template is stopped; `tojson` sorts the keys of maps.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts of the tokens that it may write.
    ///
    /// `strftime_now` in the template gives today's date (UTC); see [`dated`](Self::dated).
    /// Errors: [`Error::Format`] with the line of a syntax error.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|e| failure(&e))?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_function(
            "raise_exception",
            |text: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
            },
        );
        environment.add_filter("tojson", python_json::filter);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|e| failure(&e))?;
        let template = Self {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        };
        Ok(template.dated(Date::today()))
    }

    /// The template in a GGUF file's metadata, if it has one.
    ///
    /// Errors: as [`new`](Self::new).
    pub fn of_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let source = gguf.text_opt("tokenizer.chat_template");
        source
            .map(|source| Self::of_file(source, gguf.path(), tokenizer))
            .transpose()
    }

    /// The template of a Hugging Face folder, if it has one: a file of its own, or a field of `tokenizer_config.json`,
    /// in which the one called `default` counts where there are several.
    ///
    /// Errors: as [`new`](Self::new); [`Error::Io`] and [`Error::Format`] for files that cannot be read.
    pub fn of_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(found) = Self::source_in(folder)? else {
            return Ok(None);
        };
        let (source, file) = found;
        Self::of_file(&source, &file, tokenizer).map(Some)
    }

    /// The template of a Hugging Face folder as text, and the file that it is in.
    ///
    /// Errors: [`Error::Io`] and [`Error::Format`] for files that cannot be read.
    pub(super) fn source_in(folder: &Path) -> Result<Option<(String, PathBuf)>> {
        let file = folder.join("chat_template.jinja");
        match std::fs::read_to_string(&file) {
            Ok(source) => return Ok(Some((source, file))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", &file, e)),
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let file = folder.join(name);
            if !file.is_file() {
                continue;
            }
            let fields = JsonFields::read(&file)?;
            let source = match fields.value("chat_template") {
                Some(serde_json::Value::Array(named)) => {
                    let default = named.iter().find(|one| one["name"] == "default");
                    default.and_then(|one| one["template"].as_str())
                }
                _ => fields.text("chat_template")?,
            };
            if let Some(source) = source {
                return Ok(Some((source.to_owned(), file)));
            }
        }
        Ok(None)
    }

    /// A template that a file holds, whose path errors name.
    fn of_file(source: &str, path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let template = Self::new(source, token(tokenizer.bos_id()), token(tokenizer.eos_id()));
        // What holds the template alone has its lines.
        let is_template = path.extension().is_some_and(|ending| ending == "jinja");
        template.map_err(|error| match error {
            Error::Format { line, problem, .. } if is_template => Error::Format {
                path: path.to_owned(),
                line,
                problem,
            },
            Error::Format { line, problem, .. } => Error::Format {
                path: path.to_owned(),
                line: None,
                problem: in_template(line, &problem),
            },
            other => other,
        })
    }

    /// Fixes the date that the template sees, so that the same conversation gives the same prompt tomorrow.
    pub fn dated(mut self, date: Date) -> Self {
        self.environment
            .add_function("strftime_now", move |format: String| date.format(&format));
        self
    }

    /// Writes the conversation as the model was trained to read it.
    ///
    /// With `add_generation_prompt` the text ends where the assistant's answer begins.
    /// Errors: [`Error::Format`] with the line, for a template that refuses the conversation, fails, or runs on.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let conversation: Vec<Value> = messages
            .iter()
            .map(|m| {
                Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())])
            })
            .collect();
        let context = Value::from_pairs([
            ("messages", Value::from(conversation)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]);
        let length: usize = messages
            .iter()
            .map(|m| m.role.len() + m.content.len())
            .sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(
            FUEL.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)),
        ));
        let template = environment.get_template(NAME).map_err(|e| failure(&e))?;
        template.render(context).map_err(|e| failure(&e))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// A template's failure, with its line and without the excerpt that a terminal has no room for.
fn failure(error: &minijinja::Error) -> Error {
    let problem = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "takes too many steps; it seems to run for ever".to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    Error::Format {
        path: Path::new(NAME).to_owned(),
        line: error.line(),
        problem,
    }
}

fn in_template(line: Option<usize>, problem: &str) -> String {
    let line = line
        .map(|line| format!(", line {line}"))
        .unwrap_or_default();
    format!("tokenizer.chat_template{line}: {problem}")
}

#[cfg(test)]
mod tests;
