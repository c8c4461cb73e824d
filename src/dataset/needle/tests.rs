//! What every needle record must hold.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Depths, MAX_TOKENS, Options, build, dataset};
use crate::dataset::{Kind, Record, Template};
use crate::error::{Error, Result};

/// A tokenizer of its own: every run of letters is a token for each five of them, all else one each;
/// and a wrapper of eleven tokens around the message.
fn count(text: &str) -> Result<usize> {
    let mut tokens = 11;
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let letters = word.chars().filter(|c| c.is_alphanumeric()).count();
        tokens += letters.div_ceil(5) + usize::from(word.ends_with(['.', ',', '\n']));
    }
    Ok(tokens)
}

fn options(lengths: &[usize], depths: &str, seeds: std::ops::Range<u64>) -> Options {
    Options {
        lengths: lengths.to_vec(),
        depths: depths.parse().unwrap(),
        seeds,
    }
}

fn records(options: &Options) -> Vec<Record> {
    dataset(options, &count).unwrap().records
}

fn needle_of(record: &Record) -> String {
    let [span] = &record.evidence[..] else {
        panic!("one needle a record")
    };
    let context = record.context().unwrap().chars();
    context.skip(span.start).take(span.len()).collect()
}

fn number(record: &Record, column: &str) -> f64 {
    record.columns[column].as_f64().unwrap()
}

#[test]
fn every_length_depth_and_seed_has_its_record() {
    let options = options(&[2048, 512], "0..100/25", 3..5);
    let records = records(&options);
    let cells: Vec<(u64, u64, u64)> = records
        .iter()
        .map(|r| {
            let cell = ["seed", "length", "depth"].map(|c| number(r, c) as u64);
            (cell[0], cell[1], cell[2])
        })
        .collect();
    let mut expected = Vec::new();
    for seed in 3..5 {
        for length in [512, 2048] {
            expected.extend([0, 25, 50, 75, 100].map(|depth| (seed, length, depth)));
        }
    }
    assert_eq!(cells, expected);
    let ids: HashSet<_> = records.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids.len(), 20);
    assert!(ids.contains("needle-512-25-3"));
}

#[test]
fn needles_are_evidence_and_stand_there_once() {
    for record in records(&options(&[600, 3000], "0..100/10", 0..4)) {
        assert_eq!((record.kind, record.answers.len()), (Kind::LongBench, 2));
        let (needle, answer) = (needle_of(&record), record.answers[0].as_str());
        assert!(needle.starts_with("The pass code of the ") && needle.ends_with('.'));
        assert!(needle.contains(answer));
        assert_eq!(record.answers[1], needle);
        let context = record.context().unwrap();
        assert_eq!(context.matches(&needle).count(), 1);
        assert_eq!(context.matches(|c: char| c.is_ascii_digit()).count(), 5);
        let name = needle.split(" is ").next().unwrap().replace("The", "the");
        assert!(record.question().unwrap().contains(&name));
    }
}

#[test]
fn depth_is_where_it_says() {
    for record in records(&options(&[600, 3000], "0..100/5", 0..2)) {
        let span = &record.evidence[0];
        let hay = record.context().unwrap().chars().count() - span.len() - 1;
        let (depth, reached) = (number(&record, "depth"), span.start as f64 / hay as f64);
        // Half of the longest sentence, about 75 characters.
        let tolerance = 75.0 / hay as f64;
        assert!(
            (reached - depth / 100.0).abs() <= tolerance,
            "{depth}: {reached}"
        );
        if depth == 0.0 {
            assert_eq!(span.start, 0);
        }
        if depth == 100.0 {
            assert!(record.context().unwrap().ends_with(&needle_of(&record)));
        }
    }
}

#[test]
fn lengths_are_met_from_below() {
    let template = Template::default_for(Kind::LongBench);
    let lengths = [500, 777, 1024, 2048, 8192];
    for record in records(&options(&lengths, "0..100/20", 0..3)) {
        let size = count(&template.render(&record).unwrap().text).unwrap();
        let length = number(&record, "length") as usize;
        assert!(size <= length && size + 4 >= length, "{size} of {length}");
    }
}

#[test]
fn prompts_of_a_seed_differ_in_the_needles_place_only() {
    let grid = records(&options(&[1024], "0,30,100", 0..2));
    let without: Vec<String> = grid
        .iter()
        .map(|record| {
            let context = record.context().unwrap().replace(&needle_of(record), "");
            context.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let common = |a: &str, b: &str| {
        let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
        same as f64 / a.len() as f64
    };
    assert!(common(&without[0], &without[1]) > 0.9);
    assert!(common(&without[0], &without[2]) > 0.9);
    assert!(common(&without[0], &without[3]) < 0.1, "another seed");
    assert_ne!(needle_of(&grid[0]), needle_of(&grid[3]));
}

#[test]
fn a_seed_gives_its_bytes_whatever_else_is_built() {
    let text = |records: &[Map<String, Value>]| serde_json::to_string(records).unwrap();
    let grid = build(&options(&[512, 1024], "0..100/50", 0..3), &count).unwrap();
    let alone = build(&options(&[1024], "50", 2..3), &count).unwrap();
    assert_eq!(grid.len(), 18);
    assert_eq!(text(&grid[16..17]), text(&alone));
    let again = build(&options(&[1024, 512, 512], "100,0,50", 0..3), &count).unwrap();
    assert_eq!(text(&grid), text(&again));
}

#[test]
fn too_short_a_length_names_the_shortest() {
    let options = |length| options(&[length], "0..100/10", 0..5);
    let problem = build(&options(100), &count).unwrap_err().to_string();
    assert!(
        problem.contains("prompt length in tokens is 100"),
        "{problem}"
    );
    let shortest: usize = problem.rsplit(' ').next().unwrap().parse().unwrap();
    let made = records(&options(shortest));
    assert_eq!(made.len(), 55);
    let below = build(&options(shortest - 1), &count)
        .unwrap_err()
        .to_string();
    assert!(
        below.ends_with(&format!("need at least {shortest}")),
        "{below}"
    );
}

#[test]
fn options_out_of_bounds_are_refused() {
    for (options, part) in [
        (options(&[], "0", 0..1), "number of lengths is 0"),
        (options(&[512], "0", 4..4), "number of seeds is 0"),
        (options(&[MAX_TOKENS + 1], "0", 0..1), "at most 1048576"),
        (options(&[512], "0..100/1", 0..1_000), "records is 101000"),
        (options(&[512], "0", 0..u64::MAX), "take fewer seeds"),
    ] {
        let problem = build(&options, &count).unwrap_err().to_string();
        assert!(problem.contains(part), "{problem}");
    }
    let failing = |_: &str| Err(Error::invalid("tokenizer", "broken", "must work"));
    let options = Options {
        lengths: vec![512],
        depths: Depths::new(vec![0.0]).unwrap(),
        seeds: 0..1,
    };
    let problem = build(&options, &failing).unwrap_err().to_string();
    assert!(problem.contains("broken"), "{problem}");
}
