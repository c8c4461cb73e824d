//! What every generated record must hold, on records made here and on those that are shipped.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::{MAX_QUESTIONS, MAX_TOKENS, MIN_TOKENS, Options, generate};
use crate::dataset::{BUILT_IN, Dataset, Kind, Record, Template, read_jsonl};
use crate::error::{Error, Result};
use crate::files::sha256_hex;

/// A tokenizer of its own: every run of letters is a token for each five of them, all else one each.
fn count(text: &str) -> Result<usize> {
    let mut tokens = 0;
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let letters = word.chars().filter(|c| c.is_alphanumeric()).count();
        tokens += letters.div_ceil(5) + usize::from(!word.ends_with(char::is_alphanumeric));
    }
    Ok(tokens)
}

fn make(questions: usize, tokens: usize, seed: u64) -> Vec<Map<String, Value>> {
    generate(
        &Options {
            questions,
            tokens,
            seed,
        },
        &count,
    )
    .unwrap()
}

fn read(rows: &[Map<String, Value>]) -> Dataset {
    let text: Vec<_> = rows
        .iter()
        .map(|row| serde_json::to_string(row).unwrap())
        .collect();
    read_jsonl("made".as_ref(), text.join("\n").as_bytes()).unwrap()
}

fn evidence(record: &Record) -> Vec<String> {
    let context: Vec<char> = record.context().unwrap().chars().collect();
    record
        .evidence
        .iter()
        .map(|span| context[span.clone()].iter().collect())
        .collect()
}

/// Checks one record by what it says, without the generator's own knowledge.
fn check(record: &Record) {
    let id = &record.id;
    let kind = record.columns["type"].as_str().unwrap();
    let (question, context) = (record.question().unwrap(), record.context().unwrap());
    assert_eq!(record.kind, Kind::LongBench);
    assert_eq!(record.answers.len(), 1, "{id}");
    let evidence = evidence(record);
    let expected = if kind == "bridge_comparison" { 4 } else { 2 };
    assert_eq!(evidence.len(), expected, "{id}");

    let passages: Vec<_> = context
        .split("Passage ")
        .skip(1)
        .map(|passage| {
            let (number, rest) = passage.split_once(":\n").unwrap();
            let (title, text) = rest.split_once('\n').unwrap();
            (number.parse::<usize>().unwrap(), title, text.trim_end())
        })
        .collect();
    assert!(passages.len() >= 10, "{id}");
    for (place, (number, _, text)) in passages.iter().enumerate() {
        assert_eq!(*number, place + 1, "{id}");
        assert!(text.ends_with('.'), "{id}: {text}");
    }
    let titles: HashSet<_> = passages.iter().map(|(_, title, _)| title).collect();
    assert_eq!(titles.len(), passages.len(), "{id}");
    for sentence in &evidence {
        let holding = passages
            .iter()
            .filter(|(_, _, text)| text.contains(sentence.as_str()));
        assert_eq!(holding.count(), 1, "{id}: {sentence}");
        assert!(
            sentence.ends_with('.') && !sentence.starts_with(' '),
            "{id}: {sentence}"
        );
    }

    let answer = &record.answers[0];
    if answer == "yes" || answer == "no" {
        assert!(kind.ends_with("comparison"), "{id}");
    } else {
        assert!(
            evidence
                .iter()
                .any(|sentence| sentence.contains(answer.as_str())),
            "{id}: {answer}"
        );
        let in_question = question.contains(answer.as_str());
        assert_eq!(
            in_question,
            kind.ends_with("comparison"),
            "{id}: {question} {answer}"
        );
    }
    if kind == "compositional" || kind == "inference" {
        assert!(evidence[1].contains(answer.as_str()), "{id}: {answer}");
    }
    let words = record.columns["length"].as_u64().unwrap() as usize;
    assert_eq!(words, context.split_whitespace().count(), "{id}");
    check_english(id, question);
    passages
        .iter()
        .for_each(|(_, _, text)| check_english(id, text));
}

fn check_english(id: &str, text: &str) {
    for wrong in [
        "{",
        "}",
        "[",
        "]",
        "|",
        "~",
        "#",
        "  ",
        " .",
        " ,",
        "..",
        ",.",
        "of it was",
    ] {
        assert!(!text.contains(wrong), "{id}: '{wrong}' in {text}");
    }
    let words: Vec<_> = text.split_whitespace().collect();
    for pair in words.windows(2) {
        let vowel = pair[1].to_lowercase().starts_with(['a', 'e', 'i', 'o']);
        match pair[0] {
            "a" | "A" => assert!(!vowel || pair[1].starts_with("one"), "{id}: {pair:?}"),
            "an" | "An" => {
                let digits = pair[1].starts_with(['8', '1']);
                assert!(
                    vowel || digits || pair[1] == "honorary" || pair[1].starts_with(['u', 'U']),
                    "{id}: {pair:?}"
                );
            }
            _ => {}
        }
        assert!(pair[0] != pair[1], "{id}: {pair:?}");
    }
}

fn types(records: &[Record]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts
            .entry(record.columns["type"].as_str().unwrap())
            .or_default() += 1;
    }
    counts
}

#[test]
fn every_variant_of_every_type_holds() {
    // Thirteen variants are the most a type has, and four types take turns.
    for seed in 0..4 {
        let rows = make(4 * 13, 1_400, seed);
        let dataset = read(&rows);
        dataset.records.iter().for_each(check);
        assert_eq!(
            types(&dataset.records).into_values().collect::<Vec<_>>(),
            [13; 4]
        );
    }
}

#[test]
fn sizes_are_met_from_below() {
    let template = Template::default_for(Kind::LongBench);
    for tokens in [MIN_TOKENS, 1_777, 2_008, 9_000] {
        for record in read(&make(4, tokens, 11)).records {
            let size = count(&template.render(&record).unwrap().text).unwrap();
            assert!(
                size <= tokens && size * 50 >= tokens * 49,
                "{size} of {tokens}"
            );
            check(&record);
        }
    }
}

#[test]
fn a_seed_gives_its_bytes() {
    let text = |rows: &[Map<String, Value>]| serde_json::to_string(rows).unwrap();
    let four = make(4, 1_200, 5);
    assert_eq!(text(&four), text(&make(4, 1_200, 5)));
    assert_eq!(text(&four), text(&make(6, 1_200, 5)[..4]));
    assert_ne!(text(&four), text(&make(4, 1_200, 6)));
    assert_eq!(sha256_hex(text(&four).as_bytes()), FOUR);
}

/// Changes only when a seed is meant to give other prompts; the shipped files must then be remade.
const FOUR: &str = "ce4b32b6debf3deb9e36540fed0000297c2d0918db0f0e84774b4111f9acfb7e";

#[test]
fn answers_of_comparisons_follow_from_the_years_in_the_evidence() {
    let mut seen = 0;
    for seed in 0..30 {
        for record in read(&make(6, 1_000, seed)).records {
            let years: Vec<Vec<i32>> = evidence(&record)
                .iter()
                .map(|s| {
                    s.split(|c: char| !c.is_ascii_digit())
                        .filter(|digits| digits.len() == 4)
                        .filter_map(|digits| digits.parse().ok())
                        .collect()
                })
                .collect();
            let question = record.question().unwrap();
            let ([a], [b]) = (&years[0][..], &years[1][..]) else {
                continue;
            };
            let first = question.contains("came out first") || question.contains("founded earlier");
            if years.len() == 2 && (first || question.contains("came out later")) {
                let evidence = evidence(&record);
                let of_answer = if (a < b) == first {
                    &evidence[0]
                } else {
                    &evidence[1]
                };
                assert!(of_answer.contains(record.answers[0].as_str()), "{question}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn options_out_of_bounds_are_refused() {
    for (questions, tokens, part) in [
        (0, 2_048, "number of questions is 0"),
        (MAX_QUESTIONS + 1, 2_048, "number of questions is 10001"),
        (1, 999, "needs at least 1000"),
        (1, 0, "needs at least 1000"),
        (1, MAX_TOKENS + 1, "at most 1048576"),
    ] {
        let problem = generate(
            &Options {
                questions,
                tokens,
                seed: 0,
            },
            &count,
        )
        .unwrap_err();
        assert!(problem.to_string().contains(part), "{problem}");
    }
    let by_letter = |text: &str| Ok(text.len());
    let options = Options {
        questions: 1,
        tokens: 1_000,
        seed: 0,
    };
    let problem = generate(&options, &by_letter).unwrap_err().to_string();
    assert!(problem.contains("needs at least"), "{problem}");
    let failing = |_: &str| Err(Error::invalid("tokenizer", "broken", "must work"));
    assert!(
        generate(&options, &failing)
            .unwrap_err()
            .to_string()
            .contains("broken")
    );
}

#[test]
fn shipped_files_hold_what_they_promise() {
    for (built_in, questions) in BUILT_IN.iter().zip([12, 8]) {
        let dataset = Dataset::open(built_in.name).unwrap();
        assert_eq!((dataset.name.as_str(), dataset.path), (built_in.name, None));
        assert_eq!(dataset.records.len(), questions);
        dataset.records.iter().for_each(check);
        let ids: HashSet<_> = dataset.records.iter().map(|record| &record.id).collect();
        assert_eq!(ids.len(), questions);
        assert_eq!(
            types(&dataset.records).into_values().collect::<Vec<_>>(),
            [questions / 4; 4]
        );
        let template = Template::default_for(dataset.kind);
        for record in &dataset.records {
            let rendered = template.render(record).unwrap();
            let places = rendered.evidence(record);
            let found: Vec<_> = places
                .into_iter()
                .map(|place| &rendered.text[place])
                .collect();
            assert_eq!(found, evidence(record));
        }
    }
}
