//! One prompt of an evaluation: its tokens, what would be a right answer, and where the answer stands.

use crate::dataset::{Kind, Protocol, Record, Template, cut};
use crate::error::{Error, Result};
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// The data set's own name for it.
    pub id: String,
    /// Token ids of the whole prompt.
    pub ids: Vec<u32>,
    /// How many of the last are not prefilled but fed to the cut cache: question and template's tail where the question
    /// comes after, none where it is known.
    pub question_tokens: usize,
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
    /// Where the question comes after, the context ends before the first token that holds anything of what follows it.
    ///
    /// Errors: those of the template and the tokenizer, and of [`ModelConfig::check_prompt`]; [`Error::Invalid`] for a
    /// prompt that does not say where its context ends, or whose question is not left in it.
    pub fn of(
        record: &Record,
        template: &Template,
        reader: &Reader<'_>,
        limit: Option<usize>,
        protocol: Protocol,
    ) -> Result<Self> {
        let tokenizer = reader.tokenizer;
        let Read {
            ids,
            context_tokens,
            evidence,
        } = if record.ids.is_empty() {
            Read::text(record, template, reader, limit, protocol)?
        } else {
            Read::ids(record, limit, protocol)?
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
            question_tokens: context_tokens.map_or(0, |context| ids.len() - context),
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

/// A record's tokens.
struct Read {
    ids: Vec<u32>,
    /// Those of the context; `None` where all of them are prefilled together.
    context_tokens: Option<usize>,
    evidence: Vec<u32>,
}

impl Read {
    fn text(
        record: &Record,
        template: &Template,
        reader: &Reader<'_>,
        limit: Option<usize>,
        protocol: Protocol,
    ) -> Result<Self> {
        let tokenizer = reader.tokenizer;
        let rendered = template.render(record)?;
        let text = &rendered.text;
        let ids = message_ids(tokenizer, reader.chat, text, limit, cut::middle_cut)?;
        let context_tokens = match protocol {
            Protocol::QuestionKnown => None,
            Protocol::QuestionAfter => {
                let end = rendered
                    .context_end
                    .ok_or_else(|| endless(&record.id, TEXT_SAYS_SO))?;
                Some(context_tokens(&record.id, tokenizer, &ids, &text[end..])?)
            }
        };
        let evidence = rendered.evidence(record);
        let texts = evidence.into_iter().map(|span| &text[span]);
        let mut evidence = evidence_tokens(tokenizer, &ids, texts)?;
        evidence.retain(|token| context_tokens.is_none_or(|context| (*token as usize) < context));
        Ok(Self {
            ids,
            context_tokens,
            evidence,
        })
    }

    fn ids(record: &Record, limit: Option<usize>, protocol: Protocol) -> Result<Self> {
        let most = limit.unwrap_or(usize::MAX);
        let ids = cut::middle_cut(&record.ids, most);
        let context_tokens = match protocol {
            Protocol::QuestionKnown => None,
            Protocol::QuestionAfter => {
                let end = record
                    .context_ids
                    .ok_or_else(|| endless(&record.id, IDS_SAY_SO))?;
                let end = cut::position_after(end, record.ids.len(), most);
                Some(end.ok_or_else(|| endless(&record.id, QUESTION_IS_CUT))?)
            }
        };
        Ok(Self {
            ids,
            context_tokens,
            evidence: Vec::new(),
        })
    }
}

const TEXT_SAYS_SO: &str = "leave {{ context_end }} where it ends in a template of your own (--template), or take --protocol question-known";

const IDS_SAY_SO: &str =
    "a column context_tokens must say how many ids it has, or take --protocol question-known";

const QUESTION_IS_CUT: &str = "what follows it was cut, too: allow more (--max-prompt-tokens), or take --protocol question-known";

fn endless(id: &str, way_out: &str) -> Error {
    let what = format!("end of the context of prompt {id}");
    Error::invalid(what, "unknown", way_out)
}

/// Tokens of a prompt before the first that holds anything of `rest`, what stands behind its context.
///
/// `id` is what errors call the prompt. Units: tokens.
/// Errors: [`Error::Invalid`] where nothing stands before or behind, or `rest` is not in the prompt as it is.
pub fn context_tokens(id: &str, tokenizer: &Tokenizer, ids: &[u32], rest: &str) -> Result<usize> {
    // A chat template may strip the message's end.
    let rest = rest.trim_end();
    if rest.is_empty() {
        let way_out = "nothing follows it that could be asked: take --protocol question-known";
        return Err(endless(id, way_out));
    }
    let prompt = tokenizer.decode(ids)?;
    let start = prompt.rfind(rest);
    let start = start.ok_or_else(|| endless(id, QUESTION_IS_CUT))?;
    let spans = tokenizer.byte_spans(ids)?;
    let tokens = spans.partition_point(|span| span.end <= start);
    if tokens == 0 {
        let way_out = "no token lies before what is asked: take --protocol question-known";
        return Err(endless(id, way_out));
    }
    Ok(tokens)
}

impl Case {
    /// What is prefilled and cut.
    pub fn context(&self) -> &[u32] {
        &self.ids[..self.ids.len().saturating_sub(self.question_tokens)]
    }

    /// What is fed to the cut cache before it answers: the question and the template's tail, or nothing where they
    /// were prefilled.
    pub fn question(&self) -> &[u32] {
        &self.ids[self.context().len()..]
    }

    /// The longest prompt after which `most` new tokens and every accepted answer fit a context.
    ///
    /// Units: tokens.
    pub fn longest(&self, context: usize, most: usize) -> usize {
        let answer = self.answer_ids.iter().map(Vec::len).max().unwrap_or(0);
        context.saturating_sub(most.max(answer))
    }
}

/// What is prefilled of it.
impl From<&Case> for Prompt {
    fn from(case: &Case) -> Self {
        Self {
            id: case.id.clone(),
            ids: case.context().to_vec(),
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
