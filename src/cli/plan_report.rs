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
use super::reference::Reference;
use super::{counted, quoted};

/// Plans with their files and predictions.
pub struct PlanReport<'a> {
    lines: Vec<PlanLine<'a>>,
    /// The prompts that predictions are means over, in words.
    prompts: Option<String>,
    /// Why there is no prediction where there is a profile.
    unpredicted: Option<String>,
    /// How `kvprof generate` names the model; nothing for the default one.
    model: String,
}

/// A plan with what is said of it.
pub struct PlanLine<'a> {
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

impl<'a> PlanReport<'a> {
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
        let elsewhere = prompts.as_ref().filter(|_| profile.is_none());
        let unpredicted = elsewhere.map(|prompts| {
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
            lines.push(PlanLine {
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
        let plans: Vec<Value> = self.lines.iter().map(PlanLine::to_json).collect();
        super::print_json(&json!({ "plans": plans }))
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
        let named = |line: &PlanLine<'_>| Some(quoted(&line.out?.to_string_lossy()));
        let files: Vec<String> = self.lines.iter().filter_map(named).collect();
        let Some(file) = files.first() else {
            writeln!(out, "Nothing is written without --out. Next: {suggestion}")?;
            return Ok(());
        };
        let plans: Vec<String> = files.iter().map(|f| format!("--plan {f}")).collect();
        writeln!(
            out,
            "Written to {}\nNext: kvprof plot budgets {}\n      \
             kvprof generate --data wikimqa-style-2k --compare{} --plan {file}",
            files.join(", "),
            plans.join(" "),
            self.model,
        )?;
        Ok(())
    }
}

/// ` --model NAME`, where it is not the default one.
fn model_option(reference: &Reference) -> String {
    let named = match &reference.profile {
        Some((_, profile)) if MODELS.iter().all(|m| m.name != profile.meta.model.name) => {
            &profile.meta.model.source
        }
        _ => &reference.geometry.model,
    };
    if named == MODELS[0].name {
        return String::new();
    }
    format!(" --model {}", quoted(named))
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
        "mean over {} of {} to {} tokens",
        counted(profile.meta.data.prompts, "prompt"),
        least.unwrap_or(&0),
        most.unwrap_or(&0)
    ))
}

/// A layer's KV heads.
pub struct LayerTokens {
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
pub fn layers(plan: &BudgetPlan) -> Vec<LayerTokens> {
    let total = plan.spent();
    let of = |(l, heads): (usize, &Vec<usize>)| {
        let sum: usize = heads.iter().sum();
        LayerTokens {
            mean: sum as f64 / heads.len().max(1) as f64,
            least: heads.iter().copied().min().unwrap_or(0),
            most: heads.iter().copied().max().unwrap_or(0),
            share: if plan.takes_part(l) {
                sum as f64 / total.max(1) as f64
            } else {
                0.0
            },
        }
    };
    plan.tokens.iter().enumerate().map(of).collect()
}

impl PlanLine<'_> {
    fn to_json(&self) -> Value {
        let plan = self.plan;
        let (_, most) = plan.parts();
        let total = plan.spent();
        let object = |(l, layer): (usize, &LayerTokens)| {
            json!({
                "layer": l, "tokens": layer.mean, "min": layer.least, "max": layer.most,
                "share": layer.share, "span": plan.geometry.span(l, plan.reference_tokens),
                "takes_part": plan.takes_part(l),
            })
        };
        let layers: Vec<Value> = layers(plan).iter().enumerate().map(object).collect();
        json!({
            "out": self.out, "model": plan.geometry.model, "strategy": plan.strategy,
            "parameters": plan.parameters, "granularity": plan.granularity,
            "budget": plan.budget.to_string(), "floor": plan.floor, "sinks": plan.sinks,
            "window": plan.window, "reference_tokens": plan.reference_tokens, "total": total,
            "evicts_nothing": total == most,
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
