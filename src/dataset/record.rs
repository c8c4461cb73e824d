//! One prompt of a data set, as its format has it.

use std::ops::Range;

use serde_json::{Map, Value};

use super::kind::Kind;
use super::{marked, python_list};

/// One prompt: its columns as they were read, and what the recognised format makes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The record's own name: `_id`, `id` or `index` if it has one, else its place from 0.
    pub id: String,
    /// The recognised format.
    pub kind: Kind,
    /// Everything that was read, for templates.
    pub columns: Map<String, Value>,
    /// Accepted answers; empty where the format has none.
    pub answers: Vec<String>,
    /// Where the context holds what the answer needs: column `evidence`, or what the wording of LongEval's
    /// and RULER's prompts marks without doubt.
    ///
    /// Units: characters (Unicode scalar values) of [`Record::context`].
    pub evidence: Vec<Range<usize>>,
    /// Token ids to use as they are ([`Kind::Ids`] only; empty otherwise).
    pub ids: Vec<u32>,
    /// How many of them are the context, where column `context_tokens` says so.
    pub context_ids: Option<usize>,
}

impl Record {
    /// Recognises and checks one record; the error is the problem alone, without its place.
    pub(super) fn new(columns: Map<String, Value>, index: usize) -> Result<Self, String> {
        let kind = Kind::recognise(&columns).ok_or_else(|| unrecognised(&columns))?;
        let id = ["_id", "id", "index"]
            .iter()
            .find_map(|name| plain_text(columns.get(*name)?))
            .unwrap_or_else(|| index.to_string());
        let mut record = Self {
            id,
            kind,
            columns,
            answers: vec![],
            evidence: vec![],
            ids: vec![],
            context_ids: None,
        };
        for name in record.text_columns() {
            if !record.columns.get(*name).is_some_and(Value::is_string) {
                return Err(wrong_type(&record.columns, name, "text"));
            }
        }
        record.answers = record.read_answers()?;
        record.evidence = record.read_evidence()?;
        if kind == Kind::Ids {
            record.ids = read_ids(record.columns.get("ids"))?;
            record.context_ids = record.read_context_ids()?;
        }
        Ok(record)
    }

    /// The question alone, where the format keeps it apart.
    pub fn question(&self) -> Option<&str> {
        match self.kind {
            Kind::LongBench => self.text("input"),
            Kind::Babilong => self.text("question"),
            _ => None,
        }
    }

    /// The long text the question is about, or the whole prompt where RULER and LongEval keep it in one.
    pub fn context(&self) -> Option<&str> {
        match self.kind {
            Kind::LongBench => self.text("context"),
            Kind::Babilong | Kind::Ruler => self.text("input"),
            Kind::LongEval => self.text("prompt"),
            Kind::Prompt | Kind::Ids => None,
        }
    }

    /// How much of [`Record::context`] comes before what is asked about it; `None` where the format does not say.
    ///
    /// Units: bytes.
    pub fn context_length(&self) -> Option<usize> {
        match self.kind {
            Kind::LongBench | Kind::Babilong => self.context().map(str::len),
            Kind::Ruler | Kind::LongEval => marked::question_start(self.kind, self.context()?),
            Kind::Prompt | Kind::Ids => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.columns.get(name).and_then(Value::as_str)
    }

    fn text_columns(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::LongBench => &["input", "context"],
            Kind::Ruler => &["input"],
            Kind::LongEval | Kind::Prompt => &["prompt"],
            Kind::Babilong => &["input", "question"],
            Kind::Ids => &[],
        }
    }

    fn read_answers(&self) -> Result<Vec<String>, String> {
        let name = match self.kind {
            Kind::LongBench => "answers",
            Kind::Ruler => "outputs",
            Kind::LongEval => "expected_number",
            Kind::Babilong => "target",
            Kind::Prompt | Kind::Ids => return Ok(vec![]),
        };
        let one_or_more = || wrong_type(&self.columns, name, "text or a list of texts");
        match self.columns.get(name) {
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| plain_text(item).ok_or_else(one_or_more))
                .collect(),
            Some(Value::String(text)) if python_list::looks_like_list(text) => {
                python_list::parse(text).ok_or_else(|| {
                    format!("column '{name}' starts like a printed list but is not one")
                })
            }
            Some(value) => Ok(vec![plain_text(value).ok_or_else(one_or_more)?]),
            None => Err(one_or_more()),
        }
    }

    fn read_context_ids(&self) -> Result<Option<usize>, String> {
        let value = match self.columns.get("context_tokens") {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let most = self.ids.len();
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match count.filter(|n| (1..most).contains(n)) {
            Some(count) => Ok(Some(count)),
            None => Err(format!(
                "column 'context_tokens' is {}, but must be at least 1 and less than the {most} ids",
                brief(value)
            )),
        }
    }

    fn read_evidence(&self) -> Result<Vec<Range<usize>>, String> {
        let Some(context) = self.context() else {
            return Ok(vec![]);
        };
        let Some(value) = self.columns.get("evidence") else {
            let spans = marked::evidence(self.kind, &self.columns, &self.answers, context);
            return Ok(spans);
        };
        let expected = || {
            wrong_type(
                &self.columns,
                "evidence",
                "a list of [start, end) pairs of characters",
            )
        };
        let spans = match value {
            Value::Null => return Ok(vec![]),
            Value::Array(spans) => spans,
            _ => return Err(expected()),
        };
        let characters = context.chars().count();
        let as_index = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        spans
            .iter()
            .map(|span| {
                let ends: Option<Vec<_>> = span
                    .as_array()
                    .and_then(|ends| ends.iter().map(as_index).collect());
                let Some(&[start, end]) = ends.as_deref() else {
                    return Err(expected());
                };
                if start >= end || end > characters {
                    return Err(format!(
                        "evidence span [{start}, {end}) is empty or outside the context of \
                         {characters} characters"
                    ));
                }
                Ok(start..end)
            })
            .collect()
    }
}

/// The fields of a JSON object.
pub(super) fn columns(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(columns) => columns,
        _ => Map::new(),
    }
}

/// Text, a number or a truth value as text.
fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn read_ids(value: Option<&Value>) -> Result<Vec<u32>, String> {
    let items = match value {
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(Value::Array(_)) => return Err("column 'ids' is empty: a prompt needs a token".into()),
        _ => return Err("column 'ids' must be a list of token ids".into()),
    };
    items
        .iter()
        .enumerate()
        .map(|(place, id)| {
            id.as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| {
                    format!(
                        "item {place} of 'ids' is {}, not a token id (a whole number from 0)",
                        brief(id)
                    )
                })
        })
        .collect()
}

fn wrong_type(columns: &Map<String, Value>, name: &str, expected: &str) -> String {
    let found = columns.get(name).map_or("missing".to_owned(), brief);
    format!("column '{name}' must be {expected}, but is {found}")
}

/// A value as an error message shows it: lists and objects by kind, long text cut.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("\"{}...\"", text.chars().take(40).collect::<String>())
        }
        other => other.to_string(),
    }
}

fn unrecognised(columns: &Map<String, Value>) -> String {
    let found: Vec<_> = columns
        .keys()
        .map(|name| brief_name(name))
        .take(20)
        .collect();
    let found = if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    };
    let known: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| format!("{kind} needs {}", kind.columns().join(", ")))
        .collect();
    format!(
        "columns fit no known format; found: {found}; {}",
        known.join("; ")
    )
}

fn brief_name(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(value: Value) -> Result<Record, String> {
        let Value::Object(columns) = value else {
            panic!("an object")
        };
        Record::new(columns, 7)
    }

    #[test]
    fn every_format_is_recognised_by_its_columns() {
        let longbench = record(json!({
            "input": "Who kept the mill?", "context": "Ana kept the mill.", "answers": ["Ana"],
            "evidence": [[0, 18]], "_id": "m1", "all_classes": null,
        }))
        .unwrap();
        assert_eq!(
            (longbench.kind, longbench.id.as_str()),
            (Kind::LongBench, "m1")
        );
        assert_eq!(longbench.question(), Some("Who kept the mill?"));
        assert_eq!(longbench.context(), Some("Ana kept the mill."));
        assert_eq!(
            (longbench.answers, longbench.evidence),
            (vec!["Ana".to_owned()], std::iter::once(0..18).collect())
        );

        let ruler =
            record(json!({"index": 4, "input": "Find 12.", "outputs": ["12", 13]})).unwrap();
        assert_eq!((ruler.kind, ruler.id.as_str()), (Kind::Ruler, "4"));
        assert_eq!(ruler.answers, ["12", "13"]);

        let longeval = record(json!({"prompt": "line a: <5>", "expected_number": 5})).unwrap();
        assert_eq!((longeval.kind, longeval.id.as_str()), (Kind::LongEval, "7"));
        assert_eq!(longeval.answers, ["5"]);

        let babilong = record(
            json!({"input": "Rain. Jo is out.", "question": "Where is Jo?", "target": "out"}),
        )
        .unwrap();
        assert_eq!(
            (babilong.kind, babilong.context()),
            (Kind::Babilong, Some("Rain. Jo is out."))
        );
        assert_eq!(babilong.answers, ["out"]);

        let prompt = record(json!({"prompt": "Hello"})).unwrap();
        assert_eq!((prompt.kind, prompt.answers.len()), (Kind::Prompt, 0));

        let ids = record(json!({"ids": [0, 5, 4294967295u32], "prompt": "x"})).unwrap();
        assert_eq!((ids.kind, ids.ids), (Kind::Ids, vec![0, 5, u32::MAX]));
        assert_eq!(ids.context_ids, None);
        let ids = record(json!({"ids": [0, 5, 7], "context_tokens": 2})).unwrap();
        assert_eq!(ids.context_ids, Some(2));
        for wrong in [json!(0), json!(3), json!("2")] {
            let problem = record(json!({"ids": [0, 5, 7], "context_tokens": wrong})).unwrap_err();
            assert!(problem.contains("less than the 3 ids"), "{problem}");
        }
    }

    #[test]
    fn answers_may_be_a_printed_list() {
        let with = |answers: Value| {
            record(json!({"input": "", "context": "", "answers": answers})).map(|r| r.answers)
        };
        assert_eq!(with(json!("['a', \"b's\"]")).unwrap(), ["a", "b's"]);
        assert_eq!(with(json!("just one")).unwrap(), ["just one"]);
        assert_eq!(with(json!("[1] a footnote")).unwrap(), ["[1] a footnote"]);
        assert!(with(json!("['a'")).unwrap_err().contains("'answers'"));
        assert!(
            with(json!([["a"]]))
                .unwrap_err()
                .contains("a list of 1 items")
        );
    }

    #[test]
    fn evidence_counts_characters_not_bytes() {
        let with = |span: Value| {
            record(json!({"input": "", "context": "née", "answers": [], "evidence": span}))
        };
        assert_eq!(with(json!([[1, 3]])).unwrap().evidence, vec![1..3]);
        for wrong in [
            json!([[1, 4]]),
            json!([[2, 2]]),
            json!([[0]]),
            json!([[0, -1]]),
            json!("0-1"),
        ] {
            assert!(
                with(wrong.clone()).unwrap_err().contains("evidence"),
                "{wrong}"
            );
        }
        assert!(with(Value::Null).unwrap().evidence.is_empty());
    }

    #[test]
    fn errors_say_what_was_found_and_what_would_do() {
        let problem = record(json!({"input": "a", "label": 3})).unwrap_err();
        assert!(problem.contains("found: input, label"), "{problem}");
        assert!(
            problem.contains("LongBench needs input, context, answers"),
            "{problem}"
        );
        let problem = record(json!({"prompt": 5})).unwrap_err();
        assert_eq!(problem, "column 'prompt' must be text, but is 5");
        for (ids, part) in [
            (json!([1, -2]), "item 1 of 'ids' is -2"),
            (json!([1.5]), "item 0 of 'ids' is 1.5"),
            (json!([]), "empty"),
            (json!("1 2"), "list"),
            (json!([4294967296u64]), "4294967296"),
        ] {
            let problem = record(json!({"ids": ids})).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
