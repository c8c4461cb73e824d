//! What the keys and values of a plan are held in.

use super::plan::BudgetPlan;
use crate::model::cache::{Representation, Representations};

impl BudgetPlan {
    /// What every KV head is held in; `None` where the plan says nothing of it.
    pub fn representations(&self) -> Option<Representations> {
        let says = !self.held_as.is_empty();
        says.then(|| Representations::of_heads(self.held_as.clone()))
    }

    /// The plan with every KV head held in one type.
    #[must_use]
    pub fn all_held_as(self, one: Representation) -> Self {
        let layer = vec![one; self.geometry.kv_heads];
        Self {
            held_as: vec![layer; self.geometry.layers],
            ..self
        }
    }

    /// Bytes of every layer at the reference length; what the plan says nothing of is held in `otherwise`.
    pub fn layer_bytes(&self, otherwise: Representation) -> Vec<usize> {
        let head_dim = self.geometry.head_dim;
        let of_layer = |(l, heads): (usize, &Vec<usize>)| {
            let types = self.held_as.get(l);
            let of_head = |(h, &tokens): (usize, &usize)| {
                let own = types.and_then(|heads| heads.get(h));
                own.unwrap_or(&otherwise).bytes(tokens, head_dim)
            };
            heads.iter().enumerate().map(of_head).sum()
        };
        self.tokens.iter().enumerate().map(of_layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::budget::sample::Sample;
    use serde_json::{Value, json};

    fn held() -> BudgetPlan {
        let mut plan = Sample::default().plan();
        let types = |text: &str| text.parse::<Representation>().unwrap();
        plan.held_as = vec![
            vec![types("q8(residual=0)"); 2],
            vec![types("k=q8,v=q4"), types("f16")],
            vec![Representation::FLOAT32; 2],
        ];
        plan
    }

    fn reread(plan: &Value) -> crate::error::Result<BudgetPlan> {
        BudgetPlan::parse(Path::new("plan.json"), &plan.to_string())
    }

    #[test]
    fn plans_without_types_are_written_as_ever_and_others_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let silent = Sample::default().plan();
        silent.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("held_as"));
        assert_eq!(silent.representations(), None);
        let plan = held();
        plan.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"k=q8,v=q4\", \"f16\""), "{text}");
        assert_eq!(BudgetPlan::read(&path).unwrap(), plan);
        let types = plan.representations().unwrap();
        assert_eq!(types, Representations::ByHead(plan.held_as));
        let alike = silent.all_held_as("q4".parse().unwrap());
        let one = Representations::Alike("q4".parse().unwrap());
        assert_eq!(alike.representations(), Some(one));
    }

    #[test]
    fn bytes_are_those_of_the_types() {
        let plan = BudgetPlan {
            tokens: vec![vec![64, 33], vec![10, 100], vec![3, 4]],
            ..held()
        };
        // D = 8, codes of a row in lanes of 16: 32 or 64 coded tokens of a byte a number, a scale and a zero point of two bytes each per channel of a
        // group, or per row of values; one more token of the 33 in float16.
        let q8 = |coded: usize| coded * 16 + coded / 32 * 8 * 4 + coded * (16 + 4);
        // 10 tokens are all among the newest.
        let layers = [
            q8(64) + q8(32) + 2 * 2 * 8,
            10 * 2 * 2 * 8 + 100 * 2 * 2 * 8,
            7 * 2 * 4 * 8,
        ];
        assert_eq!(plan.layer_bytes(Representation::FLOAT32), layers);
        let silent = BudgetPlan {
            held_as: Vec::new(),
            ..plan
        };
        let half = silent.layer_bytes("bf16".parse().unwrap());
        assert_eq!(half, [97 * 32, 110 * 32, 7 * 32]);
    }

    #[test]
    fn types_that_cannot_be_are_refused_at_the_first_place() {
        let refused = |types: Value| {
            let mut plan = serde_json::to_value(held()).unwrap();
            plan["held_as"] = types;
            reread(&plan).unwrap_err().to_string()
        };
        let said = refused(json!([["q8", "q8"], ["q8", "q8"]]));
        assert!(said.contains("number of layers in held_as is 2,"), "{said}");
        let said = refused(json!([["q8", "q8"], ["q8"], ["q8", "q8"]]));
        assert!(
            said.contains("KV heads of layer 1 in held_as is 1,"),
            "{said}"
        );
        let said = refused(json!([["q8", "q8"], ["q8", "q3"], ["q8", "q8"]]));
        assert!(said.contains("'q3'") && said.contains("q4_0"), "{said}");
        // Heads of 8 are no block of 32.
        let said = refused(json!([["q8", "q8"], ["q8", "q4_0"], ["q8", "q8"]]));
        assert!(said.contains("head dimension is 8"), "{said}");
    }
}
