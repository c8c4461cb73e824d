//! A budget on disk: shares, what they were made from, and the tokens they give at one prompt length.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ALLOCATORS;
use super::amount::Budget;
use super::certificate::Certificate;
use super::fit::{TokenBudgets, fit};
use super::floor::Floor;
use super::geometry::{Geometry, Granularity};
use super::json_problem::json_problem;
use super::readable_json::readable_json;
use super::request::{Request, Targets};
use super::room::Room;
use crate::error::{Error, Result};
use crate::files;
use crate::model::cache::Representation;
use crate::profile::{QUANTISATION, TABLES};
use crate::registry;

/// Version of a plan's layout; readers refuse others.
pub const PLAN_SCHEMA: u32 = 1;

/// Where a plan came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of kvprof that allocated.
    pub kvprof: String,
    /// Command line that repeats the allocation.
    pub command: String,
    /// Profile folder or imported file, where one was read.
    pub source: Option<String>,
    /// SHA-256 of that file, or of the profile's files as [`profile_digest`] takes it.
    pub source_sha256: Option<String>,
    /// What is certified of the budget; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<Certificate>>,
}

/// How much of every prompt each KV head of a model may keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetPlan {
    /// Layout version, [`PLAN_SCHEMA`].
    pub schema: u32,
    /// Name of the allocator, or of the format it was imported from; any other name may stand in a plan that was
    /// made by hand or by another tool, which can be served but not allocated again.
    pub strategy: String,
    /// The strategy's parameters in full, a JSON object.
    pub parameters: Value,
    /// Whether the KV heads of a layer may differ.
    pub granularity: Granularity,
    /// How much cache may stay.
    pub budget: Budget,
    /// Tokens every KV head keeps at least; sinks and window are among them.
    pub floor: usize,
    /// First tokens of the prompt that always stay.
    pub sinks: usize,
    /// Last tokens of the prompt that always stay.
    pub window: usize,
    /// Whether layers with a window keep all that they see, apart from the budget.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_windows: bool,
    /// Share of what lies above the floor, `[L][H_kv]`, summing to 1.
    pub shares: Vec<Vec<f64>>,
    /// Prompt length T that the plan was worked out for.
    pub reference_tokens: usize,
    /// Tokens at that length, `[L][H_kv]`; other lengths are fitted from the shares.
    pub tokens: TokenBudgets,
    /// What the keys and values of every KV head are held in, `[L][H_kv]`; absent where the plan says nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_as: Vec<Vec<Representation>>,
    /// The model it is for.
    pub geometry: Geometry,
    /// Where it came from.
    pub provenance: Provenance,
}

/// The one field that says whether the others can be read.
#[derive(Deserialize)]
struct Layout {
    schema: u32,
}

impl BudgetPlan {
    /// Allocates by the strategy called `strategy` with JSON `parameters`.
    ///
    /// Errors: those of [`registry::build`], [`Request::check`], the strategy and [`fit()`].
    pub fn allocate(
        strategy: &str,
        parameters: Value,
        request: &Request<'_>,
        provenance: Provenance,
    ) -> Result<Self> {
        let allocator = registry::build("strategy", ALLOCATORS, strategy, parameters)?;
        request.check()?;
        let targets = request.ask(&*allocator)?;
        let parameters = allocator.parameters();
        Self::of_targets(strategy, parameters, request, &targets, provenance)
    }

    /// Makes targets, from wherever they are, into a plan.
    ///
    /// Errors: those of [`Request::check`] and [`fit()`]; [`Error::Invalid`] for another number of
    /// targets than the model has KV heads.
    pub fn of_targets(
        strategy: &str,
        parameters: Value,
        request: &Request<'_>,
        targets: &Targets,
        provenance: Provenance,
    ) -> Result<Self> {
        request.check()?;
        let geometry = request.geometry.clone();
        if targets.tokens.len() != geometry.cells() {
            let bound = format!("the model has {}", geometry.numbers());
            let count = targets.tokens.len();
            return Err(Error::invalid("number of budgets", count, bound));
        }
        let floor = Floor {
            tokens: targets.floor.max(request.floor.tokens),
            ..request.floor
        };
        let shares = geometry.by_layer(&targets.shares());
        Ok(Self {
            schema: PLAN_SCHEMA,
            strategy: strategy.to_owned(),
            parameters,
            granularity: request.granularity,
            budget: request.budget,
            floor: floor.tokens,
            sinks: floor.sinks,
            window: floor.window,
            whole_windows: floor.whole_windows,
            tokens: fit(&shares, request.budget, &floor, request.room())?,
            shares,
            reference_tokens: request.tokens,
            held_as: Vec::new(),
            geometry,
            provenance,
        })
    }

    /// The same with other shares of what lies above the floor, `[L][H_kv]`, of any positive sum.
    ///
    /// Errors: those of [`fit()`].
    pub fn with_shares(&self, shares: Vec<Vec<f64>>) -> Result<Self> {
        let sum: f64 = shares.iter().flatten().sum();
        let shares: Vec<Vec<f64>> = (shares.into_iter())
            .map(|heads| heads.into_iter().map(|share| share / sum).collect())
            .collect();
        Ok(Self {
            tokens: fit(
                &shares,
                self.budget,
                &self.floor(),
                self.room(self.reference_tokens),
            )?,
            shares,
            ..self.clone()
        })
    }

    /// What every KV head keeps at least.
    pub fn floor(&self) -> Floor {
        Floor {
            tokens: self.floor,
            sinks: self.sinks,
            window: self.window,
            whole_windows: self.whole_windows,
        }
    }

    /// What every layer can use of a prompt of `tokens`.
    pub fn room(&self, tokens: usize) -> Room {
        Room::of(&self.geometry, self.whole_windows, tokens)
    }

    /// Tokens that it spends on the layers that take part, at the reference length.
    pub fn spent(&self) -> usize {
        let room = self.room(self.reference_tokens);
        let parts = self.tokens.iter().enumerate();
        let parts = parts.filter(|(l, _)| room.takes_part(*l));
        parts.flat_map(|(_, heads)| heads).sum()
    }

    /// KV heads that take part, and the most tokens that they can use of the reference prompt.
    pub fn parts(&self) -> (usize, usize) {
        let room = self.room(self.reference_tokens);
        room.of_parts(self.geometry.layers, self.geometry.kv_heads)
    }

    /// Whether a layer's tokens are part of the budget.
    pub fn takes_part(&self, layer: usize) -> bool {
        self.room(self.reference_tokens).takes_part(layer)
    }

    /// Tokens that each KV head keeps of a prompt of `tokens`.
    ///
    /// Errors: [`Error::Invalid`] where the budget is below the floor for such a prompt.
    pub fn tokens_at(&self, tokens: usize) -> Result<TokenBudgets> {
        fit(&self.shares, self.budget, &self.floor(), self.room(tokens))
    }

    /// Refuses a model of another geometry.
    ///
    /// Weights of another name or digest are not refused, since a plan may be tried on a fine-tuned or
    /// differently quantised model; see [`Self::for_other_weights`].
    ///
    /// Errors: [`Error::Invalid`] with both geometries.
    pub fn check_geometry(&self, model: &Geometry) -> Result<()> {
        if self.geometry.same_numbers(model) {
            return Ok(());
        }
        let plan = format!(
            "that of {} ({})",
            self.geometry.model,
            self.geometry.numbers()
        );
        let bound = format!(
            "the model {} has {}: allocate a plan from a profile of this model",
            model.model,
            model.numbers()
        );
        Err(Error::invalid("geometry of the plan", plan, bound))
    }

    /// Whether the plan is known to be made for other weights than those of `model`.
    pub fn for_other_weights(&self, model: &Geometry) -> bool {
        let (mine, theirs) = (&self.geometry.model_sha256, &model.model_sha256);
        !mine.is_empty() && !theirs.is_empty() && mine != theirs
    }

    /// Whether the plans differ in nothing but where they came from.
    pub fn allocates_like(&self, other: &Self) -> bool {
        let provenance = other.provenance.clone();
        let alike = Self {
            provenance,
            ..self.clone()
        };
        alike == *other
    }

    /// Reads a plan and checks everything in it.
    ///
    /// A strategy that no registry knows is no error: shares say all that serving a prompt needs.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for what is no plan, has another layout, an unknown
    /// field, shares that cannot be, another shape than its model, or numbers that contradict each other.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Self::parse(path, &text)
    }

    /// Reads a plan from JSON; `path` is for messages.
    ///
    /// Errors: as [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let bad = |e: serde_json::Error| {
            let e_in_words = json_problem(text, &e);
            let problem =
                format!("is not a budget plan: {e_in_words}; make one with `kvprof allocate`");
            Error::format_at(path, e.line(), problem)
        };
        let layout: Layout = serde_json::from_str(text).map_err(bad)?;
        if layout.schema != PLAN_SCHEMA {
            let problem = format!(
                "has plan layout {}, this kvprof reads {PLAN_SCHEMA}: allocate the plan again",
                layout.schema
            );
            return Err(Error::format(path, problem));
        }
        let plan: Self = serde_json::from_str(text).map_err(bad)?;
        plan.check().map_err(|e| {
            Error::format(
                path,
                format!("is not a sound plan: {e}; allocate the plan again"),
            )
        })?;
        Ok(plan)
    }

    /// Writes the plan beside its target and renames it into place.
    ///
    /// Errors: [`Error::Io`]; [`Error::Invalid`] for a name that could not be read back.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check_names()?;
        let text = readable_json(self)
            .map_err(|e| Error::format(path, format!("cannot hold the plan: {e}")))?;
        files::replace_with(path, text.as_bytes())
    }
}

/// Digest of a profile folder.
///
/// The same as `sha256sum heads.parquet kv_heads.parquet layers.parquet curves.parquet meta.json | sha256sum`
/// inside the folder; `quantisation.parquet` stands before `meta.json` where it is there.
///
/// Errors: [`Error::Io`].
pub fn profile_digest(folder: &Path) -> Result<String> {
    let mut list = String::new();
    let tables = TABLES.map(|name| format!("{name}.parquet"));
    let types = Some(format!("{QUANTISATION}.parquet"));
    let types = types.filter(|name| folder.join(name).is_file());
    let tables = tables.into_iter().chain(types);
    for name in tables.chain(["meta.json".to_owned()]) {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        list.push_str(&format!("{}  {name}\n", files::sha256_hex(&bytes)));
    }
    Ok(files::sha256_hex(list.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;
    use serde_json::json;

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
    fn a_plan_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let plan = plan();
        plan.write(&path).unwrap();
        let back = BudgetPlan::read(&path).unwrap();
        assert_eq!(back, plan);
        let text = std::fs::read_to_string(&path).unwrap();
        let bits = |p: &BudgetPlan| {
            p.shares
                .concat()
                .iter()
                .map(|s| s.to_bits())
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&back), bits(&plan));
        assert!(
            text.lines()
                .any(|line| line.trim() == "[32, 33]," || line.contains("[32, 32]")),
            "{text}"
        );
        assert_eq!(back.tokens_at(100).unwrap(), plan.tokens);
        assert_eq!((plan.floor, plan.sinks, plan.window), (4, 0, 2));
    }

    #[test]
    fn other_lengths_are_fitted_from_the_shares() {
        let plan = plan();
        let tokens = plan.tokens_at(25).unwrap();
        assert_eq!(tokens.concat().iter().sum::<usize>(), 120);
        assert!(tokens.concat().iter().all(|&b| b <= 25));
        assert_eq!(plan.tokens_at(15).unwrap(), vec![vec![15; 2]; 3]);
    }

    #[test]
    fn what_is_no_plan_of_this_layout_is_refused_with_the_way_out() {
        assert!(refused("schema", json!(2)).contains("layout 2"));
        let text = refused("speed", json!(1));
        assert!(
            text.contains("unknown field `speed`") && text.contains("kvprof allocate"),
            "{text}"
        );
        assert!(reread("{}").unwrap_err().to_string().contains("schema"));
        assert!(reread("not json").is_err());
        assert!(refused("geometry", json!({"layers": 3})).contains("model"));
        assert!(refused("budget", json!({"tokens": 3})).contains("tokens_per_head"));
        let mut json = serde_json::to_value(plan()).unwrap();
        json["geometry"]["extra"] = json!(1);
        assert!(
            reread(&json.to_string())
                .unwrap_err()
                .to_string()
                .contains("extra")
        );
    }

    #[test]
    fn another_model_is_refused_before_anything_else() {
        let plan = plan();
        let mut model = plan.geometry.clone();
        assert!(plan.check_geometry(&model).is_ok() && !plan.for_other_weights(&model));
        model.model_sha256 = "ef".into();
        assert!(plan.check_geometry(&model).is_ok() && plan.for_other_weights(&model));
        model.layers = 4;
        let text = plan.check_geometry(&model).unwrap_err().to_string();
        assert!(
            text.contains("3 layers") && text.contains("4 layers"),
            "{text}"
        );
    }

    #[test]
    fn unknown_strategies_and_parameters_are_named() {
        let request = Sample::default().request(20.0, 2);
        let refused = |name, parameters| {
            let plan = BudgetPlan::allocate(name, parameters, &request, Provenance::default());
            plan.unwrap_err().to_string()
        };
        assert!(refused("zig-zag", json!({})).contains("zigzag-lmbo"));
        let text = refused("zigzag", json!({"flor": 3}));
        assert!(
            text.contains("`flor`") && text.contains("`floor`"),
            "{text}"
        );
        assert!(refused("pyramid", json!({"beta": 0})).contains("beta is 0"));
        assert!(refused("zigzag", json!({"floor": "x"})).contains("share of the budget"));
    }
}
