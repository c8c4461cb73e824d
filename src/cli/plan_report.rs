//! What `kvprof allocate` says of plans: tokens per layer, and what the profile predicts of them.

use std::io::{self, Write};
use std::path::PathBuf;

use kvprof::budget::{Budget, BudgetPlan, Granularity, Prediction, Predictor, Provenance, Request};
use kvprof::profile::{Profile, Query};
use serde_json::{Value, json};

use super::quoted;
use super::reference::Reference;

/// Widest bar, in characters.
const BAR: usize = 24;

/// Plans with their files and predictions.
pub struct Report<'a> {
    lines: Vec<Line<'a>>,
    /// The prompts that predictions are means over, in words.
    prompts: Option<String>,
}

struct Line<'a> {
    plan: &'a BudgetPlan,
    out: Option<&'a PathBuf>,
    predicted: Option<Predicted>,
}

/// What a plan keeps and loses, beside the same budget for every head.
struct Predicted {
    query: Query,
    plan: Prediction,
    uniform: Prediction,
}

impl<'a> Report<'a> {
    /// Predicts every plan, where there is a profile.
    pub fn of(
        reference: &Reference,
        plans: &'a [BudgetPlan],
        outs: &'a [Option<PathBuf>],
    ) -> anyhow::Result<Self> {
        let profile = reference.profile.as_ref().map(|(_, profile)| profile);
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
        let prompts = profile.map(prompts_in_words).transpose()?;
        Ok(Self { lines, prompts })
    }

    /// Prints JSON.
    pub fn write_json(&self) -> anyhow::Result<()> {
        let plans: Vec<Value> = self.lines.iter().map(Line::to_json).collect();
        let text = serde_json::to_string_pretty(&json!({ "plans": plans }))?;
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// Prints a table per plan, and what to type next; `suggestion` writes what was only shown.
    pub fn write(&self, suggestion: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        for line in &self.lines {
            line.write(&mut out, self.prompts.as_deref())?;
            writeln!(out)?;
        }
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
            }
        }
        Ok(())
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
struct Layer {
    mean: f64,
    least: usize,
    most: usize,
    /// Of all tokens of the plan.
    share: f64,
}

fn layers(plan: &BudgetPlan) -> Vec<Layer> {
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
            "layers": layers, "predicted": self.predicted.as_ref().map(Predicted::to_json),
        })
    }

    fn write(&self, out: &mut impl Write, prompts: Option<&str>) -> io::Result<()> {
        let plan = self.plan;
        let cells = plan.geometry.cells();
        let total: usize = plan.tokens.iter().flatten().sum();
        writeln!(
            out,
            "{} by {} for {}: {:.1} of {} tokens per KV head ({:.1} %), {total} in {} layers of {} KV heads",
            plan.strategy,
            plan.granularity.name(),
            plan.geometry.model,
            total as f64 / cells as f64,
            plan.reference_tokens,
            100.0 * total as f64 / (cells * plan.reference_tokens) as f64,
            plan.geometry.layers,
            plan.geometry.kv_heads,
        )?;
        writeln!(
            out,
            "every KV head keeps at least {} tokens; sinks {} and window {} among them",
            plan.floor, plan.sinks, plan.window
        )?;
        if total == cells * plan.reference_tokens {
            writeln!(out, "the budget holds the whole prompt: nothing is evicted")?;
        }
        writeln!(out)?;
        self.write_layers(out)?;
        match (&self.predicted, prompts) {
            (Some(predicted), Some(prompts)) => predicted.write(out, &plan.strategy, prompts),
            _ => Ok(()),
        }
    }

    fn write_layers(&self, out: &mut impl Write) -> io::Result<()> {
        let by_head = self.plan.granularity == Granularity::Head;
        let range = |least: String, most: String| match by_head {
            true => format!("  {least:>5}  {most:>5}"),
            false => String::new(),
        };
        let heading = range("min".into(), "max".into());
        writeln!(out, "layer   tokens{heading}  of total")?;
        let layers = layers(self.plan);
        let widest = layers.iter().map(|l| l.mean).fold(1.0, f64::max);
        for (l, layer) in layers.iter().enumerate() {
            let filled = (layer.mean / widest * BAR as f64).round() as usize;
            writeln!(
                out,
                "{l:>5}  {:>7.1}{}  {:>6.1} %  {}",
                layer.mean,
                range(layer.least.to_string(), layer.most.to_string()),
                100.0 * layer.share,
                "█".repeat(filled)
            )?;
        }
        Ok(())
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

    fn write(&self, out: &mut impl Write, strategy: &str, prompts: &str) -> io::Result<()> {
        writeln!(
            out,
            "\nPredicted by the profile's curves ({}, {prompts}):",
            self.query.name()
        )?;
        let width = strategy.len().max("uniform".len());
        writeln!(out, "{:width$}  retained mass  1 - cos of the output", "")?;
        let mut row = |name: &str, p: &Prediction| {
            let loss = p
                .mean_cosine_loss()
                .map_or("-".to_owned(), |x| format!("{x:.5}"));
            let mass = 100.0 * p.mean_mass();
            writeln!(out, "{name:width$}  {mass:>11.2} %  {loss:>21}")
        };
        row(strategy, &self.plan)?;
        if strategy != "uniform" {
            row("uniform", &self.uniform)?;
        }
        if self.plan.mean_cosine_loss().is_none() {
            writeln!(
                out,
                "- outputs were measured with equal KV heads in a layer"
            )?;
        }
        Ok(())
    }
}
