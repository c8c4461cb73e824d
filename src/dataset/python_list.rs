//! Lists of strings printed by Python, as some copies of LongBench hold their answers.

use std::iter::Peekable;
use std::str::Chars;

/// The items of a printed list such as `['a', "b's"]`; `None` if `text` is not exactly that.
///
/// JSON lists of strings are read too. Items may be bare numbers, `None`, `True` or `False`.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().chars().peekable();
    if rest.next()? != '[' {
        return None;
    }
    let mut items = Vec::new();
    loop {
        skip_spaces(&mut rest);
        match *rest.peek()? {
            ']' => {
                rest.next();
                break;
            }
            '\'' | '"' => items.push(quoted(&mut rest)?),
            _ => items.push(bare(&mut rest)?),
        }
        skip_spaces(&mut rest);
        match rest.next()? {
            ',' => {}
            ']' => break,
            _ => return None,
        }
    }
    rest.next().is_none().then_some(items)
}

/// Whether `text` sets out to be a printed list of strings.
pub(super) fn looks_like_list(text: &str) -> bool {
    let inner = text.trim().strip_prefix('[').map(str::trim_start);
    inner.is_some_and(|inner| inner.starts_with(['\'', '"']) || inner == "]")
}

fn skip_spaces(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
}

fn quoted(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let quote = rest.next()?;
    let mut item = String::new();
    loop {
        match rest.next()? {
            c if c == quote => return Some(item),
            '\\' => item.extend(escaped(rest)?),
            c => item.push(c),
        }
    }
}

/// What stands for the characters behind a backslash; an unknown escape keeps its backslash, as in Python.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<Vec<char>> {
    Some(match rest.next()? {
        'n' => vec!['\n'],
        't' => vec!['\t'],
        'r' => vec!['\r'],
        'b' => vec!['\u{8}'],
        'f' => vec!['\u{c}'],
        c @ ('\\' | '\'' | '"' | '/') => vec![c],
        'x' => vec![code_point(rest, 2)?],
        'u' => vec![surrogate_pair(rest)?],
        'U' => vec![code_point(rest, 8)?],
        c => vec!['\\', c],
    })
}

fn hex(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0u32, |value, _| {
        value
            .checked_mul(16)?
            .checked_add(rest.next()?.to_digit(16)?)
    })
}

fn code_point(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<char> {
    char::from_u32(hex(rest, digits)?)
}

/// A `\u` escape, which JSON writes in pairs beyond the basic plane.
fn surrogate_pair(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    let first = hex(rest, 4)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first);
    }
    (rest.next()? == '\\' && rest.next()? == 'u').then_some(())?;
    let second = hex(rest, 4)?
        .checked_sub(0xDC00)
        .filter(|&low| low < 0x400)?;
    char::from_u32(0x10000 + ((first - 0xD800) << 10) + second)
}

fn bare(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| !matches!(c, ',' | ']') && !c.is_whitespace()) {
        word.push(c);
    }
    let known = matches!(word.as_str(), "None" | "True" | "False") || word.parse::<f64>().is_ok();
    known.then_some(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{looks_like_list, parse};

    fn list(items: &[&str]) -> Option<Vec<String>> {
        Some(items.iter().map(|&s| s.to_owned()).collect())
    }

    #[test]
    fn both_quotes_and_escapes() {
        assert_eq!(parse(r#"['a', "b"]"#), list(&["a", "b"]));
        assert_eq!(
            parse(r#"["the miller's son", 'said "no"']"#),
            list(&["the miller's son", "said \"no\""])
        );
        assert_eq!(
            parse(r"['it\'s', 'a\\b', 'x\ny', '\x41\u00e9\U0001F600']"),
            list(&["it's", "a\\b", "x\ny", "Aé😀"])
        );
        assert_eq!(parse(r#"["\ud83d\ude00"]"#), list(&["😀"]));
        assert_eq!(parse("['a, b', 'c]',]"), list(&["a, b", "c]"]));
        assert_eq!(parse(" [ ] "), list(&[]));
        assert_eq!(parse("[3, None, 2.5]"), list(&["3", "None", "2.5"]));
    }

    #[test]
    fn what_is_no_list() {
        for text in [
            "",
            "a",
            "[",
            "['a'",
            "['a' 'b']",
            "['a'] b",
            "[sic]",
            "['\\x4']",
            "['\\ud800']",
            "[a, b]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(looks_like_list("[ 'a"));
        assert!(!looks_like_list("[1] a footnote"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*", inner in "[\\[\\]'\"\\\\,ux0-9a-f ]{0,40}") {
            parse(&text);
            parse(&format!("[{inner}]"));
        }

        #[test]
        fn json_lists_are_read(items in proptest::collection::vec("\\PC{0,12}", 0..5)) {
            let text = serde_json::to_string(&items).unwrap();
            prop_assert_eq!(parse(&text), Some(items));
        }
    }
}
