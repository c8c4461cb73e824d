//! The numbers of a model that a budget depends on.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::amount::MAX_HEADS;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::config::ModelConfig;
use crate::model::source::ModelFiles;
use crate::profile::ProfileRecord;

/// Which model a budget is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Model name as a figure shows it.
    pub model: String,
    /// SHA-256 of the weight file; empty where it is not known.
    pub model_sha256: String,
    /// L.
    pub layers: usize,
    /// H_q.
    pub heads: usize,
    /// H_kv.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// The keys that a query of each layer sees, `null` for all; absent where every layer sees all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Option<usize>>,
}

impl Geometry {
    /// The model that a profile was measured on.
    pub fn of(meta: &ProfileRecord) -> Self {
        Self {
            model: meta.model.name.clone(),
            model_sha256: meta.model.sha256.clone(),
            layers: meta.model.num_layers,
            heads: meta.model.num_heads,
            kv_heads: meta.model.num_kv_heads,
            head_dim: meta.model.head_dim,
            windows: meta.model.windows.clone(),
        }
    }

    /// Geometry of a loaded model.
    pub fn of_model(model: &Model) -> Self {
        Self::of_files(&model.files, model.decoder.config())
    }

    /// Geometry of a model whose weights have not been read.
    pub fn of_files(files: &ModelFiles, config: &ModelConfig) -> Self {
        Self {
            model: files.name.clone(),
            model_sha256: files.sha256.clone(),
            layers: config.num_hidden_layers(),
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            windows: config.windows(),
        }
    }

    /// L·H_kv: the KV heads of all layers.
    pub fn cells(&self) -> usize {
        self.layers.saturating_mul(self.kv_heads)
    }

    /// G: query heads per KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Refuses numbers that no model has.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(&self) -> Result<()> {
        let sound = self.layers > 0
            && self.kv_heads > 0
            && self.heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && (self.windows.is_empty() || self.windows.len() == self.layers)
            && !self.windows.contains(&Some(0))
            && self.layers.saturating_mul(self.heads) <= MAX_HEADS;
        if sound {
            return Ok(());
        }
        let bound = format!(
            "layers, heads and windows must be positive, heads a multiple of KV heads, layers x heads at \
             most {MAX_HEADS}, and windows as many as layers or none"
        );
        Err(Error::invalid("model geometry", self.numbers(), bound))
    }

    /// Layers and heads in words, for messages.
    pub fn numbers(&self) -> String {
        let plain = format!(
            "{} layers, {} heads, {} KV heads of {}",
            self.layers, self.heads, self.kv_heads, self.head_dim
        );
        match self.windows_in_words() {
            Some(windows) => format!("{plain}, {windows}"),
            None => plain,
        }
    }

    /// How many layers see a window, and of how many tokens; `None` where all see everything.
    pub fn windows_in_words(&self) -> Option<String> {
        let mut known: Vec<usize> = self.windows.iter().flatten().copied().collect();
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        let known: Vec<String> = known.iter().map(usize::to_string).collect();
        (count > 0).then(|| format!("{count} with a window of {}", known.join(" or ")))
    }

    /// Refuses a model whose layers differ in what they see, for a file of another tool that cannot say so.
    ///
    /// Errors: [`Error::Unsupported`].
    pub fn refuse_windows(&self, what: &'static str) -> Result<()> {
        match self.windows_in_words() {
            None => Ok(()),
            Some(windows) => Err(Error::Unsupported {
                what,
                found: format!("{} (of {} layers {windows})", self.model, self.layers),
                supported: "models whose layers all see the whole prompt".into(),
            }),
        }
    }

    /// The layers that see all of a prompt.
    pub fn global_layers(&self) -> Vec<usize> {
        let is_global = |layer: &usize| self.windows.get(*layer).is_none_or(Option::is_none);
        (0..self.layers).filter(is_global).collect()
    }

    /// The same model as if it had these layers alone, all of which see everything.
    pub(super) fn of_layers(&self, layers: &[usize]) -> Self {
        Self {
            layers: layers.len(),
            windows: Vec::new(),
            ..self.clone()
        }
    }

    /// The keys that a query of a layer sees at most of a prompt of `tokens`.
    pub fn span(&self, layer: usize, tokens: usize) -> usize {
        let window = self.windows.get(layer).copied().flatten();
        window.map_or(tokens, |window| window.min(tokens))
    }

    /// Whether layers, heads, head dimension and windows are the same; names and weights may differ.
    pub fn same_numbers(&self, other: &Self) -> bool {
        let numbers = |g: &Self| (g.layers, g.heads, g.kv_heads, g.head_dim);
        numbers(self) == numbers(other) && self.windows == other.windows
    }

    /// Rows of `kv_heads` values each, from one value per KV head in layer order.
    pub(super) fn by_layer<T: Clone>(&self, flat: &[T]) -> Vec<Vec<T>> {
        flat.chunks(self.kv_heads.max(1))
            .map(<[T]>::to_vec)
            .collect()
    }

    /// One value per KV head from one per layer.
    pub(super) fn repeated(&self, layers: &[f64]) -> Vec<f64> {
        layers
            .iter()
            .flat_map(|&value| std::iter::repeat_n(value, self.kv_heads))
            .collect()
    }
}

/// Whether the KV heads of a layer may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// Equal KV heads within a layer, to the token that a total may leave over.
    #[default]
    Layer,
    /// Every KV head has its own.
    Head,
}

impl Granularity {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Layer, Self::Head];

    /// The name on the command line and in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Head => "head",
        }
    }

    /// Refuses a granularity that a strategy's data does not have.
    pub(super) fn layers_only(self, why: &str) -> Result<()> {
        match self {
            Self::Layer => Ok(()),
            Self::Head => Err(Error::Unsupported {
                what: "granularity",
                found: "head".into(),
                supported: format!("layer ({why})"),
            }),
        }
    }
}

impl FromStr for Granularity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|g| g.name() == name);
        found.ok_or_else(|| Error::unknown("granularity", name, Self::ALL.map(Self::name)))
    }
}
