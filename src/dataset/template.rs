//! From a record's columns to the text of the user's message.

use std::path::{Path, PathBuf};

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::kind::Kind;
use super::record::Record;
use super::rendered::{CONTEXT_END, MARK, Rendered};
use crate::error::{Error, Result};
use crate::files;

/// Long-context question answering: instruction, text, instruction, question.
const LONG_BENCH: &str = "\
{%- if input|trim -%}
{%- set instruction = 'Give only the answer, in as few words as possible, and nothing else.' -%}
Read the text below. A question about it comes at the end. {{ instruction }}

{{ context }}

That was the text. Now answer the question about it. {{ instruction }}

Question: {{ input }}
Answer:
{%- else -%}
Read the text below. You will be asked to summarise it.

{{ context }}

That was the text. Summarise it in a few sentences.
{%- endif -%}
";

/// Facts hidden among the sentences of a book.
const BABILONG: &str = "\
Below is a long text. Somewhere in it, sentences tell who went where and who carried what; the rest \
does not matter. Later sentences overrule earlier ones. A question comes at the end; answer it with \
a single word.

{{ input }}

That was the text. Answer with a single word.

Question: {{ question|trim }}
Answer:";

/// A way to turn records into messages: minijinja (Jinja's syntax) over the record's columns.
#[derive(Debug)]
pub struct Template {
    source: String,
    /// What errors call it: the file, or the format it is the default of.
    origin: PathBuf,
    environment: Environment<'static>,
}

impl Template {
    /// The template in our words for records of `kind`.
    ///
    /// RULER, LongEval and plain prompts are whole messages already and stay as they are.
    pub fn default_for(kind: Kind) -> Self {
        let source = match kind {
            Kind::LongBench => LONG_BENCH,
            Kind::Babilong => BABILONG,
            Kind::Ruler => "{{ input }}",
            Kind::LongEval | Kind::Prompt => "{{ prompt }}",
            Kind::Ids => "",
        };
        Self::new(
            source.to_owned(),
            PathBuf::from(format!("default template for {kind}")),
        )
    }

    /// Reads a template from a file and checks its syntax.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] with the line of a syntax error.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let source = String::from_utf8(bytes).map_err(|_| {
            Error::format(path, "is not UTF-8 text; a template is a Jinja text file")
        })?;
        if source.trim().is_empty() {
            return Err(Error::format(
                path,
                "is empty; a template must say something",
            ));
        }
        let template = Self::new(source, path.to_owned());
        template.compile().map_err(|e| template.problem(&e, None))?;
        Ok(template)
    }

    fn new(source: String, origin: PathBuf) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_global(CONTEXT_END, MARK);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        Self {
            source,
            origin,
            environment,
        }
    }

    fn compile(&self) -> Result<minijinja::Template<'_, '_>, minijinja::Error> {
        self.environment
            .template_from_named_str("message", &self.source)
    }

    /// The record's message.
    ///
    /// A template may say where the context ends: `{{ context_end }}` leaves no text there.
    /// Errors: [`Error::Format`] with the template's line, listing the columns there are when one
    /// is unknown; for a context that ends more than once.
    pub fn render(&self, record: &Record) -> Result<Rendered> {
        let text = self
            .compile()
            .and_then(|message| message.render(Serde(&record.columns)))
            .map_err(|e| self.problem(&e, Some(record)))?;
        Rendered::of_marked(text, record).map_err(|problem| Error::format(&self.origin, problem))
    }

    /// SHA-256 of the template's source.
    pub fn sha256(&self) -> String {
        files::sha256_hex(self.source.as_bytes())
    }

    fn problem(&self, error: &minijinja::Error, record: Option<&Record>) -> Error {
        let mut problem = error.kind().to_string();
        if let Some(detail) = error.detail() {
            problem = format!("{problem}: {detail}");
        }
        if let Some(record) = record {
            let columns: Vec<_> = record.columns.keys().map(String::as_str).collect();
            let unknown = self.unknown_names(&columns);
            if !unknown.is_empty() {
                problem = format!("{problem}; not a column: {}", unknown.join(", "));
            }
            problem = format!(
                "{problem} (record {} has the columns {})",
                record.id,
                columns.join(", ")
            );
        }
        Error::Format {
            path: self.origin.clone(),
            line: error.line(),
            problem,
        }
    }

    fn unknown_names(&self, columns: &[&str]) -> Vec<String> {
        let Ok(message) = self.compile() else {
            return vec![];
        };
        let known = |name: &str| {
            columns.contains(&name) || self.environment.globals().any(|(global, _)| global == name)
        };
        let mut names: Vec<_> = message
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !known(name))
            .collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn record(value: Value) -> Record {
        let columns: Map<String, Value> = serde_json::from_value(value).unwrap();
        Record::new(columns, 0).unwrap()
    }

    fn question() -> Record {
        record(json!({
            "input": "Who kept the mill?",
            "context": "Passage 1:\nMill\nIt is née old. Ana kept it.",
            "answers": ["Ana"],
            "evidence": [[31, 43]],
        }))
    }

    fn from_text(source: &str) -> Result<Template> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.html");
        std::fs::write(&path, source).unwrap();
        Template::from_file(&path)
    }

    #[test]
    fn instruction_text_instruction_question() {
        let record = question();
        let rendered = Template::default_for(Kind::LongBench)
            .render(&record)
            .unwrap();
        let instruction = "Give only the answer";
        let places: Vec<_> = rendered
            .text
            .match_indices(instruction)
            .map(|(at, _)| at)
            .collect();
        let context = rendered.context.clone().unwrap();
        assert_eq!(Some(&rendered.text[context.clone()]), record.context());
        assert_eq!(places.len(), 2);
        assert!(places[0] < context.start && context.end < places[1]);
        assert!(rendered.text.starts_with("Read the text"));
        assert!(
            rendered
                .text
                .ends_with("Question: Who kept the mill?\nAnswer:")
        );
    }

    #[test]
    fn evidence_is_found_in_the_message() {
        let record = question();
        let rendered = Template::default_for(Kind::LongBench)
            .render(&record)
            .unwrap();
        let places = rendered.evidence(&record);
        assert_eq!(places.len(), 1);
        assert_eq!(&rendered.text[places[0].clone()], "Ana kept it.");
    }

    #[test]
    fn a_text_without_a_question_is_to_be_summarised() {
        let record = record(json!({"input": "", "context": "A long tale.", "answers": []}));
        let rendered = Template::default_for(Kind::LongBench)
            .render(&record)
            .unwrap();
        assert!(rendered.text.contains("Summarise") && !rendered.text.contains("Question"));
    }

    #[test]
    fn whole_messages_stay_as_they_are() {
        for (columns, context) in [
            (json!({"input": " a & b\n", "outputs": ["1"]}), Some(0..7)),
            (
                json!({"prompt": " a & b\n", "expected_number": 1}),
                Some(0..7),
            ),
            (json!({"prompt": " a & b\n"}), None),
        ] {
            let record = record(columns);
            let rendered = Template::default_for(record.kind).render(&record).unwrap();
            assert_eq!(
                (rendered.text.as_str(), rendered.context),
                (" a & b\n", context)
            );
        }
        let record = record(json!({"input": "Jo left.", "question": "Where? ", "target": "out"}));
        let rendered = Template::default_for(record.kind).render(&record).unwrap();
        assert!(rendered.context.is_some() && rendered.text.ends_with("Question: Where?\nAnswer:"));
    }

    #[test]
    fn context_is_placed_only_if_it_is_there_once() {
        let template = from_text("{{ context }}").unwrap();
        assert!(template.render(&question()).unwrap().context.is_some());
        let template = from_text("{{ context }} {{ context }}").unwrap();
        assert_eq!(template.render(&question()).unwrap().context, None);
        let template = from_text("{{ context|upper }}").unwrap();
        assert_eq!(template.render(&question()).unwrap().context, None);
    }

    #[test]
    fn no_escaping_whatever_the_file_is_called() {
        let record = record(json!({"prompt": "<b> & 'c'"}));
        let rendered = from_text("{{ prompt }}").unwrap().render(&record).unwrap();
        assert_eq!(rendered.text, "<b> & 'c'");
    }

    #[test]
    fn unknown_columns_are_named_with_line_and_columns() {
        let template = from_text("Read.\n\n{{ passage }} {{ input }}").unwrap();
        let problem = template.render(&question()).unwrap_err().to_string();
        assert!(problem.contains("mine.html, line 3: "), "{problem}");
        assert!(problem.contains("not a column: passage"), "{problem}");
        assert!(
            problem.contains("input, context, answers, evidence"),
            "{problem}"
        );
        let problem = from_text("a\n{% if %}").unwrap_err().to_string();
        assert!(problem.contains("mine.html, line 2: "), "{problem}");
    }

    #[test]
    fn checksums_tell_templates_apart() {
        let [a, b] = [Kind::LongBench, Kind::Babilong].map(|k| Template::default_for(k).sha256());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
