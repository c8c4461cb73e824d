//! The record that every run keeps of itself: what made it, which model, which data, which settings.

use candle_core::Device;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::kind::RunSettings;
use crate::model::Model;
use crate::model::config::ModelConfig;
use crate::model::precision::Precision;
use crate::model::source::ModelFiles;

/// What made a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Version of the layout.
    pub schema: u32,
    /// Version of kvprof that measured.
    pub kvprof: String,
    /// Command line that repeats the measurement.
    pub command: String,
}

impl Made {
    /// By this kvprof.
    pub fn by(command: impl Into<String>, schema: u32) -> Self {
        Self {
            schema,
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.into(),
        }
    }
}

/// Which model ran, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Name as a figure shows it.
    #[serde(rename = "model")]
    pub name: String,
    /// Where the weights came from.
    #[serde(rename = "model_source")]
    pub source: String,
    /// SHA-256 of the weight file.
    #[serde(rename = "model_sha256")]
    pub sha256: String,
    /// Architecture, as the weight file names it.
    pub architecture: String,
    /// L.
    pub num_layers: usize,
    /// H_q.
    pub num_heads: usize,
    /// H_kv.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// The keys that a query of each layer sees, `null` for all; absent where every layer sees all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Option<usize>>,
    /// Device that it ran on.
    pub device: String,
    /// Type that it computed in, and that of the cache where it is another.
    pub dtype: String,
}

impl ModelRecord {
    /// Of a model in memory.
    pub fn of_model(model: &Model) -> Self {
        let decoder = &model.decoder;
        let (device, precision) = (decoder.device(), decoder.precision());
        Self::of_files(&model.files, decoder.config(), device, precision)
    }

    /// Of a model whose weights have not been read.
    pub fn of_files(
        files: &ModelFiles,
        config: &ModelConfig,
        device: &Device,
        precision: Precision,
    ) -> Self {
        Self {
            name: files.name.clone(),
            source: files.origin.clone(),
            sha256: files.sha256.clone(),
            architecture: config.family.architecture.to_owned(),
            num_layers: config.num_hidden_layers(),
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            windows: config.windows(),
            device: format!("{:?}", device.location()),
            dtype: precision.to_string(),
        }
    }
}

/// Which data the model read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Data set name as a figure shows it.
    #[serde(rename = "dataset")]
    pub name: String,
    /// SHA-256 of the data set file, or of the generated records.
    #[serde(rename = "dataset_sha256")]
    pub sha256: String,
    /// SHA-256 of the prompt template, followed by " raw" where the chat template was left out.
    pub template: String,
    /// Number of prompts.
    pub prompts: usize,
    /// SHA-256 of all prompts' token ids: what tokenizer, templates and cuts came to.
    pub prompts_sha256: String,
    /// Longest prompt allowed, in tokens; longer ones were cut in the middle.
    pub max_prompt_tokens: Option<usize>,
    /// What was prefilled, where it was not the whole prompt: `question-after` for contexts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Provenance and settings of a run: the content of `meta.json`, which holds all fields on one level.
///
/// What a kind of run does not keep is empty in a record that was read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord<S> {
    /// What made it.
    pub made: Made,
    /// Which model, and where it ran.
    pub model: ModelRecord,
    /// Which prompts.
    pub data: DataRecord,
    /// What was asked for.
    pub settings: S,
}

impl<S: RunSettings> RunRecord<S> {
    /// The record of a run of this kvprof.
    pub fn new(
        command: impl Into<String>,
        model: ModelRecord,
        data: DataRecord,
        settings: S,
    ) -> Self {
        Self {
            made: Made::by(command, S::KIND.schema),
            model,
            data,
            settings,
        }
    }

    /// All fields on one level, those that this kind of run does not keep among them.
    fn fields(&self) -> serde_json::Result<Map<String, Value>> {
        let parts = [
            serde_json::to_value(&self.made)?,
            serde_json::to_value(&self.model)?,
            serde_json::to_value(&self.data)?,
            serde_json::to_value(&self.settings)?,
        ];
        let parts = parts.into_iter().filter_map(|part| match part {
            Value::Object(fields) => Some(fields),
            _ => None,
        });
        Ok(parts.flatten().collect())
    }

    fn of_fields(fields: &Map<String, Value>) -> serde_json::Result<Self> {
        Ok(Self {
            made: Made::deserialize(fields)?,
            model: ModelRecord::deserialize(fields)?,
            data: DataRecord::deserialize(fields)?,
            settings: S::deserialize(fields)?,
        })
    }

    /// The record of a `meta.json`, or what is wrong with it.
    fn of_file(file: Map<String, Value>) -> Result<Self, String> {
        let known: Vec<&str> = S::KIND.fields().map(|(name, _)| name).collect();
        if let Some(name) = file.keys().find(|name| !known.contains(&name.as_str())) {
            let known = known.join(", ");
            return Err(format!("unknown field `{name}`, expected one of {known}"));
        }
        let missing = |(name, needed): &(&str, bool)| *needed && !file.contains_key(*name);
        if let Some((name, _)) = S::KIND.fields().find(missing) {
            return Err(format!("missing field `{name}`"));
        }
        let mut record = Self::default();
        let mut fields = record.fields().map_err(|e| e.to_string())?;
        // One after the other, so that a value of another type is told with its name.
        for (name, value) in file {
            fields.insert(name.clone(), value);
            record = Self::of_fields(&fields).map_err(|e| format!("field `{name}`: {e}"))?;
        }
        Ok(record)
    }
}

impl<S: RunSettings> Serialize for RunRecord<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut all = self.fields().map_err(serde::ser::Error::custom)?;
        let kept = S::KIND
            .fields()
            .filter_map(|(name, _)| all.remove_entry(name));
        kept.collect::<Map<_, _>>().serialize(serializer)
    }
}

impl<'de, S: RunSettings> Deserialize<'de> for RunRecord<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_file(Map::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
