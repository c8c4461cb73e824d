//! Evidence that a retrieval prompt's own wording marks, where it leaves no doubt.

use std::ops::Range;

use serde_json::{Map, Value};

use super::kind::Kind;

/// How RULER's generator begins every needle, the wanted ones and the others.
const RULER_NEEDLE: &str = "One of the special magic ";

/// Where `text`, the whole prompt, holds the answers; empty where its format does not say or it is in doubt.
///
/// LongEval: the line of `correct_line`, or of the name in `random_idx`. RULER: the needles of all
/// outputs, for its needle tasks only.
///
/// Units: characters of `text`.
pub(super) fn evidence(
    kind: Kind,
    columns: &Map<String, Value>,
    answers: &[String],
    text: &str,
) -> Vec<Range<usize>> {
    let spans: Option<Vec<Range<usize>>> = match kind {
        Kind::LongEval => answers
            .first()
            .and_then(|answer| asked_line(columns, answer, text))
            .map(|span| vec![span]),
        Kind::Ruler => answers.iter().map(|answer| needle(answer, text)).collect(),
        Kind::LongBench | Kind::Babilong | Kind::Prompt | Kind::Ids => None,
    };
    let characters = |byte: usize| text[..byte].chars().count();
    let spans = spans.unwrap_or_default().into_iter();
    spans
        .map(|span| characters(span.start)..characters(span.end))
        .collect()
}

/// Where a whole prompt begins to ask, which both formats do in their last line; `None` where it does not read so.
///
/// LongEval: "Now the record is over." RULER: a line with a question mark, or one that begins with "Question:".
///
/// Units: bytes of `text`.
pub(super) fn question_start(kind: Kind, text: &str) -> Option<usize> {
    let end = text.trim_end().len();
    let start = text[..end].rfind('\n').map(|line| line + 1)?;
    let line = &text[start..end];
    let asks = match kind {
        Kind::LongEval => line.starts_with("Now the record is over."),
        Kind::Ruler => line.starts_with("Question:") || line.contains('?'),
        Kind::LongBench | Kind::Babilong | Kind::Prompt | Kind::Ids => false,
    };
    asks.then_some(start)
}

/// The one line that is asked for, if it holds the number.
fn asked_line(columns: &Map<String, Value>, answer: &str, text: &str) -> Option<Range<usize>> {
    let named = || {
        let name = columns.get("random_idx")?.get(0)?.as_str()?;
        Some(format!("line {name}: "))
    };
    let stated = columns.get("correct_line").and_then(Value::as_str);
    let start_of_line = match stated.map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => line.to_owned(),
        None => named()?,
    };
    let start = only(text, &start_of_line)?;
    let begins_line = start == 0 || text[..start].ends_with('\n');
    let end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let holds_number = text[start..end].contains(&format!("<{answer}>"));
    (begins_line && holds_number).then_some(start..end)
}

/// The needle with `answer`, from its first word to its full stop.
fn needle(answer: &str, text: &str) -> Option<Range<usize>> {
    let at = only(text, answer)?;
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let start = line + text[line..at].rfind(RULER_NEEDLE)?;
    let before = &text[start..at];
    // Between its beginning and its value a needle has neither a full stop nor a second value.
    let is_needle = before.ends_with(" is: ") && !before.contains(". ");
    let mut end = at + answer.len();
    end += usize::from(text[end..].starts_with('.'));
    is_needle.then_some(start..end)
}

/// Where `part` starts, unless it is empty, absent or there twice.
fn only(text: &str, part: &str) -> Option<usize> {
    let mut places = text.match_indices(part).filter(|_| !part.is_empty());
    let (start, _) = places.next()?;
    places.next().is_none().then_some(start)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(kind: Kind, columns: Value, answers: &[&str], text: &str) -> Vec<String> {
        let Value::Object(columns) = columns else {
            panic!("an object")
        };
        let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
        let words = |span: Range<usize>| text.chars().skip(span.start).take(span.len()).collect();
        let spans = evidence(kind, &columns, &answers, text);
        spans.into_iter().map(words).collect()
    }

    const LINES: &str = "R\u{e9}member:\nline wet-owl: REGISTER_CONTENT is <12>\n\
                         line dry-owl: REGISTER_CONTENT is <7>\n\nWhat is in line dry-owl?";

    #[test]
    fn the_line_asked_for_is_evidence() {
        let line = "line dry-owl: REGISTER_CONTENT is <7>";
        let stated = json!({"correct_line": format!("{line}\n")});
        assert_eq!(found(Kind::LongEval, stated, &["7"], LINES), [line]);
        let named = json!({"random_idx": ["dry-owl", 1]});
        assert_eq!(found(Kind::LongEval, named.clone(), &["7"], LINES), [line]);
        let none: [&str; 0] = [];
        assert_eq!(found(Kind::LongEval, named.clone(), &["12"], LINES), none);
        assert_eq!(found(Kind::LongEval, json!({}), &["7"], LINES), none);
        let twice = format!("{LINES}\n{line}");
        assert_eq!(found(Kind::LongEval, named, &["7"], &twice), none);
        let absent = json!({"correct_line": "line sad-owl: REGISTER_CONTENT is <7>"});
        assert_eq!(found(Kind::LongEval, absent, &["7"], LINES), none);
    }

    #[test]
    fn the_question_is_the_last_line_if_it_asks() {
        let longeval = "line a: <1>\n\nNow the record is over. Tell me.\n";
        assert_eq!(question_start(Kind::LongEval, longeval), Some(13));
        assert_eq!(
            question_start(Kind::LongEval, "line a: <1>\nTell me."),
            None
        );
        let variables = "VAR X = 1\nQuestion: Find all variables. Answer: they are";
        assert_eq!(question_start(Kind::Ruler, variables), Some(10));
        assert_eq!(question_start(Kind::Ruler, "a\nWhich? It is"), Some(2));
        assert_eq!(question_start(Kind::Ruler, "a\nb"), None);
        assert_eq!(question_start(Kind::Ruler, "Which?"), None);
    }

    #[test]
    fn needles_of_all_outputs_are_evidence() {
        let text = "Caf\u{e9}. One of the special magic numbers for a-b is: 41. So it was. \
                    One of the special magic numbers for c-d is: 52. It rained.\nWhich for c-d?";
        let first = "One of the special magic numbers for a-b is: 41.";
        let second = "One of the special magic numbers for c-d is: 52.";
        let find = |answers: &[&str], text: &str| found(Kind::Ruler, json!({}), answers, text);
        assert_eq!(find(&["52"], text), [second]);
        assert_eq!(find(&["41", "52"], text), [first, second]);
        let none: [&str; 0] = [];
        assert_eq!(find(&["41", "99"], text), none);
        assert_eq!(find(&["rained"], text), none);
        assert_eq!(find(&["52"], &format!("{text} 52")), none);
        assert_eq!(find(&["7"], "VAR X = 7"), none);
        assert_eq!(find(&[""], text), none);
        assert_eq!(found(Kind::Babilong, json!({}), &["41"], text), none);
    }
}
