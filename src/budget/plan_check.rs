//! What a sound plan is.

use super::geometry::{Geometry, Granularity};
use super::plan::BudgetPlan;
use super::readable_number::readable_number;
use crate::error::{Error, Result};

/// How far the shares of a plan may be from summing to 1.
const SUM_TOLERANCE: f64 = 1e-6;

impl BudgetPlan {
    /// Refuses a plan that cannot be, or whose numbers contradict each other.
    ///
    /// Errors: [`Error::Invalid`] with the first place at fault.
    pub(super) fn check(&self) -> Result<()> {
        self.geometry.check()?;
        self.check_names()?;
        let certificate = self.provenance.certificate.as_ref();
        certificate.map_or(Ok(()), |certificate| certificate.check())?;
        if !self.parameters.is_object() {
            let bound = "a JSON object is expected, {} where the strategy has none";
            return Err(Error::invalid("parameters", &self.parameters, bound));
        }
        self.check_shape("shares", &self.shares)?;
        self.check_shape("tokens", &self.tokens)?;
        if !self.held_as.is_empty() {
            self.check_shape("held_as", &self.held_as)?;
        }
        let mut types = self.held_as.iter().flatten();
        types.try_for_each(|held_as| held_as.check_width(self.geometry.head_dim))?;
        // Fitting refuses shares, amounts, floors and lengths that cannot be.
        let fitted = self.tokens_at(self.reference_tokens)?;
        let sum: f64 = self.shares.iter().flatten().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            let sum = readable_number(sum);
            return Err(Error::invalid("sum of the shares", sum, "shares sum to 1"));
        }
        self.check_tokens(&fitted)
    }

    /// Names are shown on terminals, where control characters are commands.
    ///
    /// Errors: [`Error::Invalid`].
    pub(super) fn check_names(&self) -> Result<()> {
        if self.strategy.is_empty() {
            let bound = "the name of a strategy is expected, of any tool or of your own";
            return Err(Error::invalid("strategy", "empty", bound));
        }
        let names = [
            ("strategy", &self.strategy),
            ("model", &self.geometry.model),
        ];
        match names
            .into_iter()
            .find(|(_, name)| name.contains(char::is_control))
        {
            None => Ok(()),
            Some((what, name)) => {
                let bound = "a name has no control characters";
                Err(Error::invalid(what, format!("{name:?}"), bound))
            }
        }
    }

    fn check_shape<T>(&self, what: &str, rows: &[Vec<T>]) -> Result<()> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        let bound = format!("the geometry says {layers} layers of {kv_heads} KV heads");
        if rows.len() != layers {
            let what = format!("number of layers in {what}");
            return Err(Error::invalid(what, rows.len(), bound));
        }
        match rows.iter().position(|row| row.len() != kv_heads) {
            None => Ok(()),
            Some(l) => {
                let what = format!("number of KV heads of layer {l} in {what}");
                Err(Error::invalid(what, rows[l].len(), bound))
            }
        }
    }

    /// Refuses tokens that the rest of the plan does not give.
    fn check_tokens(&self, fitted: &[Vec<usize>]) -> Result<()> {
        for (l, (kept, given)) in self.tokens.iter().zip(fitted).enumerate() {
            if let Some(h) = (0..kept.len()).find(|&h| kept[h] != given[h]) {
                let bound = format!(
                    "shares, budget and floor give {}: one of them was changed by hand",
                    given[h]
                );
                let what = format!("number of tokens of layer {l}, KV head {h}");
                return Err(Error::invalid(what, kept[h], bound));
            }
            let (least, most) = (kept.iter().min(), kept.iter().max());
            if let (Granularity::Layer, Some(least), Some(most)) = (self.granularity, least, most)
                && most - least > 1
            {
                let bound =
                    "by its granularity \"layer\" heads of a layer differ by a token at most";
                let value = format!("{least} to {most}");
                return Err(Error::invalid(format!("tokens of layer {l}"), value, bound));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::budget::Provenance;
    use crate::budget::sample::Sample;
    use serde_json::{Value, json};

    fn plan() -> BudgetPlan {
        Sample::default().plan()
    }

    fn reread(text: &str) -> Result<BudgetPlan> {
        BudgetPlan::parse(Path::new("plan.json"), text)
    }

    /// The message of a plan with `field` set to `value`.
    fn refused(field: &str, value: Value) -> String {
        let mut json = serde_json::to_value(plan()).unwrap();
        json[field] = value;
        reread(&json.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let shares = |s: f64| json!([[s, 0.2], [0.2, 0.2], [0.2, 0.2]]);
        assert!(refused("shares", shares(-0.2)).contains("layer 0, KV head 0 is -0.2"));
        assert!(refused("shares", shares(1.0)).contains("shares sum to 1"));
        let nan = serde_json::to_string(&plan())
            .unwrap()
            .replacen("[[0.", "[[NaN, 0.", 1);
        let text = reread(&nan).unwrap_err().to_string();
        assert!(
            text.contains("column") && text.contains("JSON has neither NaN"),
            "{text}"
        );
        assert!(refused("shares", json!([[null, 0.2], [0.2, 0.2], [0.2, 0.2]])).contains("null"));
        let text = refused("shares", shares(1e308));
        assert!(text.contains("sum of the shares is 1e308,"), "{text}");
        assert!(refused("shares", shares(-1e308)).contains("KV head 0 is -1e308,"));
        for amount in [-1.0, 0.0, 1e300] {
            assert!(refused("budget", json!({ "tokens_per_head": amount })).contains("budget is"));
        }
        assert!(refused("budget", json!({"retained_fraction": 1.2})).contains("120%"));
        assert!(refused("floor", json!(1)).contains("floor is 1"));
        assert!(refused("floor", json!(21)).contains("the floor is 21"));
        assert!(refused("reference_tokens", json!(0)).contains("length is 0"));
        let both = json!({"tokens_per_head": 20.0, "retained_fraction": 0.2});
        assert!(refused("budget", both).contains("a budget has one field"));
    }

    #[test]
    fn lists_of_another_shape_are_refused_at_the_first_place() {
        let is = |field, value, words: &str| {
            let text = refused(field, value);
            let geometry = "the geometry says 3 layers of 2 KV heads";
            assert!(text.contains(words) && text.contains(geometry), "{text}");
        };
        is(
            "shares",
            json!([[0.5, 0.5]]),
            "number of layers in shares is 1,",
        );
        is("shares", json!([]), "number of layers in shares is 0,");
        let empty = json!([[20, 20], [], [20, 20]]);
        is(
            "tokens",
            empty,
            "number of KV heads of layer 1 in tokens is 0,",
        );
        let surplus = json!([[20, 20], [20, 20], [20, 20, 20]]);
        is(
            "tokens",
            surplus,
            "number of KV heads of layer 2 in tokens is 3,",
        );
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused_at_the_first_place() {
        let mut tokens = plan().tokens;
        tokens[1][1] += 1;
        tokens[2][0] -= 1;
        let (found, given) = (tokens[1][1], tokens[1][1] - 1);
        let text = refused("tokens", json!(tokens));
        let words = format!("tokens of layer 1, KV head 1 is {found}, but");
        assert!(text.contains(&words), "{text}");
        assert!(text.contains(&format!("give {given}: one of them was changed by hand")));
        let request = Sample::default().request(20.0, 2).by(Granularity::Head);
        let heads = BudgetPlan::allocate("zigzag", json!({}), &request, Provenance::default());
        let heads = BudgetPlan {
            granularity: Granularity::Layer,
            ..heads.unwrap()
        };
        let text = reread(&serde_json::to_string(&heads).unwrap());
        let text = text.unwrap_err().to_string();
        assert!(text.contains("tokens of layer 0 is 8 to 10"), "{text}");
        assert!(text.contains("granularity \"layer\""), "{text}");
    }

    #[test]
    fn names_are_words_and_parameters_an_object() {
        assert!(refused("parameters", json!([1])).contains("parameters is [1], but a JSON object"));
        assert!(refused("parameters", Value::Null).contains("a JSON object"));
        assert!(refused("strategy", json!("")).contains("strategy is empty"));
        let mut geometry = serde_json::to_value(plan().geometry).unwrap();
        geometry["model"] = json!("\u{1b}[31mred");
        for text in [
            refused("strategy", json!("a\u{1b}]0;b\u{7}")),
            refused("geometry", geometry),
        ] {
            assert!(text.contains("no control characters"), "{text}");
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let unreadable = BudgetPlan {
            strategy: "two\nlines".into(),
            ..plan()
        };
        assert!(unreadable.write(&folder.path().join("plan.json")).is_err());
        // Made by hand or by another tool: shares say all that serving needs.
        let mut foreign = serde_json::to_value(plan()).unwrap();
        foreign["strategy"] = json!("my own rule");
        assert_eq!(
            reread(&foreign.to_string()).unwrap().strategy,
            "my own rule"
        );
    }
}
