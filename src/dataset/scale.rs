//! Measures generated messages about one question with the caller's tokenizer.

use serde_json::{Value, json};

use super::kind::Kind;
use super::record::{Record, columns};
use super::template::Template;
use crate::error::{Error, Result};

/// What stands before a sentence that is measured alone.
const BEFORE: &str = "So it was.";

pub(super) struct Scale<'a> {
    count: &'a dyn Fn(&str) -> Result<usize>,
    template: Template,
    question: String,
}

impl<'a> Scale<'a> {
    pub(super) fn new(count: &'a dyn Fn(&str) -> Result<usize>, question: &str) -> Self {
        Self {
            count,
            template: Template::default_for(Kind::LongBench),
            question: question.to_owned(),
        }
    }

    /// Tokens of the whole message about a context.
    pub(super) fn message(&self, context: String) -> Result<usize> {
        let fields: Value = json!({"input": self.question, "context": context, "answers": []});
        let record = Record::new(columns(fields), 0)
            .map_err(|problem| Error::invalid("a generated record", "not valid", problem))?;
        self.text(&self.template.render(&record)?.text)
    }

    /// Tokens of a text alone.
    pub(super) fn text(&self, text: &str) -> Result<usize> {
        (self.count)(text)
    }

    /// Tokens that a sentence adds behind another one.
    pub(super) fn sentence(&self, text: &str) -> Result<usize> {
        let both = self.text(&format!("{BEFORE} {text}"))?;
        Ok(both.saturating_sub(self.text(BEFORE)?))
    }
}
