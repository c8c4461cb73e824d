//! `kvprof convert`: budget plans from and to the formats of other tools.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use kvprof::budget::interchange::{
    BudgetCurve, EvenRows, GLOBAL_RATIOS, HeadScores, PlanCurve, head_score_plan, is_npy,
    layer_ratio_plan, layer_ratios, plan_curve, read_json, read_layer_ratios, write_layer_ratios,
};
use kvprof::budget::{Budget, BudgetPlan, Provenance};
use kvprof::files::sha256_hex;
use kvprof::profile::Profile;
use serde_json::Value;

use super::output_file::{check_writable, refuse_to_overwrite};
use super::reference::{Reference, ReferenceArguments};

/// Arguments of `kvprof convert`.
#[derive(Debug, clap::Args)]
pub struct ConvertArguments {
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
    to: Option<Target>,
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

/// The budget of a request whose input has one: this is replaced by what the file's ratios amount to.
const REPLACED: Budget = Budget::RetainedFraction(1.0);

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

/// Formats that are written: HeadKV's scores are not, since budgets do not tell the scores they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// A plan (JSON)
    Plan,
    /// Compression ratios per layer for kvpress's PerLayerCompressionPress (JSON list)
    Kvpress,
    /// Budget curve of LU-KV (.npy)
    LuKv,
}

impl Format {
    fn of_file(path: &Path) -> anyhow::Result<Self> {
        if is_called_npy(path) || is_npy(path) {
            return Ok(Self::LuKv);
        }
        match read_json(path, "is neither .npy nor JSON")? {
            Value::Array(_) => Ok(Self::Kvpress),
            Value::Object(fields) if fields.contains_key("schema") => Ok(Self::Plan),
            Value::Object(_) => Ok(Self::Headkv),
            _ => anyhow::bail!(
                "{} is neither .npy nor a JSON list or object; say what it is with --from",
                path.display()
            ),
        }
    }
}

/// The name of a format on the command line.
fn name(format: impl ValueEnum) -> String {
    let value = format.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_owned())
}

fn is_called_npy(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "npy")
}

impl ConvertArguments {
    pub fn run(self) -> anyhow::Result<()> {
        check_writable(&self.out)?;
        let input = self.input.display();
        std::fs::metadata(&self.input).with_context(|| format!("reading {input}"))?;
        let from = match self.from {
            Some(format) => format,
            None => Format::of_file(&self.input)?,
        };
        let to = self.to.unwrap_or(match from {
            _ if is_called_npy(&self.out) => Target::LuKv,
            Format::Plan => Target::Kvpress,
            _ => Target::Plan,
        });
        anyhow::ensure!(
            name(from) != name(to),
            "{input} is in the format {} already; choose another --to",
            name(to)
        );
        self.refuse_idle_options(from, to)?;
        let (plan, of_input) = self.read(from)?;
        let tokens = self.reference.tokens.unwrap_or(plan.reference_tokens);
        let of_output = self.write(&plan, to, tokens)?;
        if self.quiet {
            return Ok(());
        }
        let total = plan.tokens_at(tokens)?.iter().flatten().sum::<usize>();
        let of_input = of_input.map_or(String::new(), |note| note + "\n");
        writeln!(
            std::io::stdout().lock(),
            "{input} ({}, {:.1} of {tokens} tokens per KV head of {}) written as {} to {}\n{of_input}{of_output}",
            plan.strategy,
            total as f64 / plan.geometry.cells() as f64,
            plan.geometry.model,
            name(to),
            self.out.display()
        )?;
        Ok(())
    }

    /// Options that would do nothing are a misunderstanding.
    fn refuse_idle_options(&self, from: Format, to: Target) -> anyhow::Result<()> {
        let named = self.reference.names_a_model() || self.like.is_some();
        let reserved = self.reference.sinks.is_some() || self.reference.window.is_some();
        let anew = to == Target::LuKv && self.reference.model.is_none() && self.like.is_none();
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
            name(from)
        );
        anyhow::ensure!(
            from == Format::Plan || named,
            "{} says nothing of its model: name a --profile or --model, or a plan that is --like it",
            self.input.display()
        );
        Ok(())
    }

    /// The input as a plan, and a line on what had to be changed in it.
    fn read(&self, from: Format) -> anyhow::Result<(BudgetPlan, Option<String>)> {
        let plan = match from {
            Format::Plan => self.read_plan(),
            Format::Kvpress => self.read_layer_ratios(),
            Format::LuKv => return self.read_budget_curve(),
            Format::Headkv => self.read_head_scores(),
        };
        Ok((plan?, None))
    }

    fn read_plan(&self) -> anyhow::Result<BudgetPlan> {
        let plan = BudgetPlan::read(&self.input)?;
        // A --tokens that sinks and window fill would convert into keeping everything.
        self.reference.floor(Some(plan.floor()))?;
        Ok(plan)
    }

    fn read_layer_ratios(&self) -> anyhow::Result<BudgetPlan> {
        let reference = self.reference()?;
        let request = reference.request(REPLACED);
        let ratios = read_layer_ratios(&self.input)?;
        Ok(layer_ratio_plan(&ratios, &request, self.provenance()?)?)
    }

    fn read_budget_curve(&self) -> anyhow::Result<(BudgetPlan, Option<String>)> {
        let reference = self.reference()?;
        let request = reference.request(REPLACED);
        let percent = self.removed_percent()?;
        let curve = BudgetCurve::read(&self.input)?;
        let plan = curve.plan(percent, &request, self.provenance()?)?;
        let note = match curve.heads_below_floor(percent, &request)? {
            0 => None,
            raised => Some(format!(
                "{raised} of {} heads had less than the floor of {} tokens: they were raised to it, at the \
                 cost of the others in proportion to what these have above it",
                plan.geometry.cells(),
                request.lowest()
            )),
        };
        Ok((plan, note))
    }

    fn read_head_scores(&self) -> anyhow::Result<BudgetPlan> {
        let reference = self.reference()?;
        let text = self.budget.as_deref().context(
            "HeadKV's scores have no budget of their own: give --budget 128, or --budget 12%",
        )?;
        let beta = self.beta.context(
            "--beta is needed for HeadKV's scores: 1 spreads everything by score, larger values less of it",
        )?;
        let request = reference.request(text.parse()?);
        let scores = HeadScores::read(&self.input)?;
        let provenance = self.provenance()?;
        Ok(head_score_plan(&scores, beta, &request, provenance)?)
    }

    /// The model that the input says nothing of.
    fn reference(&self) -> anyhow::Result<Reference> {
        match &self.like {
            Some(path) => self.reference_of(&BudgetPlan::read(path)?),
            None => self.reference.read(self.quiet),
        }
    }

    fn provenance(&self) -> anyhow::Result<Provenance> {
        let path = &self.input;
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Provenance {
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: super::command_line(&["--force", "--quiet"]),
            source: Some(path.to_string_lossy().into_owned()),
            source_sha256: Some(sha256_hex(&bytes)),
            certificate: None,
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

    /// Writes the plan in another format; gives a line on what to do with it.
    fn write(&self, plan: &BudgetPlan, to: Target, tokens: usize) -> anyhow::Result<String> {
        anyhow::ensure!(
            plan.held_as.is_empty() || matches!(to, Target::Plan),
            "the plan says what its keys and values are held in, which files of kvpress and LU-KV cannot: allocate \
             tokens alone"
        );
        match to {
            Target::Plan => self.write_plan(plan),
            Target::Kvpress => self.write_layer_ratios(plan, tokens),
            Target::LuKv => self.write_budget_curve(plan, tokens),
        }
    }

    fn write_plan(&self, plan: &BudgetPlan) -> anyhow::Result<String> {
        let out = &self.out;
        let same = || BudgetPlan::read(out).is_ok_and(|old| old.allocates_like(plan));
        refuse_to_overwrite(out, self.force, same)?;
        plan.write(out)?;
        let file = super::quoted(&out.to_string_lossy());
        Ok(format!("Next: kvprof plot budgets --plan {file}"))
    }

    fn write_layer_ratios(&self, plan: &BudgetPlan, tokens: usize) -> anyhow::Result<String> {
        let out = &self.out;
        plan.geometry.refuse_windows("kvpress's ratios of")?;
        let kept = plan.tokens_at(tokens)?;
        let ratios = layer_ratios(&kept, tokens)?;
        let same = || read_layer_ratios(out).is_ok_and(|old| old == ratios);
        refuse_to_overwrite(out, self.force, same)?;
        write_layer_ratios(out, &ratios)?;
        let least = kept.iter().filter_map(|layer| layer.iter().min());
        let written = least.sum::<usize>() * plan.geometry.kv_heads;
        let meant = kept.iter().flatten().sum::<usize>();
        let lost = match meant - written {
            0 => String::new(),
            n => {
                format!(" ({n} of {meant} tokens are lost: one ratio serves all heads of a layer)")
            }
        };
        Ok(format!(
            "In Python: PerLayerCompressionPress(press=.., compression_ratios=json.load(open({:?}))){lost}",
            out.display().to_string()
        ))
    }

    /// The plan's shares at every global ratio; with a profile, its strategy's own answer.
    fn write_budget_curve(&self, plan: &BudgetPlan, tokens: usize) -> anyhow::Result<String> {
        let (out, folder) = (&self.out, self.reference.profile.as_deref());
        let profile = folder.map(|folder| Profile::load(folder).context("reading the profile"));
        let profile = profile.transpose()?;
        let made = plan_curve(plan, profile.as_ref(), tokens);
        let PlanCurve { curve, even } = match &profile {
            None => made?,
            Some(_) => made.with_context(|| {
                format!(
                    "allocating anew by {} at every global ratio (without --profile, the plan's own shares serve)",
                    plan.strategy
                )
            })?,
        };
        let same = || BudgetCurve::read(out).is_ok_and(|old| old == curve);
        refuse_to_overwrite(out, self.force, same)?;
        curve.write(out)?;
        let (layers, heads) = curve.shape();
        let how = match &profile {
            None => "the plan's shares".to_owned(),
            Some(_) => format!("allocated anew by {}", plan.strategy),
        };
        let even = even.map(in_words).unwrap_or_default();
        Ok(format!(
            "Array [{GLOBAL_RATIOS}, {layers}, {heads}] for LUKVPress: {how} at every global ratio{even}"
        ))
    }
}

fn in_words(even: EvenRows) -> String {
    let (from, floor) = (even.from_percent, even.floor);
    let (rows, left) = if from == GLOBAL_RATIOS {
        (
            format!("the row of {GLOBAL_RATIOS} % removed leaves"),
            "it leaves",
        )
    } else {
        let rows = format!("rows from {from} % to {GLOBAL_RATIOS} % removed leave");
        (rows, "they leave")
    };
    format!("; {rows} less than the floor of {floor} tokens per head: what {left} is spread evenly")
}
