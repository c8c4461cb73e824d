//! HeadKV's head scores: how much each attention head retrieves, as a budget.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::budget::{BudgetPlan, Geometry, Granularity, Provenance, Request, Targets};
use crate::error::{Error, Result};

/// Scores of attention heads: `{"layer-head": [score, ..], ..}`, a list per head that is averaged.
///
/// Paper: arXiv:2410.19258 (HeadKV); the files of its `Important_Head` folder and of Retrieval_Head.
/// Shapes: layer-major; heads are query heads or KV heads.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    scores: BTreeMap<(usize, usize), f64>,
}

impl HeadScores {
    /// Reads the JSON file.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for what is no such object, and for scores that are
    /// negative or absent.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let lists: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text).map_err(|e| {
            let problem = format!("is no object of score lists per \"layer-head\": {e}");
            Error::format_at(path, e.line(), problem)
        })?;
        let mut scores = BTreeMap::new();
        for (name, list) in lists {
            let place = name
                .split_once('-')
                .and_then(|(l, h)| Some((l.parse().ok()?, h.parse().ok()?)));
            let mean = list.iter().sum::<f64>() / list.len() as f64;
            match place {
                Some(place) if mean.is_finite() && mean >= 0.0 => scores.insert(place, mean),
                Some(_) => {
                    let problem = format!("head {name} has no mean score of 0 or more");
                    return Err(Error::format(path, problem));
                }
                None => {
                    let problem =
                        format!("'{name}' is no head; \"layer-head\" is expected, as \"0-3\"");
                    return Err(Error::format(path, problem));
                }
            };
        }
        Ok(Self { scores })
    }

    /// Normalised scores of the KV heads in layer order, summing to 1.
    ///
    /// The score of a KV head is the mean over its query heads; a file that has one score per KV head is
    /// taken as it is.
    ///
    /// Errors: [`Error::Invalid`] for other heads than the model has, and where all scores are 0.
    pub fn normalised(&self, geometry: &Geometry) -> Result<Vec<f64>> {
        geometry.check()?;
        let per_layer = self.scores.len() / geometry.layers;
        let complete = |heads: usize| {
            let all = (0..geometry.layers).flat_map(|l| (0..heads).map(move |h| (l, h)));
            self.scores.len() == geometry.layers * heads
                && all
                    .into_iter()
                    .all(|place| self.scores.contains_key(&place))
        };
        let known = [geometry.heads, geometry.kv_heads].contains(&per_layer);
        if !known || !complete(per_layer) {
            let found = format!("{} heads", self.scores.len());
            let bound = format!("the model has {}", geometry.numbers());
            return Err(Error::invalid("head scores", found, bound));
        }
        let group = (per_layer / geometry.kv_heads).max(1);
        let values: Vec<f64> = self.scores.values().copied().collect();
        let means: Vec<f64> = values
            .chunks(group)
            .map(|members| members.iter().sum::<f64>() / group as f64)
            .collect();
        let sum: f64 = means.iter().sum();
        if sum <= 0.0 || !sum.is_finite() {
            let bound = "at least one head needs a score above 0";
            return Err(Error::invalid("sum of the head scores", sum, bound));
        }
        Ok(means.iter().map(|m| m / sum).collect())
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
        return Err(Error::invalid("beta", beta, bound));
    }
    request.check()?;
    let shares = scores.normalised(&request.geometry)?;
    let floor = request.lowest() as f64;
    let rest = (request.per_head() - floor).max(0.0);
    let (least, pool) = (rest - rest / beta, rest / beta * shares.len() as f64);
    let targets = Targets {
        floor: request.floor.tokens,
        tokens: shares.iter().map(|s| floor + least + s * pool).collect(),
    };
    let request = request.clone().by(Granularity::Head);
    BudgetPlan::of_targets(
        "headkv",
        json!({ "beta": beta }),
        &request,
        &targets,
        provenance,
    )
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
        for text in [
            "[]",
            r#"{"a": [1]}"#,
            r#"{"0-0": []}"#,
            r#"{"0-0": [-1]}"#,
            r#"{"0-0": 1}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let geometry = Sample::default().request(22.0, 2).geometry;
        let text = read(r#"{"0-0": [1]}"#)
            .unwrap()
            .normalised(&geometry)
            .unwrap_err()
            .to_string();
        assert!(text.contains("3 layers, 4 heads"), "{text}");
        let zeros = r#"{"0-0": [0], "0-1": [0], "1-0": [0], "1-1": [0], "2-0": [0], "2-1": [0]}"#;
        assert!(read(zeros).unwrap().normalised(&geometry).is_err());
        let gap = r#"{"0-0": [1], "0-1": [1], "1-0": [1], "1-1": [1], "2-0": [1], "2-7": [1]}"#;
        assert!(read(gap).unwrap().normalised(&geometry).is_err());
    }
}
