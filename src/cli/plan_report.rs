//! What `kvprof allocate` knows of plans: tokens per layer, and what the profile predicts of them.

use std::io::{self, Write};
use std::path::PathBuf;

use kvprof::budget::{
    Budget, BudgetPlan, Prediction, Predictor, Provenance, Request, TokenBudgets, are_alike,
    error_with_types, fit_bytes, longest_prompt,
};
use kvprof::model::cache::Representation;
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
    /// Mean relative L2 with what the plan's types cost, where the profile knows it.
    pub with_types: Option<f64>,
    /// Of the uniform plan of the same budget: as many tokens, or as many bytes in float32 where the plan says what it is
    /// held in; `None` where so few bytes hold not even the floor.
    pub uniform: Option<Prediction>,
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
                Some(predictor) => {
                    let own = predictor.predict(&plan.tokens)?;
                    let uniform = uniform(reference, plan)?;
                    let uniform = uniform.map(|tokens| predictor.predict(&tokens));
                    Some(Predicted {
                        query,
                        with_types: with_types(reference, plan, query, &own)?,
                        plan: own,
                        uniform: uniform.transpose()?,
                    })
                }
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

/// Tokens of the uniform plan that is compared; see [`Predicted::uniform`].
fn uniform(reference: &Reference, plan: &BudgetPlan) -> anyhow::Result<Option<TokenBudgets>> {
    let uniform = |budget: Budget| {
        let request: Request<'_> = reference.request(budget);
        BudgetPlan::allocate("uniform", json!({}), &request, Provenance::default())
    };
    if plan.held_as.is_empty() {
        return Ok(Some(uniform(plan.budget)?.tokens));
    }
    let whole = Representation::FLOAT32;
    let bytes = |plan: &BudgetPlan| plan.layer_bytes(whole).iter().sum();
    let alike = |plan: &BudgetPlan| are_alike(&plan.tokens);
    let fitted = fit_bytes(reference.parts(), 1, bytes(plan), &alike, &uniform, &bytes);
    Ok(fitted.ok().map(|plan| plan.tokens))
}

/// What a plan's types and tokens cost together, where both were measured for the query.
fn with_types(
    reference: &Reference,
    plan: &BudgetPlan,
    query: Query,
    own: &Prediction,
) -> anyhow::Result<Option<f64>> {
    match &reference.profile {
        Some((_, profile)) if query == Query::Pooled => {
            Ok(error_with_types(profile, plan, &own.relative_l2)?)
        }
        _ => Ok(None),
    }
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
    /// What its heads are held in, where the plan says so, and their bytes.
    pub held: Option<(String, usize)>,
}

/// The layers of a plan.
pub fn layers(plan: &BudgetPlan) -> Vec<LayerTokens> {
    let total = plan.spent();
    let bytes = plan.layer_bytes(Representation::FLOAT32);
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
            held: plan.held_as.get(l).map(|heads| (in_words(heads), bytes[l])),
        }
    };
    plan.tokens.iter().enumerate().map(of).collect()
}

/// The types of a layer's KV heads, said once where they are alike.
fn in_words(heads: &[Representation]) -> String {
    let mut words: Vec<String> = heads.iter().map(ToString::to_string).collect();
    words.dedup();
    words.join("; ")
}

impl<'a> PlanLine<'a> {
    /// A plan by itself, of which nothing is predicted.
    pub fn of(plan: &'a BudgetPlan) -> Self {
        Self {
            plan,
            out: None,
            predicted: None,
        }
    }

    /// Its layers, with what is predicted of them.
    pub fn to_json(&self) -> Value {
        let plan = self.plan;
        let (_, most) = plan.parts();
        let total = plan.spent();
        let object = |(l, layer): (usize, &LayerTokens)| {
            let mut object = json!({
                "layer": l, "tokens": layer.mean, "min": layer.least, "max": layer.most,
                "share": layer.share, "span": plan.geometry.span(l, plan.reference_tokens),
                "takes_part": plan.takes_part(l),
            });
            if let Some((_, bytes)) = layer.held {
                object["held_as"] = json!(plan.held_as[l]);
                object["bytes"] = bytes.into();
            }
            object
        };
        let layers: Vec<Value> = layers(plan).iter().enumerate().map(object).collect();
        let mut json = json!({
            "out": self.out, "model": plan.geometry.model, "strategy": plan.strategy,
            "parameters": plan.parameters, "granularity": plan.granularity,
            "budget": plan.budget.to_string(), "floor": plan.floor, "sinks": plan.sinks,
            "window": plan.window, "reference_tokens": plan.reference_tokens, "total": total,
            "evicts_nothing": total == most,
            "layers": layers, "predicted": self.predicted.as_ref().map(Predicted::to_json),
        });
        if let Some(certificate) = &plan.provenance.certificate {
            json["certificate"] = json!(certificate);
        }
        if !plan.held_as.is_empty() {
            let bytes = plan.layer_bytes(Representation::FLOAT32);
            json["bytes"] = bytes.iter().sum::<usize>().into();
        }
        json
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
        let mut json = json!({
            "query": self.query.name(), "plan": of(&self.plan),
            "uniform": self.uniform.as_ref().map(of),
        });
        if let Some(error) = self.with_types {
            json["plan"]["relative_l2_with_types"] = error.into();
        }
        json
    }
}
