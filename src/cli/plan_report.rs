//! What `kvprof allocate` knows of plans: tokens per layer, and what the profile predicts of them.

use std::io::{self, Write};
use std::path::PathBuf;

use kvprof::budget::{
    Budget, BudgetPlan, Prediction, Predictor, Provenance, Request, longest_prompt,
};
use kvprof::model::source::MODELS;
use kvprof::profile::{Profile, Query};
use serde_json::{Value, json};

use super::plan_table::{write_comparison, write_plan};
use super::quoted;
use super::reference::Reference;

/// Plans with their files and predictions.
pub struct Report<'a> {
    lines: Vec<Line<'a>>,
    /// The prompts that predictions are means over, in words.
    prompts: Option<String>,
    /// Why there is no prediction where there is a profile.
    unpredicted: Option<String>,
    /// How `kvprof generate` names the model; nothing for the default one.
    model: String,
}

/// A plan with what is said of it.
pub struct Line<'a> {
    /// The plan.
    pub plan: &'a BudgetPlan,
    out: Option<&'a PathBuf>,
    /// Predictions, where there is a profile.
    pub predicted: Option<Predicted>,
}

/// What a plan keeps and loses, beside the same budget for every head.
pub struct Predicted {
    /// Whose attention and output.
    pub query: Query,
    /// Of the plan.
    pub plan: Prediction,
    /// Of the uniform plan of the same budget.
    pub uniform: Prediction,
}

impl<'a> Report<'a> {
    /// Predicts every plan, where there is a profile.
    pub fn of(
        reference: &Reference,
        plans: &'a [BudgetPlan],
        outs: &'a [Option<PathBuf>],
    ) -> anyhow::Result<Self> {
        let measured = reference.profile.as_ref().map(|(_, profile)| profile);
        let prompts = measured.map(prompts_in_words).transpose()?;
        // Budgets of prompts of another length would be read off the wrong curves.
        let profile = match measured {
            Some(profile) if longest_prompt(profile)? == reference.tokens => Some(profile),
            _ => None,
        };
        let unpredicted = prompts
            .clone()
            .filter(|_| profile.is_none())
            .map(|prompts| {
                let tokens = reference.tokens;
                format!(
                    "Nothing is predicted for {tokens} tokens: the profile's curves are a {prompts}"
                )
            });
        // Parameters are those of one strategy: all plans ask the same query.
        let query = plans.first().map_or(Query::Pooled, predicted_query);
        let predictor = profile
            .map(|p| Predictor::new(p, query, reference.tokens))
            .transpose()?;
        let mut lines = Vec::new();
        for (plan, out) in plans.iter().zip(outs) {
            let predicted = match &predictor {
                Some(predictor) => Some(Predicted {
                    query,
                    plan: predictor.predict(&plan.tokens)?,
                    uniform: predictor.predict(&uniform(reference, plan.budget)?)?,
                }),
                None => None,
            };
            lines.push(Line {
                plan,
                out: out.as_ref(),
                predicted,
            });
        }
        Ok(Self {
            lines,
            prompts,
            unpredicted,
            model: model_option(reference),
        })
    }

    /// Prints JSON.
    pub fn write_json(&self) -> anyhow::Result<()> {
        let plans: Vec<Value> = self.lines.iter().map(Line::to_json).collect();
        let text = serde_json::to_string_pretty(&json!({ "plans": plans }))?;
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// Prints a table, and what to type next; `suggestion` writes what was only shown.
    pub fn write(&self, suggestion: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let prompts = self.prompts.as_deref().unwrap_or_default();
        match &self.lines[..] {
            [line] => write_plan(&mut out, line, prompts)?,
            lines => write_comparison(&mut out, lines, prompts)?,
        }
        if let Some(why) = &self.unpredicted {
            writeln!(out, "\n{why}")?;
        }
        writeln!(out)?;
        let files: Vec<String> = self
            .lines
            .iter()
            .filter_map(|line| Some(quoted(&line.out?.to_string_lossy())))
            .collect();
        match files.is_empty() {
            true => writeln!(out, "Nothing is written without --out. Next: {suggestion}")?,
            false => {
                writeln!(out, "Written to {}", files.join(", "))?;
                let plans: Vec<String> = files.iter().map(|f| format!("--plan {f}")).collect();
                writeln!(out, "Next: kvprof plot budgets {}", plans.join(" "))?;
                let generate = "kvprof generate --data wikimqa-style-2k --compare";
                writeln!(out, "      {generate}{} {}", self.model, plans[0])?;
            }
        }
        Ok(())
    }
}

/// ` --model NAME`, where it is not the default one.
fn model_option(reference: &Reference) -> String {
    let named = match &reference.profile {
        Some((_, profile)) if MODELS.iter().all(|m| m.name != profile.meta.model) => {
            &profile.meta.model_source
        }
        _ => &reference.geometry.model,
    };
    match named == MODELS[0].name {
        true => String::new(),
        false => format!(" --model {}", quoted(named)),
    }
}

/// The query that a plan's strategy reads, where outputs were measured for it.
fn predicted_query(plan: &BudgetPlan) -> Query {
    match plan.parameters.get("query").and_then(Value::as_str) {
        Some("last") => Query::Last,
        _ => Query::Pooled,
    }
}

fn uniform(reference: &Reference, budget: Budget) -> anyhow::Result<Vec<Vec<usize>>> {
    let request: Request<'_> = reference.request(budget);
    let plan = BudgetPlan::allocate("uniform", json!({}), &request, Provenance::default())?;
    Ok(plan.tokens)
}

fn prompts_in_words(profile: &Profile) -> anyhow::Result<String> {
    let tokens = profile.layers.counts("tokens")?;
    let (least, most) = (tokens.iter().min(), tokens.iter().max());
    Ok(format!(
        "mean over {} prompt{} of {} to {} tokens",
        profile.meta.prompts,
        if profile.meta.prompts == 1 { "" } else { "s" },
        least.unwrap_or(&0),
        most.unwrap_or(&0)
    ))
}

/// A layer's KV heads.
pub struct Layer {
    /// Tokens per KV head.
    pub mean: f64,
    /// The smallest budget.
    pub least: usize,
    /// The largest budget.
    pub most: usize,
    /// Of all tokens of the plan.
    pub share: f64,
}

/// The layers of a plan.
pub fn layers(plan: &BudgetPlan) -> Vec<Layer> {
    let total: usize = plan.tokens.iter().flatten().sum();
    let of = |heads: &Vec<usize>| {
        let sum: usize = heads.iter().sum();
        Layer {
            mean: sum as f64 / heads.len().max(1) as f64,
            least: heads.iter().copied().min().unwrap_or(0),
            most: heads.iter().copied().max().unwrap_or(0),
            share: sum as f64 / total.max(1) as f64,
        }
    };
    plan.tokens.iter().map(of).collect()
}

impl Line<'_> {
    fn to_json(&self) -> Value {
        let plan = self.plan;
        let total: usize = plan.tokens.iter().flatten().sum();
        let layers: Vec<Value> = layers(plan)
            .iter()
            .enumerate()
            .map(|(l, layer)| {
                json!({
                    "layer": l, "tokens": layer.mean, "min": layer.least, "max": layer.most,
                    "share": layer.share,
                })
            })
            .collect();
        json!({
            "out": self.out, "model": plan.geometry.model, "strategy": plan.strategy,
            "parameters": plan.parameters, "granularity": plan.granularity,
            "budget": plan.budget.to_string(), "floor": plan.floor, "sinks": plan.sinks,
            "window": plan.window, "reference_tokens": plan.reference_tokens, "total": total,
            "evicts_nothing": total == plan.geometry.cells() * plan.reference_tokens,
            "layers": layers, "predicted": self.predicted.as_ref().map(Predicted::to_json),
        })
    }
}

impl Predicted {
    fn to_json(&self) -> Value {
        let of = |p: &Prediction| {
            json!({
                "mass": p.mean_mass(), "cosine_loss": p.mean_cosine_loss(),
                "relative_l2": p.mean_relative_l2(),
            })
        };
        json!({
            "query": self.query.name(), "plan": of(&self.plan), "uniform": of(&self.uniform),
        })
    }
}
