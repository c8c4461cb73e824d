//! A certified budget as an allocation: what a certificate says of a plan, and whether a plan is what was evaluated.

use std::path::Path;

use anyhow::Context;
use kvprof::budget::{
    ALLOCATORS, BudgetPlan, CacheBudget, Certificate, Floor, Geometry, Granularity, profile_digest,
};
use kvprof::method::Method;
use kvprof::model::cache::Representation;
use kvprof::registry;
use serde_json::Value;

use super::reference::Reference;

/// What a certificate says of the plan to allocate.
pub struct CertifiedAllocation {
    /// The certificate.
    pub certificate: Certificate,
    /// Strategy of its method.
    pub strategy: String,
    /// The strategy's parameters as `--set` takes them.
    pub set: Vec<String>,
    /// By layer or by KV head.
    pub granularity: Granularity,
    /// The certified budget.
    pub budget: CacheBudget,
    /// What the method holds keys and values in, where it says so.
    pub held_as: Option<Representation>,
    /// Whether the method was allocated from a profile.
    of_profile: bool,
}

impl CertifiedAllocation {
    /// Reads a certificate whose method a plan can be.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let certificate = Certificate::read(path)?;
        let (method, name) = (&certificate.method, method_name(&certificate));
        let text = |field: &str| method.get(field).and_then(Value::as_str);
        let Some(strategy) = text("strategy").map(str::to_owned) else {
            anyhow::bail!("{name} cuts nothing that a plan could say");
        };
        if let Some(residency) = text("residency") {
            anyhow::bail!("{name} changes while it lives ({residency}), which a plan cannot say");
        }
        let granularity: Granularity = method
            .get("granularity")
            .cloned()
            .map_or(Ok(Granularity::Layer), serde_json::from_value)
            .context("granularity of the certificate's method")?;
        let parameters = method.get("parameters").cloned().unwrap_or_default();
        let allocator = registry::build("strategy", ALLOCATORS, &strategy, parameters.clone())?;
        let of_profile = text("measured") == Some("profile");
        anyhow::ensure!(
            of_profile || allocator.needs(granularity)?.is_empty(),
            "{name} allocates from each prompt's own prefill, and a plan is the same for all: evaluate \
             {strategy}@profile and certify that"
        );
        let budget = certificate
            .budget
            .parse::<CacheBudget>()
            .with_context(|| format!("{name} spends no budget that a plan could say"))?;
        let dtype = &certificate.dtype;
        let held_in_float32 = dtype.starts_with("f32") && !dtype.contains(", cache ");
        anyhow::ensure!(
            budget.tokens().is_some() || held_in_float32,
            "{} is bytes of an evaluation in {}, and a plan counts shares and bytes of caches in f32: evaluate budgets in \
             tokens",
            certificate.budget,
            certificate.dtype
        );
        let fields = parameters.as_object().into_iter().flatten();
        let set = fields.filter(|(_, value)| !value.is_null());
        Ok(Self {
            set: set.map(|(key, value)| format!("{key}={value}")).collect(),
            held_as: text("cache")
                .map(str::parse::<Representation>)
                .transpose()?,
            strategy,
            granularity,
            budget,
            of_profile,
            certificate,
        })
    }

    /// What always stays of a prompt.
    pub fn floor(&self) -> Floor {
        Floor {
            whole_windows: self.certificate.whole_windows,
            ..Floor::of(self.certificate.sinks, self.certificate.window)
        }
    }

    /// Refuses another model or profile than was certified.
    pub fn check(&self, reference: &Reference) -> anyhow::Result<()> {
        let (certified, ours) = (&self.certificate, &reference.geometry);
        anyhow::ensure!(
            same_weights(certified, ours),
            "the certificate is for the weights of {}, not for these of {}",
            certified.model,
            ours.model
        );
        let Some(wanted) = certified
            .profile_sha256
            .as_ref()
            .filter(|_| self.of_profile)
        else {
            return Ok(());
        };
        let folder = reference.profile.as_ref().map(|(folder, _)| folder);
        let folder = folder.context(
            "the certified method was allocated from a profile: name the same one with --profile",
        )?;
        anyhow::ensure!(
            profile_digest(folder)? == *wanted,
            "{} is another profile than the one that the certified method was allocated from",
            folder.display()
        );
        Ok(())
    }

    /// Refuses a plan that gives the shortest or longest calibrated prompts something else than was evaluated; `at` allocates
    /// for prompts of a length.
    pub fn check_plan(
        &self,
        plan: &BudgetPlan,
        mut at: impl FnMut(usize) -> anyhow::Result<BudgetPlan>,
    ) -> anyhow::Result<()> {
        for tokens in self.certificate.calibration.tokens {
            let evaluated = at(tokens).with_context(|| {
                format!("allocating for a calibrated prompt of {tokens} tokens")
            })?;
            let given = plan.tokens_at(tokens)?;
            let mut places = given
                .iter()
                .flatten()
                .zip(evaluated.tokens.iter().flatten());
            if let Some((given, evaluated)) = places.find(|(given, evaluated)| given != evaluated) {
                anyhow::bail!(
                    "a plan for {} tokens gives a prompt of {tokens} other budgets than {} was evaluated with ({given} tokens \
                     for a KV head, not {evaluated}): the certificate does not cover it; certify a budget in tokens per KV head",
                    plan.reference_tokens,
                    method_name(&self.certificate)
                );
            }
        }
        Ok(())
    }
}

fn method_name(certificate: &Certificate) -> &str {
    let name = certificate.method.get("name").and_then(Value::as_str);
    name.unwrap_or("the certified method")
}

fn same_weights(certificate: &Certificate, model: &Geometry) -> bool {
    let (theirs, ours) = (&certificate.model_sha256, &model.model_sha256);
    theirs.is_empty() || ours.is_empty() || theirs == ours
}

/// What the certificate of a method's plan says of a prompt that the method serves: its statement, or why it says nothing;
/// `None` for a method without one.
pub fn in_words(method: &Method, model: &Geometry, tokens: usize) -> Option<String> {
    let certificate = method
        .plans()
        .find_map(|p| p.provenance.certificate.as_ref())?;
    let described = method.described();
    let axes = ["scorer", "scorer_parameters", "split", "residency", "cache"];
    let other = axes
        .iter()
        .find(|axis| described.get(axis) != certificate.method.get(axis));
    let [least, most] = certificate.calibration.tokens;
    let why = if let Some(axis) = other {
        let axis = axis.replace('_', " ");
        format!("another {axis} than {} has", method_name(certificate))
    } else if !same_weights(certificate, model) {
        format!("other weights than {}", certificate.model)
    } else if !(least..=most).contains(&tokens) {
        format!("a prompt of {tokens} tokens, and calibrated ones have {least} to {most}")
    } else {
        return Some(certificate.statement.clone());
    };
    Some(format!("the plan's certificate does not cover {why}"))
}
