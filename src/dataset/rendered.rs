//! A record's message, and where its context lies in it.

use std::ops::Range;

use super::record::Record;

/// What templates call the place where the context ends.
pub(super) const CONTEXT_END: &str = "context_end";

/// What stands there until the message is made: a character that no text has, on both sides of a word.
pub(super) const MARK: &str = "\u{10FFFE}context end\u{10FFFE}";

/// A record's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The user's message, before any chat template.
    pub text: String,
    /// Where the record's context lies in `text`; `None` unless it is there exactly once.
    ///
    /// Units: bytes of `text`.
    pub context: Option<Range<usize>>,
    /// Where the context ends and what asks about it begins; `None` where neither template nor format says so.
    ///
    /// Units: bytes of `text`.
    pub context_end: Option<usize>,
}

impl Rendered {
    /// What a template made of a record, the mark of the context's end still in it; an error is the problem alone.
    pub(super) fn of_marked(mut text: String, record: &Record) -> Result<Self, String> {
        let marked = text.find(MARK);
        if let Some(end) = marked {
            text.replace_range(end..end + MARK.len(), "");
        }
        if text.contains(MARK) {
            return Err(format!(
                "says more than once where the context ends (record {}): leave one {{{{ {CONTEXT_END} }}}}",
                record.id
            ));
        }
        let context = record
            .context()
            .and_then(|context| only_place(&text, context));
        let by_format = || {
            let context = context.clone()?;
            Some(context.start + record.context_length()?)
        };
        let context_end = marked.or_else(by_format);
        Ok(Self {
            text,
            context,
            context_end,
        })
    }

    /// The record's evidence as places in the message; empty where the context is not in it as it is.
    ///
    /// Units: bytes of [`Rendered::text`].
    pub fn evidence(&self, record: &Record) -> Vec<Range<usize>> {
        let Some(context) = &self.context else {
            return vec![];
        };
        let mut starts: Vec<usize> = self.text[context.clone()]
            .char_indices()
            .map(|(byte, _)| byte)
            .collect();
        starts.push(context.len());
        let place = |character: usize| starts.get(character).map(|byte| context.start + byte);
        record
            .evidence
            .iter()
            .filter_map(|span| Some(place(span.start)?..place(span.end)?))
            .collect()
    }
}

/// Where `part` stands in `text`, unless it is empty, absent or there twice.
fn only_place(text: &str, part: &str) -> Option<Range<usize>> {
    let first_character = part.chars().next()?;
    let start = text.find(part)?;
    let again = text[start + first_character.len_utf8()..].contains(part);
    (!again).then(|| start..start + part.len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(value: Value) -> Record {
        Record::new(serde_json::from_value(value).unwrap(), 0).unwrap()
    }

    #[test]
    fn a_part_is_placed_only_if_it_is_there_once() {
        assert_eq!(only_place("aaa", "aa"), None);
        assert_eq!(only_place("\u{e9}a", "a"), Some(2..3));
        assert_eq!(only_place("a", ""), None);
    }

    #[test]
    fn the_context_ends_where_the_mark_stands_or_the_format_says() {
        let longbench =
            record(json!({"input": "Who?", "context": "Ana came.", "answers": ["Ana"]}));
        let of = |text: &str, record: &Record| Rendered::of_marked(text.to_owned(), record);
        let rendered = of("Read: Ana came. Who?", &longbench).unwrap();
        assert_eq!(rendered.context_end, Some(15));
        let marked = of(&format!("Read: Ana came. Now:{MARK} Who?"), &longbench).unwrap();
        assert_eq!(marked.text, "Read: Ana came. Now: Who?");
        assert_eq!(marked.context_end, Some(20));
        assert_eq!(
            of("Ana came. Ana came.", &longbench).unwrap().context_end,
            None
        );
        let twice = of(&format!("{MARK}Ana came.{MARK}"), &longbench).unwrap_err();
        assert!(twice.contains("context_end"), "{twice}");
        let prompt = record(json!({"prompt": "Hello"}));
        assert_eq!(of("Hello", &prompt).unwrap().context_end, None);
    }

    #[test]
    fn whole_messages_end_their_context_where_they_ask() {
        let text = "line a: <7>\n\nNow the record is over. Tell me what is in line a?";
        let longeval = record(json!({"prompt": text, "expected_number": 7}));
        let rendered = Rendered::of_marked(text.to_owned(), &longeval).unwrap();
        assert_eq!(&text[rendered.context_end.unwrap()..][..7], "Now the");
        let text = "One of the special magic numbers for x is: 4.\nWhat is the number for x? It is";
        let ruler = record(json!({"input": text, "outputs": ["4"]}));
        let rendered = Rendered::of_marked(text.to_owned(), &ruler).unwrap();
        assert_eq!(&text[rendered.context_end.unwrap()..][..7], "What is");
    }
}
