//! Scores of a generated answer: LongBench's F1, exact match, and containment.
//!
//! LongBench scores 2wikimqa, hotpotqa and its kin on the whole generated text; only trec, triviaqa,
//! samsum and lsht are cut to their first line there, so nothing is cut here.

use std::collections::HashMap;

/// Words that do not count in an answer.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// The form in which answers are compared: lower case, without ASCII punctuation and articles, single spaces.
///
/// The order matters: punctuation goes first and leaves no gap, so "a-ha" is "aha" and "U.S.A." is "usa".
/// Punctuation outside ASCII stays.
///
/// Paper: LongBench (arXiv 2308.14508), `normalize_answer` of its scorer, which is SQuAD's.
/// Differs: a vowel sign or circled letter right after an article (alphabetic in Unicode, no letter to
/// Python) makes one word with it.
pub fn normalise(text: &str) -> String {
    let mut text = text.to_lowercase();
    text.retain(|c| !c.is_ascii_punctuation());
    let without = without_articles(&text);
    without
        .split(is_space)
        .filter(|token| !token.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// `text` with a space for every article that is a word of its own.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != in_word);
        let (run, after) = rest.split_at(end.unwrap_or(rest.len()));
        kept.push_str(if ARTICLES.contains(&run) { " " } else { run });
        rest = after;
    }
    kept
}

/// Whether Python's `str.split` splits here: Unicode's white space and four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Token F1 of `prediction` against the accepted answer that it meets best; NaN if there is none.
///
/// Tokens are those of [`normalise`]d texts and overlap as multisets; without a common token F1 is 0, also
/// where both texts have none.
///
/// Paper: LongBench (arXiv 2308.14508), `qa_f1_score`; as published.
/// Units: 0 to 1.
pub fn f1<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let prediction = normalise(prediction);
    best(answers, |answer| token_f1(&prediction, &normalise(answer)))
}

fn token_f1(prediction: &str, answer: &str) -> f64 {
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    for token in answer.split_terminator(' ') {
        *wanted.entry(token).or_default() += 1;
    }
    let mut common = 0usize;
    for token in prediction.split_terminator(' ') {
        if let Some(left) = wanted.get_mut(token).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / prediction.split_terminator(' ').count() as f64;
    let recall = common as f64 / answer.split_terminator(' ').count() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// 1 if `prediction` and an accepted answer have the same [`normalise`]d form, else 0; NaN if there is no answer.
///
/// Paper: SQuAD (arXiv 1606.05250), exact match.
/// Differs: an answer that normalises to nothing ("the", "...") is met by nothing, as in [`f1`]; SQuAD lets
/// every empty prediction match it.
pub fn exact_match<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    let prediction = normalise(prediction);
    best(answers, |answer| {
        f64::from(!prediction.is_empty() && prediction == normalise(answer))
    })
}

/// Whether `expected` occurs in `prediction`, both in lower case, as part of a word too.
///
/// Nothing else is normalised: "12" occurs in "3123", "1000" does not occur in "1,000". A blank text
/// occurs nowhere, since it would match every prediction.
///
/// Paper: RULER (arXiv 2404.06654), the test inside `string_match_all`.
/// Differs: blank texts.
pub fn contains(prediction: &str, expected: &str) -> bool {
    !expected.trim().is_empty() && prediction.to_lowercase().contains(&expected.to_lowercase())
}

/// Share of `outputs` that `prediction` [`contains`]; NaN if there are none.
///
/// Fits tasks that ask for all of several strings (RULER's needles, variables and words).
///
/// Paper: RULER (arXiv 2404.06654), `string_match_all`.
/// Differs: as [`contains`]; LongEval compares the last number of the text, and BABILong wants no other
/// candidate word in the first sentence.
/// Units: 0 to 1.
pub fn contained_share<S: AsRef<str>>(prediction: &str, outputs: &[S]) -> f64 {
    let found = outputs.iter().filter(|o| contains(prediction, o.as_ref()));
    found.count() as f64 / outputs.len() as f64
}

/// 1 if `prediction` [`contains`] any accepted answer, else 0; NaN if there is none.
///
/// Fits tasks whose answers are several ways to say one thing (questions, LongEval's number, BABILong's word, a
/// needle).
///
/// Paper: RULER (arXiv 2404.06654), `string_match_part`, its score of question answering.
/// Differs: as [`contains`].
pub fn contains_any<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    best(answers, |answer| f64::from(contains(prediction, answer)))
}

/// The highest score over the accepted answers; NaN if there is none, as `f64::max` prefers numbers.
fn best<S: AsRef<str>>(answers: &[S], score: impl Fn(&str) -> f64) -> f64 {
    answers
        .iter()
        .map(|answer| score(answer.as_ref()))
        .fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Case = (
        &'static str,
        &'static [&'static str],
        &'static str,
        f64,
        f64,
    );

    /// Prediction, accepted answers, normalised prediction, F1, exact match. Computed with Python's own
    /// `str.lower`, `re` and `str.split`, not with this file.
    #[rustfmt::skip]
    const CASES: &[Case] = &[
        ("Oberhausen", &["Oberhausen"], "oberhausen", 1.0, 1.0),
        ("The answer is: Oberhausen.", &["Oberhausen"], "answer is oberhausen", 0.5, 0.0),
        ("the The THE a An", &["the"], "", 0.0, 1.0),
        ("", &["Rome"], "", 0.0, 0.0),
        ("", &[""], "", 0.0, 1.0),
        ("...!?", &["?"], "", 0.0, 1.0),
        ("A", &["A"], "", 0.0, 1.0),
        ("vitamin A", &["Vitamin a"], "vitamin", 1.0, 1.0),
        ("a-ha", &["aha"], "aha", 1.0, 1.0),
        ("a - ha", &["ha"], "ha", 1.0, 1.0),
        ("U.S.A.", &["USA"], "usa", 1.0, 1.0),
        ("U. S. A.", &["U.S.A."], "u s", 0.0, 0.0),
        ("it's", &["its"], "its", 1.0, 1.0),
        ("it\u{2019}s", &["its"], "it\u{2019}s", 0.0, 0.0),
        ("New York New York", &["New York"], "new york new york", 0.6666666666666666, 0.0),
        ("New York", &["New York New York York"], "new york", 0.5714285714285715, 0.0),
        ("to be or not to be", &["be to be to be"], "to be or not to be", 0.7272727272727272, 0.0),
        ("1,000", &["1000"], "1000", 1.0, 1.0),
        ("3.14", &["314"], "314", 1.0, 1.0),
        ("-5", &["5"], "5", 1.0, 1.0),
        ("the_cat", &["cat"], "thecat", 0.0, 0.0),
        ("the_ cat", &["cat"], "cat", 1.0, 1.0),
        ("theatre", &["atre"], "theatre", 0.0, 0.0),
        ("The Theatre", &["theatre"], "theatre", 1.0, 1.0),
        ("Stra\u{df}e", &["STRASSE"], "stra\u{df}e", 0.0, 0.0),
        ("\u{130}stanbul", &["i\u{307}stanbul"], "i\u{307}stanbul", 1.0, 1.0),
        ("\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}", &["\u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c2}"], "\u{3bf}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c2}", 1.0, 1.0),
        ("\u{391}\u{3a3}.", &["\u{3b1}\u{3c3}"], "\u{3b1}\u{3c2}", 0.0, 0.0),
        ("\u{391}\u{3a3}.\u{391}", &["\u{3b1}\u{3c3}\u{3b1}"], "\u{3b1}\u{3c3}\u{3b1}", 1.0, 1.0),
        ("\u{212b}ngstr\u{f6}m", &["\u{e5}ngstr\u{f6}m"], "\u{e5}ngstr\u{f6}m", 1.0, 1.0),
        ("caf\u{e9}", &["cafe\u{301}"], "caf\u{e9}", 0.0, 0.0),
        ("voil\u{e0} a\u{300} la carte", &["voil\u{e0} \u{300} la carte"], "voil\u{e0} \u{300} la carte", 1.0, 1.0),
        ("\u{201c}The End\u{201d}", &["End"], "\u{201c} end\u{201d}", 0.0, 0.0),
        ("\u{2014}the end\u{2014}", &["\u{2014} end\u{2014}"], "\u{2014} end\u{2014}", 1.0, 1.0),
        ("red\u{a0}blue", &["red blue"], "red blue", 1.0, 1.0),
        ("red\u{3000}blue", &["blue red"], "red blue", 1.0, 0.0),
        ("red\u{200b}blue", &["red blue"], "red\u{200b}blue", 0.0, 0.0),
        ("red\u{1c}blue", &["red blue"], "red blue", 1.0, 1.0),
        ("red\u{85}blue\u{2028}green", &["red green"], "red blue green", 0.8, 0.0),
        ("red\u{feff}blue", &["redblue"], "red\u{feff}blue", 0.0, 0.0),
        ("Paris\u{a}\u{a}Question: What is the capital?", &["Paris"], "paris question what is capital", 0.33333333333333337, 0.0),
        ("\u{9} Paris \u{d}\u{a}", &["paris"], "paris", 1.0, 1.0),
        ("\u{aa} a \u{b2}", &["\u{aa} \u{b2}"], "\u{aa} \u{b2}", 1.0, 1.0),
        ("a\u{b2}", &["\u{b2}"], "a\u{b2}", 0.0, 0.0),
        ("a\u{2460}", &["\u{2460}"], "a\u{2460}", 0.0, 0.0),
        ("\u{7684}a\u{7684}", &["\u{7684}\u{7684}"], "\u{7684}a\u{7684}", 0.0, 0.0),
        ("an\u{b7}the", &["\u{b7}"], "\u{b7}", 1.0, 1.0),
        ("yes", &["no", "Yes, it was", "YES!"], "yes", 1.0, 1.0),
        ("John Smith Jr", &["Smith", "John Smith"], "john smith jr", 0.8, 0.0),
        ("\u{ff21} \u{ff1f}", &["\u{ff41} \u{ff1f}"], "\u{ff41} \u{ff1f}", 1.0, 1.0),
        ("$5 + $6 = $11", &["5 6 11"], "5 6 11", 1.0, 1.0),
        ("`code` ~ ^x^ {y} |z|", &["code x y z"], "code x y z", 1.0, 1.0),
        ("\u{1c5}ivo the \u{1e9e}", &["\u{1c6}ivo \u{df}"], "\u{1c6}ivo \u{df}", 1.0, 1.0),
    ];

    #[test]
    fn scores_equal_longbench_on_awkward_answers() {
        for &(prediction, answers, normal, f, em) in CASES {
            assert_eq!(normalise(prediction), normal, "{prediction:?}");
            assert_eq!(f1(prediction, answers), f, "f1 of {prediction:?}");
            // SQuAD's script says 1 where both sides are empty.
            let em = if normal.is_empty() { 0.0 } else { em };
            assert_eq!(exact_match(prediction, answers), em, "em of {prediction:?}");
        }
    }

    #[test]
    fn without_an_accepted_answer_there_is_no_score() {
        let none: &[&str] = &[];
        for score in [f1, exact_match, contained_share, contains_any] {
            assert!(score("Rome", none).is_nan());
        }
    }

    #[test]
    fn containment_ignores_case_and_nothing_else() {
        assert!(contains("It is RED-Kite 7.", "red-kite"));
        assert!(contains("3123", "12"));
        assert!(!contains("1,000", "1000"));
        assert!(!contains("red  kite", "red kite"));
        assert!(!contains("anything", "") && !contains("any thing", " "));
        assert!(contains("DIE STRAẞE", "straße"));
    }

    #[test]
    fn a_list_of_outputs_scores_the_share_that_was_found() {
        let outputs = ["8231", "5512", "7777", "5512"];
        assert_eq!(contained_share("5512 and 8231", &outputs), 0.75);
        assert_eq!(contains_any("5512 and 8231", &outputs), 1.0);
        assert_eq!(contained_share("none", &outputs), 0.0);
        assert_eq!(contains_any("none", &outputs), 0.0);
    }

    proptest! {
        #[test]
        fn an_exact_match_has_f1_of_one(a in "[Aa the.n\u{1c}é]{0,12}", b in "[Aa the.n\u{1c}é]{0,12}") {
            let (f, em) = (f1(&a, &[&b]), exact_match(&a, &[&b]));
            prop_assert!((0.0..=1.0).contains(&f) && em <= f, "{f} {em}");
            prop_assert_eq!(f1(&b, &[&a]), f);
        }

        #[test]
        fn normalising_leaves_single_spaces_and_no_upper_case(text in "\\PC{0,40}") {
            let normal = normalise(&text);
            prop_assert!(!normal.contains("  ") && normal.trim() == normal);
            prop_assert!(!normal.contains(|c: char| c.is_ascii_punctuation() || c.is_ascii_uppercase()));
        }
    }
}
