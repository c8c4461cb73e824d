//! Measures prompts about one needle with the caller's tokenizer.

use serde_json::{Map, Value};

use super::fact::Fact;
use super::haystack::{Sentence, hide};
use crate::dataset::record::{Kind, Record};
use crate::dataset::template::Template;
use crate::error::{Error, Result};

/// What stands before a sentence that is measured alone.
const BEFORE: &str = "So it was.";

pub(super) struct Scale<'a> {
    count: &'a dyn Fn(&str) -> Result<usize>,
    template: Template,
    fact: &'a Fact,
}

impl<'a> Scale<'a> {
    pub(super) fn new(count: &'a dyn Fn(&str) -> Result<usize>, fact: &'a Fact) -> Self {
        Self {
            count,
            template: Template::default_for(Kind::LongBench),
            fact,
        }
    }

    /// Tokens of the whole prompt with the needle at `depth`.
    pub(super) fn size(&self, haystack: &[Sentence], depth: f64) -> Result<usize> {
        let context = hide(&self.fact.sentence, haystack, depth).text;
        let columns: Map<String, Value> = Map::from_iter([
            ("input".to_owned(), Value::from(self.fact.question.as_str())),
            ("context".to_owned(), Value::from(context)),
            ("answers".to_owned(), Value::Array(vec![])),
        ]);
        let record = Record::new(columns, 0)
            .map_err(|problem| Error::invalid("a generated record", "not valid", problem))?;
        (self.count)(&self.template.render(&record)?.text)
    }

    /// Tokens that a sentence adds behind another one.
    pub(super) fn sentence(&self, text: &str) -> Result<usize> {
        let both = (self.count)(&format!("{BEFORE} {text}"))?;
        Ok(both.saturating_sub((self.count)(BEFORE)?))
    }
}
