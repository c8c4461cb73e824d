//! `capture.json`: what was captured of which model and prompts.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::source::ModelFiles;
use crate::profile::Prompt;

/// What `format` says.
pub(super) const FORMAT: &str = "kvprof-capture";
/// What `version` says.
pub(super) const VERSION: u64 = 1;
/// What `byte_order` says.
pub(super) const BYTE_ORDER: &str = "little";
/// No dimension of a model is larger, nor a prompt, nor their number.
const MOST: usize = 1 << 24;
/// No tensor has more numbers.
const MOST_NUMBERS: usize = 1 << 40;
/// No attention multiplies by less or more: one over the root of D is 0.04 to 0.2, and 1 where keys are normalised.
const SCALES: RangeInclusive<f64> = 1e-6..=1e6;
/// No manifest is longer: 256 MiB.
pub(super) const LONGEST_MANIFEST: usize = 256 << 20;

/// The manifest of a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureManifest {
    pub(super) format: String,
    pub(super) version: u64,
    pub(super) byte_order: String,
    /// Program and libraries.
    pub made_by: String,
    /// Where attention was computed.
    pub device: String,
    /// What the model computed in.
    pub dtype: String,
    /// Rows of queries that were kept of each prompt, its last; `None` is all.
    pub window: Option<usize>,
    /// The model.
    pub model: CapturedModel,
    /// The data set.
    pub data: CapturedData,
    /// Its prompts, in order.
    pub prompts: Vec<CapturedPrompt>,
}

/// Facts of a captured model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedModel {
    /// Name as a figure shows it.
    pub name: String,
    /// How to ask for it again.
    pub source: String,
    /// SHA-256 of its weights; empty where it is not known.
    pub sha256: String,
    /// Its kind, as its configuration names it.
    pub architecture: String,
    /// H_q.
    pub num_heads: usize,
    /// H_kv.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// One per layer.
    pub layers: Vec<LayerFacts>,
}

/// Facts of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFacts {
    /// Keys that a query sees, its own and the nearest before it; `None` is all.
    pub window: Option<usize>,
    /// What the product of query and key is multiplied by.
    pub scale: f64,
}

/// Facts of the data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedData {
    /// Name as a figure shows it.
    pub name: String,
    /// SHA-256 of the file that prompts were read from; empty where there was none.
    pub sha256: String,
}

/// A prompt as the model saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedPrompt {
    /// The data set's own name for it.
    pub id: String,
    /// Token ids.
    pub ids: Vec<u32>,
}

impl CapturedModel {
    /// Of a model of this program's, whose queries have its scale already.
    pub fn of(files: &ModelFiles, config: &ModelConfig) -> Self {
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let layers = config.layers.iter().map(|kind| LayerFacts {
            window: kind.window,
            scale,
        });
        Self {
            name: files.name.clone(),
            source: files.origin.clone(),
            sha256: files.sha256.clone(),
            architecture: config.family.architecture.to_owned(),
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            hidden_size: config.hidden_size,
            layers: layers.collect(),
        }
    }
}

impl CaptureManifest {
    /// A manifest of this format.
    pub fn new(
        made_by: String,
        [device, dtype]: [String; 2],
        window: Option<usize>,
        model: CapturedModel,
        data: CapturedData,
        prompts: &[Prompt],
    ) -> Self {
        let prompts = prompts.iter().map(|prompt| CapturedPrompt {
            id: prompt.id.clone(),
            ids: prompt.ids.clone(),
        });
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            byte_order: BYTE_ORDER.to_owned(),
            made_by,
            device,
            dtype,
            window,
            model,
            data,
            prompts: prompts.collect(),
        }
    }

    /// Reads a manifest; `place` is where it was found, for messages.
    ///
    /// Errors: [`Error::Format`] for what is no manifest of this version, or contradicts itself.
    pub fn parse(text: &[u8], place: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::format(place, problem);
        let no_json =
            |e: serde_json::Error| wrong(format!("is not the manifest of a capture: {e}"));
        let value: Value = serde_json::from_slice(text).map_err(no_json)?;
        let text_of = |field: &str| value.get(field).and_then(Value::as_str);
        if text_of("format") != Some(FORMAT) {
            let problem =
                format!("is not the manifest of a capture: its format is not \"{FORMAT}\"");
            return Err(wrong(problem));
        }
        let version = value.get("version");
        if version.and_then(Value::as_u64) != Some(VERSION) {
            return Err(wrong(format!(
                "is a capture of version {}, this kvprof reads {VERSION}: capture again with the kvprof_capture that came with it",
                version.unwrap_or(&Value::Null)
            )));
        }
        if text_of("byte_order") != Some(BYTE_ORDER) {
            return Err(wrong(format!(
                "has the byte order {}, only \"{BYTE_ORDER}\" is read: capture again on a machine of that order",
                value.get("byte_order").unwrap_or(&Value::Null)
            )));
        }
        let manifest: Self = serde_json::from_value(value).map_err(no_json)?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// What no model or prompt can have, in words.
    fn check(&self) -> Result<(), String> {
        let model = &self.model;
        for (name, number) in [
            ("num_heads", model.num_heads),
            ("num_kv_heads", model.num_kv_heads),
            ("head_dim", model.head_dim),
            ("hidden_size", model.hidden_size),
            ("number of layers", model.layers.len()),
            ("number of prompts", self.prompts.len()),
        ] {
            if !(1..=MOST).contains(&number) {
                return Err(format!(
                    "has a {name} of {number}, between 1 and {MOST} are possible"
                ));
            }
        }
        if !model.num_heads.is_multiple_of(model.num_kv_heads) {
            return Err(format!(
                "has {} query heads, which {} KV heads cannot share evenly",
                model.num_heads, model.num_kv_heads
            ));
        }
        let longest = self.prompts.iter().map(|prompt| prompt.ids.len()).max();
        let lines = longest.unwrap_or(0).max(model.hidden_size);
        let numbers = [model.head_dim, lines]
            .into_iter()
            .try_fold(model.num_heads, usize::checked_mul);
        if numbers.is_none_or(|numbers| numbers > MOST_NUMBERS) {
            return Err(format!(
                "describes tensors of {} x {} x {lines} numbers, at most {MOST_NUMBERS} are possible",
                model.num_heads, model.head_dim
            ));
        }
        let ids = self.prompts.iter().map(|prompt| &prompt.id);
        let named = [&model.name, &model.source, &self.data.name];
        if let Some(text) = ids
            .chain(named)
            .find(|text| text.contains(char::is_control))
        {
            return Err(format!(
                "has a name with a control character in it: {text:?}"
            ));
        }
        if self.window == Some(0) {
            return Err("has a window of 0 rows, at least one must be kept".to_owned());
        }
        for (l, layer) in model.layers.iter().enumerate() {
            if layer.window == Some(0) {
                return Err(format!("says that layer {l} has a window of 0 keys"));
            }
            if !SCALES.contains(&layer.scale) {
                return Err(format!(
                    "says that layer {l} has a scale of {:?}, between {} and {} are possible",
                    layer.scale,
                    SCALES.start(),
                    SCALES.end()
                ));
            }
        }
        match self
            .prompts
            .iter()
            .find(|prompt| !(1..=MOST).contains(&prompt.ids.len()))
        {
            Some(prompt) => Err(format!(
                "has a prompt {} of {} tokens, between 1 and {MOST} are possible",
                prompt.id,
                prompt.ids.len()
            )),
            None => Ok(()),
        }
    }

    /// The first field in which another capture differs, so that both cannot be one profile.
    pub fn differs_in(&self, other: &Self) -> Option<&'static str> {
        let (own, others) = (&self.model, &other.model);
        // The same weights may lie in another place.
        let is_same = own.sha256 == others.sha256 && !own.sha256.is_empty();
        let moved = CapturedModel {
            source: own.source.clone(),
            ..others.clone()
        };
        let fields = [
            ("model.name", own.name == others.name),
            ("model.sha256", own.sha256 == others.sha256),
            ("model.source", is_same || own.source == others.source),
            ("model", *own == moved),
            ("window", self.window == other.window),
            ("dtype", self.dtype == other.dtype),
            ("device", self.device == other.device),
            ("made_by", self.made_by == other.made_by),
        ];
        let mut fields = fields.into_iter();
        fields.find(|(_, same)| !same).map(|(field, _)| field)
    }

    /// Prompt number `index`.
    ///
    /// Errors: [`Error::Invalid`] where there are not so many.
    pub(super) fn prompt(&self, index: usize) -> Result<&CapturedPrompt> {
        self.prompts.get(index).ok_or_else(|| {
            let bound = format!("the capture has {}", self.prompts.len());
            Error::invalid("number of a captured prompt", index, bound)
        })
    }

    /// L.
    pub fn num_layers(&self) -> usize {
        self.model.layers.len()
    }

    /// Rows of queries that were kept of a prompt.
    pub fn rows(&self, tokens: usize) -> usize {
        self.window.unwrap_or(tokens).min(tokens)
    }

    /// The prompts as runs have them.
    pub fn prompts(&self) -> impl Iterator<Item = Prompt> {
        self.prompts.iter().map(|prompt| Prompt {
            id: prompt.id.clone(),
            ids: prompt.ids.clone(),
        })
    }
}
