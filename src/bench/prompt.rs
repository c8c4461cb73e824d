//! Prompts of any length, to the token.

use crate::dataset::{Dataset, Template, cut};
use crate::error::{Error, Result};
use crate::eval::Case;
use crate::model::Model;

/// The built-in data set that prompts are made of.
const DATA: &str = "wikimqa-style-4k";

/// A question of our own with exactly `tokens` tokens: more passages in its middle, or its middle cut out.
///
/// Its answer is known, so that an evaluation does all its work; evidence is not marked.
/// Errors: those of the template and the tokenizer.
pub fn case(model: &Model, tokens: usize) -> Result<Case> {
    let data = Dataset::open(DATA)?;
    let Some(record) = data.records.first() else {
        return Err(Error::invalid("data set", DATA, "it holds no prompt"));
    };
    let text = Template::default_for(data.kind).render(record)?.text;
    let question = model.message_ids(&text, false, None, cut::middle_cut)?;
    let mut passages = Vec::new();
    for other in data.records.iter().skip(1).filter_map(|r| r.context()) {
        passages.extend(model.tokenizer.encode(other)?);
    }
    let answers = record.answers.iter();
    let answer_ids = answers.map(|answer| model.tokenizer.encode(answer));
    Ok(Case {
        id: tokens.to_string(),
        ids: of_length(&question, &passages, tokens),
        answers: record.answers.clone(),
        question_tokens: 0,
        wants_all: false,
        answer_ids: answer_ids.collect::<Result<_>>()?,
        evidence: Vec::new(),
        length: None,
        depth: None,
        needle: None,
    })
}

/// `ids` with its middle cut out, or filled with as many of `filling`, over and over, as are missing.
fn of_length(ids: &[u32], filling: &[u32], tokens: usize) -> Vec<u32> {
    let missing = tokens.saturating_sub(ids.len());
    let (start, end) = ids.split_at(ids.len() / 2);
    let middle = filling.iter().cycle().take(missing);
    let whole: Vec<u32> = start.iter().chain(middle).chain(end).copied().collect();
    cut::middle_cut(&whole, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_their_length_to_the_token() {
        let ids = [1, 2, 3, 4];
        assert_eq!(of_length(&ids, &[7, 8], 3), [1, 2, 4]);
        assert_eq!(of_length(&ids, &[7, 8], 4), ids);
        assert_eq!(of_length(&ids, &[7, 8], 7), [1, 2, 7, 8, 7, 3, 4]);
    }
}
