//! HeadKV's head scores: how much each attention head retrieves, as a budget.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::json;

use super::json_file::read_json;
use crate::budget::readable_number::readable_number;
use crate::budget::{BudgetPlan, Geometry, Granularity, Provenance, Request};
use crate::error::{Error, Result};

/// Scores of attention heads: `{"layer-head": [score, ..], ..}`, a list per head that is averaged.
///
/// Paper: arXiv:2410.19258 (HeadKV); the files of its `Important_Head` folder and of Retrieval_Head.
/// Shapes: layer-major; heads are query heads or KV heads.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    scores: BTreeMap<(usize, usize), f64>,
}

/// The fields of a JSON object in order, those that come twice among them.
struct Lists(Vec<(String, Vec<f64>)>);

impl<'de> Deserialize<'de> for Lists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Lists;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists, A::Error> {
                let mut lists = Vec::new();
                while let Some(field) = map.next_entry()? {
                    lists.push(field);
                }
                Ok(Lists(lists))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl HeadScores {
    /// Reads the JSON file.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for what is no such object, for a head that comes twice or is not
    /// written as "layer-head" in plain decimals, and for scores that are negative or absent.
    pub fn read(path: &Path) -> Result<Self> {
        let Lists(lists) = read_json(path, "is no object of score lists per \"layer-head\"")?;
        let mut scores = BTreeMap::new();
        for (name, list) in lists {
            let bad = |problem| Err(Error::format(path, problem));
            let Some(place) = place(&name) else {
                return bad(format!(
                    "{name:?} is no head; \"layer-head\" in plain decimals is expected, as \"0-3\""
                ));
            };
            let mean = match mean(&list) {
                Ok(mean) => mean,
                Err(problem) => return bad(format!("head {name} {problem}")),
            };
            if scores.insert(place, mean).is_some() {
                return bad(format!("head {name} comes twice"));
            }
        }
        Ok(Self { scores })
    }

    /// Heads per layer in the file: the model's query heads or its KV heads, whatever is closer.
    ///
    /// Errors: [`Error::Invalid`] naming heads that are missing, and those that the model does not have.
    fn heads_per_layer(&self, geometry: &Geometry) -> Result<usize> {
        let wrong = |heads: usize| {
            let all = (0..geometry.layers).flat_map(|l| (0..heads).map(move |h| (l, h)));
            let missing = all.filter(|place| !self.scores.contains_key(place));
            let surplus = |&&(l, h): &&(usize, usize)| l >= geometry.layers || h >= heads;
            let surplus = self.scores.keys().filter(surplus).copied();
            [missing.collect(), surplus.collect::<Vec<_>>()]
        };
        let [of_query_heads, of_kv_heads] = [geometry.heads, geometry.kv_heads].map(wrong);
        let count = |wrong: &[Vec<_>; 2]| wrong.iter().map(Vec::len).sum::<usize>();
        // Where both are as far away, query heads are meant.
        let (heads, wrong) = if count(&of_query_heads) <= count(&of_kv_heads) {
            (geometry.heads, of_query_heads)
        } else {
            (geometry.kv_heads, of_kv_heads)
        };
        if count(&wrong) == 0 {
            return Ok(heads);
        }
        let problems = wrong
            .iter()
            .zip(["missing from the file", "not in the model"]);
        let problems = problems.filter(|(places, _)| !places.is_empty());
        let problems = problems.map(|(places, problem)| format!("{} {problem}", first_few(places)));
        let problems = problems.collect::<Vec<_>>().join("; ");
        let found = format!("those of {} heads", self.scores.len());
        let bound = format!("the model has {}: {problems}", geometry.numbers());
        Err(Error::invalid("set of head scores", found, bound))
    }

    /// Normalised scores of the KV heads in layer order, summing to 1.
    ///
    /// The score of a KV head is the mean over its query heads; a file that has one score per KV head is
    /// taken as it is.
    ///
    /// Errors: [`Error::Invalid`] for other heads than the model has, and where all scores are 0 or overflow.
    pub fn normalised(&self, geometry: &Geometry) -> Result<Vec<f64>> {
        geometry.check()?;
        let per_layer = self.heads_per_layer(geometry)?;
        let group = (per_layer / geometry.kv_heads).max(1);
        let values: Vec<f64> = self.scores.values().copied().collect();
        let means: Vec<f64> = values
            .chunks(group)
            .map(|members| members.iter().sum::<f64>() / group as f64)
            .collect();
        let sum: f64 = means.iter().sum();
        if !sum.is_finite() {
            let bound = "the sum must be a finite number: divide all scores by the largest";
            return Err(Error::invalid("sum of the head scores", "too large", bound));
        }
        if sum <= 0.0 {
            let bound = "at least one head needs a score above 0";
            return Err(Error::invalid("sum of the head scores", sum, bound));
        }
        Ok(means.iter().map(|m| m / sum).collect())
    }
}

/// Layer and head of a name, which must be the one that both have.
fn place(name: &str) -> Option<(usize, usize)> {
    let (layer, head) = name.split_once('-')?;
    let (layer, head) = (layer.parse().ok()?, head.parse().ok()?);
    (format!("{layer}-{head}") == name).then_some((layer, head))
}

/// Mean of a head's scores, or what is wrong with them.
fn mean(scores: &[f64]) -> Result<f64, String> {
    if scores.is_empty() {
        return Err("has no score".to_owned());
    }
    if let Some(bad) = scores.iter().find(|s| !s.is_finite() || **s < 0.0) {
        let bad = readable_number(*bad);
        return Err(format!(
            "has the score {bad}; scores are finite and 0 or more"
        ));
    }
    let sum: f64 = scores.iter().sum();
    if !sum.is_finite() {
        return Err(
            "has scores whose sum is too large: divide all scores by the largest".to_owned(),
        );
    }
    Ok(sum / scores.len() as f64)
}

/// The first heads of some, and how many more there are.
fn first_few(places: &[(usize, usize)]) -> String {
    const FEW: usize = 3;
    let first = places.iter().take(FEW);
    let first: Vec<String> = first.map(|(l, h)| format!("{l}-{h}")).collect();
    match places.len().saturating_sub(FEW) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// HeadKV's budgets: every head keeps R − R/β above the floor, and R/β per head is pooled and shared by score.
///
/// R is B minus sinks and window (the request's floor).
///
/// Paper: arXiv:2410.19258 (HeadKV). Differs: nothing is rounded before the end, and the total is exact; by
/// KV head where HeadKV budgets query heads.
///
/// Errors: [`Error::Invalid`] for a β below 1; those of [`HeadScores::normalised`] and
/// [`BudgetPlan::of_targets`].
pub fn head_score_plan(
    scores: &HeadScores,
    beta: f64,
    request: &Request<'_>,
    provenance: Provenance,
) -> Result<BudgetPlan> {
    if !(beta.is_finite() && beta >= 1.0) {
        let bound = "HeadKV's beta is 1 (everything by score) or more, such as 1.01, 1.2, 2 or 10";
        return Err(Error::invalid("beta", readable_number(beta), bound));
    }
    request.check()?;
    let shares = scores.normalised(&request.geometry)?;
    let floor = request.lowest() as f64;
    let rest = (request.per_head() - floor).max(0.0);
    let (least, pool) = (rest - rest / beta, rest / beta * shares.len() as f64);
    let tokens = shares.iter().map(|s| floor + least + s * pool);
    let targets = request.targets(tokens.collect());
    let (request, parameters) = (
        request.clone().by(Granularity::Head),
        json!({ "beta": beta }),
    );
    BudgetPlan::of_targets("headkv", parameters, &request, &targets, provenance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;

    fn read(text: &str) -> Result<HeadScores> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads.json");
        std::fs::write(&path, text).unwrap();
        HeadScores::read(&path)
    }

    #[test]
    fn budgets_by_hand() {
        // Query heads of 3 layers; their pairs' means are 1, 0 | 2, 2 | 4, 1: sum 10.
        let scores = read(
            r#"{"0-0": [1.0, 1.0], "0-1": [0.5, 1.5], "0-2": [0], "0-3": [0],
                "1-0": [2], "1-1": [2], "1-2": [1], "1-3": [3],
                "2-0": [4], "2-1": [4], "2-2": [2], "2-3": [0]}"#,
        )
        .unwrap();
        let request = Sample::default().request(22.0, 2);
        let plan = head_score_plan(&scores, 2.0, &request, Provenance::default()).unwrap();
        // R = 20: 2 + 10 each, 60 pooled: 6, 0 | 12, 12 | 24, 6.
        assert_eq!(plan.tokens, [[18, 12], [24, 24], [36, 18]]);
        assert!(head_score_plan(&scores, 0.5, &request, Provenance::default()).is_err());
    }

    #[test]
    fn scores_of_kv_heads_are_taken_as_they_are() {
        let text = r#"{"0-0": [1], "0-1": [1], "1-0": [1], "1-1": [1], "2-0": [1], "2-1": [5]}"#;
        let geometry = Sample::default().request(22.0, 2).geometry;
        let shares = read(text).unwrap().normalised(&geometry).unwrap();
        assert_eq!(shares, [0.1, 0.1, 0.1, 0.1, 0.1, 0.5]);
    }

    #[test]
    fn other_files_are_refused() {
        for (text, words) in [
            ("[]", "no object"),
            (r#"{"0-0": 1}"#, "no object of score lists"),
            (r#"{"0-0": [NaN]}"#, "column 10 (JSON has neither NaN"),
            (r#"{"0-0": [1e999]}"#, "out of range"),
            (r#"{"a": [1]}"#, "\"a\" is no head"),
            (r#"{"+0-0": [1]}"#, "\"+0-0\" is no head"),
            (r#"{"0-00": [1]}"#, "\"0-00\" is no head"),
            (r#"{"3-4": [1], "03-4": [5]}"#, "plain decimals"),
            (r#"{"3-4": [1], "3-4": [1]}"#, "head 3-4 comes twice"),
            (r#"{"0-0": []}"#, "head 0-0 has no score"),
            (r#"{"0-0": [-1, 4]}"#, "head 0-0 has the score -1;"),
            (
                r#"{"0-0": [1.7e308, 1.7e308]}"#,
                "head 0-0 has scores whose sum is too large",
            ),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn heads_that_the_model_has_not_are_named() {
        let geometry = Sample::default().request(22.0, 2).geometry;
        let scores = |heads: usize, value: &str| {
            let all =
                (0..3).flat_map(|l| (0..heads).map(move |h| format!("\"{l}-{h}\": [{value}]")));
            format!("{{{}}}", all.collect::<Vec<_>>().join(","))
        };
        let refused = |text: &str| {
            read(text)
                .unwrap()
                .normalised(&geometry)
                .unwrap_err()
                .to_string()
        };
        let text = refused(&scores(4, "1").replace("2-1", "2-7"));
        assert!(text.contains("3 layers, 4 heads"), "{text}");
        assert!(
            text.contains(": 2-1 missing from the file; 2-7 not in the model"),
            "{text}"
        );
        let text = refused(&scores(2, "1").replace("\"2-1\": [1]", "\"3-0\": [1], \"3-1\": [1]"));
        assert!(
            text.contains(": 2-1 missing from the file; 3-0, 3-1 not in the model"),
            "{text}"
        );
        let text = refused(r#"{"0-0": [1]}"#);
        assert!(text.contains("0-1, 1-0, 1-1 and 2 more missing"), "{text}");
        assert!(refused(&scores(6, "1")).contains("0-4, 0-5, 1-4 and 3 more not in the model"));
        assert!(refused(&scores(4, "0")).contains("needs a score above 0"));
        assert!(refused(&scores(4, "1e308")).contains("sum of the head scores is too large"));
    }
}
