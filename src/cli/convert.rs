//! `kvprof convert`: budget plans from and to the formats of other tools.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use kvprof::budget::interchange::{
    BudgetCurve, HeadScores, head_score_plan, layer_ratio_plan, layer_ratios, read_layer_ratios,
    write_layer_ratios,
};
use kvprof::budget::{Budget, BudgetPlan, Floor, Provenance, Request};
use kvprof::files::sha256_hex;
use serde_json::Value;

use super::output_file::{check_writable, refuse_to_overwrite};
use super::reference::{Reference, ReferenceArguments};

/// Arguments of `kvprof convert`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// File to read
    input: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the input is, where its content does not say it
    #[arg(long, value_enum)]
    from: Option<Format>,
    /// What to write; by default lu-kv for .npy, kvpress for a plan, else a plan
    #[arg(long, value_enum)]
    to: Option<Format>,
    #[command(flatten)]
    reference: ReferenceArguments,
    /// A plan of the same model, instead of --profile: its geometry, T, sinks and window
    #[arg(long, value_name = "PLAN.json", conflicts_with_all = ["profile", "model"])]
    like: Option<PathBuf>,
    /// What stays, where the input has many budgets (lu-kv: 12%) or none (headkv: 128 or 12%)
    #[arg(long, allow_hyphen_values = true)]
    budget: Option<String>,
    /// HeadKV's beta: 1/beta of what lies above sinks and window is shared by score
    #[arg(long)]
    beta: Option<f64>,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// Print nothing
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A plan of `kvprof allocate` (JSON)
    Plan,
    /// Compression ratios per layer for kvpress's PerLayerCompressionPress (JSON list)
    Kvpress,
    /// Budget curve of LU-KV: prune ratios of every KV head at 99 global ratios (.npy)
    LuKv,
    /// Head scores of HeadKV (JSON object of "layer-head"), only read
    Headkv,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Kvpress => "kvpress",
            Self::LuKv => "lu-kv",
            Self::Headkv => "headkv",
        }
    }

    fn of_file(path: &Path) -> anyhow::Result<Self> {
        if is_npy(path) {
            return Ok(Self::LuKv);
        }
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Array(_)) => Ok(Self::Kvpress),
            Ok(Value::Object(fields)) if fields.contains_key("schema") => Ok(Self::Plan),
            Ok(Value::Object(_)) => Ok(Self::Headkv),
            _ => anyhow::bail!(
                "{} is neither .npy nor a JSON list or object; say what it is with --from",
                path.display()
            ),
        }
    }
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "npy")
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        check_writable(&self.out)?;
        let from = match self.from {
            Some(format) => format,
            None => Format::of_file(&self.input)?,
        };
        let to = self.to.unwrap_or(match from {
            _ if is_npy(&self.out) => Format::LuKv,
            Format::Plan => Format::Kvpress,
            _ => Format::Plan,
        });
        anyhow::ensure!(
            from != to,
            "{} is in the format {} already; choose another --to",
            self.input.display(),
            to.name()
        );
        anyhow::ensure!(
            to != Format::Headkv,
            "HeadKV's scores are only read: budgets do not tell the scores they came from"
        );
        self.refuse_idle_options(from, to)?;
        let plan = match from {
            Format::Plan => {
                let plan = BudgetPlan::read(&self.input)?;
                // A --tokens that sinks and window fill would convert into keeping everything.
                self.reference.floor(Some(plan.floor()))?;
                plan
            }
            _ => self.import(from)?,
        };
        let tokens = self.reference.tokens.unwrap_or(plan.reference_tokens);
        let note = self.export(&plan, to, tokens)?;
        if !self.quiet {
            let mut out = std::io::stdout().lock();
            let total = plan.tokens_at(tokens)?.iter().flatten().sum::<usize>();
            writeln!(
                out,
                "{} ({}, {:.1} of {tokens} tokens per KV head of {}) written as {} to {}",
                self.input.display(),
                plan.strategy,
                total as f64 / plan.geometry.cells() as f64,
                plan.geometry.model,
                to.name(),
                self.out.display()
            )?;
            writeln!(out, "{note}")?;
        }
        Ok(())
    }

    /// Options that would do nothing are a misunderstanding.
    fn refuse_idle_options(&self, from: Format, to: Format) -> anyhow::Result<()> {
        let named = self.reference.names_a_model() || self.like.is_some();
        let reserved = self.reference.sinks.is_some() || self.reference.window.is_some();
        let anew = to == Format::LuKv && self.reference.model.is_none() && self.like.is_none();
        anyhow::ensure!(
            from != Format::Plan || !(named && !anew || reserved),
            "a plan knows its model, sinks and window: leave --profile, --model, --like, --sinks and \
             --window out (--profile belongs to lu-kv alone, to allocate anew at every global ratio)"
        );
        anyhow::ensure!(
            self.budget.is_none() || [Format::LuKv, Format::Headkv].contains(&from),
            "--budget does nothing here: {} has its own",
            self.input.display()
        );
        anyhow::ensure!(
            self.beta.is_none() || from == Format::Headkv,
            "--beta belongs to HeadKV's scores, {} is {}",
            self.input.display(),
            from.name()
        );
        anyhow::ensure!(
            from == Format::Plan || named,
            "{} says nothing of its model: name a --profile or --model, or a plan that is --like it",
            self.input.display()
        );
        Ok(())
    }

    fn import(&self, from: Format) -> anyhow::Result<BudgetPlan> {
        let reference = match &self.like {
            Some(path) => self.reference_of(&BudgetPlan::read(path)?)?,
            None => self.reference.read(self.quiet)?,
        };
        let path = &self.input;
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let provenance = Provenance {
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: super::command_line(&["--force", "--quiet"]),
            source: Some(path.to_string_lossy().into_owned()),
            source_sha256: Some(sha256_hex(&bytes)),
        };
        // Replaced by what the file's ratios amount to, where it has them.
        let whole = Budget::RetainedFraction(1.0);
        Ok(match from {
            Format::Kvpress => {
                let ratios = read_layer_ratios(path)?;
                layer_ratio_plan(&ratios, &reference.request(whole), provenance)?
            }
            Format::LuKv => {
                let percent = self.removed_percent()?;
                let curve = BudgetCurve::read(path)?;
                curve.plan(percent, &reference.request(whole), provenance)?
            }
            Format::Headkv => {
                let text = self.budget.as_deref().context(
                    "HeadKV's scores have no budget of their own: give --budget 128, or --budget 12%",
                )?;
                let beta = self.beta.context(
                    "--beta is needed for HeadKV's scores: 1 spreads everything by score, larger \
                     values less of it",
                )?;
                let request = reference.request(text.parse()?);
                head_score_plan(&HeadScores::read(path)?, beta, &request, provenance)?
            }
            Format::Plan => BudgetPlan::read(path)?,
        })
    }

    /// Geometry, T, sinks and window of another plan, unless given.
    fn reference_of(&self, plan: &BudgetPlan) -> anyhow::Result<Reference> {
        Ok(Reference {
            geometry: plan.geometry.clone(),
            profile: None,
            tokens: self.reference.tokens.unwrap_or(plan.reference_tokens),
            floor: self.reference.floor(Some(plan.floor()))?,
        })
    }

    /// The global ratio in per cent, from the share that stays.
    fn removed_percent(&self) -> anyhow::Result<usize> {
        let text = self.budget.as_deref().context(
            "a budget curve holds 99 budgets: choose one with --budget, such as --budget 12%",
        )?;
        let kept = (1..100).find(|kept| {
            let whole: Result<Budget, _> = format!("{kept}%").parse();
            whole.is_ok_and(|whole| text.parse().is_ok_and(|given: Budget| given == whole))
        });
        kept.map(|kept| 100 - kept).with_context(|| {
            format!("--budget is {text}, but a budget curve has whole per cents, 1% to 99%")
        })
    }

    /// The plan's shares at every global ratio; with a profile, its strategy's own answer.
    fn curve(&self, plan: &BudgetPlan, tokens: usize) -> anyhow::Result<(BudgetCurve, String)> {
        if self.reference.profile.is_none() {
            let how = "the plan's shares".to_owned();
            return Ok((BudgetCurve::of_plan(plan, tokens)?, how));
        }
        let mut reference = self.reference.read(self.quiet)?;
        plan.check_geometry(&reference.geometry)?;
        (reference.tokens, reference.floor) = (tokens, Floor::of(plan.sinks, plan.window));
        let mut removed = 0;
        let curve = BudgetCurve::of_tokens(tokens, |percent| {
            removed = percent;
            let budget: Budget = format!("{}%", 100 - percent).parse()?;
            let request = reference.request(budget).by(plan.granularity);
            // What is left is spread evenly where it is no more than sinks and window.
            let (strategy, parameters, request) = match request.total() {
                total if total > (request.lowest() + 1) * plan.geometry.cells() => {
                    (plan.strategy.as_str(), plan.parameters.clone(), request)
                }
                _ => {
                    let floor = Floor::of(0, 0);
                    ("uniform", Value::Null, Request { floor, ..request })
                }
            };
            let made = BudgetPlan::allocate(strategy, parameters, &request, Provenance::default())?;
            Ok(made.tokens)
        });
        let curve = curve.with_context(|| {
            format!("allocating with {removed} % removed (without --profile, the plan's own shares serve)")
        })?;
        Ok((curve, format!("allocated anew by {}", plan.strategy)))
    }

    /// Writes the plan in another format; gives a line on what to do with it.
    fn export(&self, plan: &BudgetPlan, to: Format, tokens: usize) -> anyhow::Result<String> {
        let (out, force) = (&self.out, self.force);
        match to {
            Format::Kvpress => {
                let kept = plan.tokens_at(tokens)?;
                let ratios = layer_ratios(&kept, tokens)?;
                let same = || read_layer_ratios(out).is_ok_and(|old| old == ratios);
                refuse_to_overwrite(out, force, same)?;
                write_layer_ratios(out, &ratios)?;
                let heads = plan.geometry.kv_heads;
                let least = kept.iter().filter_map(|layer| layer.iter().min());
                let (meant, written) = (
                    kept.iter().flatten().sum::<usize>(),
                    least.sum::<usize>() * heads,
                );
                let lost = match meant - written {
                    0 => String::new(),
                    n => format!(
                        " ({n} of {meant} tokens are lost: one ratio serves all heads of a layer)"
                    ),
                };
                Ok(format!(
                    "In Python: PerLayerCompressionPress(press=.., compression_ratios=json.load(open({:?}))){lost}",
                    out.display().to_string()
                ))
            }
            Format::LuKv => {
                let (curve, how) = self.curve(plan, tokens)?;
                let same = || BudgetCurve::read(out).is_ok_and(|old| old == curve);
                refuse_to_overwrite(out, force, same)?;
                curve.write(out)?;
                let (layers, heads) = curve.shape();
                Ok(format!(
                    "Array [99, {layers}, {heads}] for LUKVPress: {how} at every global ratio"
                ))
            }
            Format::Plan | Format::Headkv => {
                let same = || BudgetPlan::read(out).is_ok_and(|old| old.allocates_like(plan));
                refuse_to_overwrite(out, force, same)?;
                plan.write(out)?;
                let file = super::quoted(&out.to_string_lossy());
                Ok(format!("Next: kvprof plot budgets --plan {file}"))
            }
        }
    }
}
