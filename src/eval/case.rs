//! One prompt of an evaluation: its tokens, what would be a right answer, and where the answer stands.

use crate::dataset::{Kind, Record, Template, cut};
use crate::error::Result;
use crate::model::chat::ChatTemplate;
use crate::model::config::ModelConfig;
use crate::model::message_ids;
use crate::model::tokenizer::Tokenizer;
use crate::profile::Prompt;

/// The text side of a model, which needs no weights.
pub struct Reader<'a> {
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// How a conversation is written; `None` leaves the wrapper out.
    pub chat: Option<&'a ChatTemplate>,
    /// Vocabulary and context.
    pub config: &'a ModelConfig,
}

/// A prompt with what is known about its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The data set's own name for it.
    pub id: String,
    /// Token ids of the whole prompt.
    pub ids: Vec<u32>,
    /// Accepted answers; none for plain prompts.
    pub answers: Vec<String>,
    /// Whether all of them are asked for at once (RULER's outputs), not any one.
    pub wants_all: bool,
    /// Token ids of each accepted answer, as the model would write it.
    pub answer_ids: Vec<Vec<u32>>,
    /// Prompt tokens that hold the evidence, ascending; none where it is not marked.
    pub evidence: Vec<u32>,
    /// Length that a needle was placed for, in tokens.
    pub length: Option<f64>,
    /// Depth of a needle, in per cent of the haystack.
    pub depth: Option<f64>,
    /// Seed of needle and haystack: prompts that share it differ only in length and depth.
    pub needle: Option<u64>,
}

impl Case {
    /// Renders and tokenises a record; longer prompts are cut in the middle to `limit` tokens.
    ///
    /// Evidence counts where its text stands in the final prompt exactly once: what was cut out, wholly or
    /// in part, does not. A token that is only partly evidence counts as evidence.
    ///
    /// Errors: those of the template and the tokenizer, and of [`ModelConfig::check_prompt`].
    pub fn of(
        record: &Record,
        template: &Template,
        reader: &Reader<'_>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let tokenizer = reader.tokenizer;
        let (ids, evidence) = if record.ids.is_empty() {
            let rendered = template.render(record)?;
            let (chat, text) = (reader.chat, &rendered.text);
            let ids = message_ids(tokenizer, chat, text, limit, cut::middle_cut)?;
            let evidence = rendered.evidence(record);
            let texts = evidence.into_iter().map(|span| &text[span]);
            let evidence = evidence_tokens(tokenizer, &ids, texts)?;
            (ids, evidence)
        } else {
            let most = limit.unwrap_or(usize::MAX);
            (cut::middle_cut(&record.ids, most), Vec::new())
        };
        reader.config.check_prompt(&record.id, &ids)?;
        // A chat template ends where the answer begins; plain text goes on after a space.
        let lead = if reader.chat.is_none() { " " } else { "" };
        let answer_ids = (record.answers.iter())
            .map(|answer| tokenizer.encode(&format!("{lead}{answer}")))
            .collect::<Result<_>>()?;
        let number = |name: &str| record.columns.get(name).and_then(|v| v.as_f64());
        let placed = record.columns.contains_key("depth");
        let seed = record.columns.get("seed").and_then(|v| v.as_u64());
        Ok(Self {
            id: record.id.clone(),
            ids,
            answers: record.answers.clone(),
            wants_all: record.kind == Kind::Ruler,
            answer_ids,
            evidence,
            length: number("length").filter(|_| placed),
            depth: number("depth"),
            needle: seed.filter(|_| placed),
        })
    }
}

impl Case {
    /// The longest prompt after which `most` new tokens and every accepted answer fit a context.
    ///
    /// Units: tokens.
    pub fn longest(&self, context: usize, most: usize) -> usize {
        let answer = self.answer_ids.iter().map(Vec::len).max().unwrap_or(0);
        context.saturating_sub(most.max(answer))
    }
}

impl From<&Case> for Prompt {
    fn from(case: &Case) -> Self {
        Self {
            id: case.id.clone(),
            ids: case.ids.clone(),
        }
    }
}

/// Prompt tokens that hold any of the texts, each of which must stand in the prompt exactly once.
fn evidence_tokens<'t>(
    tokenizer: &Tokenizer,
    ids: &[u32],
    texts: impl Iterator<Item = &'t str>,
) -> Result<Vec<u32>> {
    let prompt = tokenizer.decode(ids)?;
    let spans = tokenizer.byte_spans(ids)?;
    let mut holds = vec![false; ids.len()];
    for text in texts.filter(|t| !t.is_empty()) {
        let mut places = prompt.match_indices(text);
        let (Some((start, _)), None) = (places.next(), places.next()) else {
            continue;
        };
        let end = start + text.len();
        for (held, span) in holds.iter_mut().zip(&spans) {
            *held |= span.start < end && span.end > start;
        }
    }
    let tokens = holds.iter().enumerate().filter(|(_, held)| **held);
    Ok(tokens.map(|(token, _)| token as u32).collect())
}
