//! The geometry of a model and what its family does differently, read from the weight file.

use candle_core::Device;

use super::cache::Representation;
use super::gguf::Gguf;
use crate::error::{Error, Result};

/// How a weight file lays out the two halves that rotary embedding pairs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Dimension i is paired with i + D/2, as in Hugging Face checkpoints.
    Halves,
    /// Dimension 2i is paired with 2i + 1: GGUF files of Llama store queries and keys so.
    Interleaved,
}

/// What tells one decoder family from another; a new family is a row of [`FAMILIES`].
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `general.architecture` in a GGUF file.
    pub architecture: &'static str,
    /// Models known to use it.
    pub about: &'static str,
    /// Layout of queries and keys in the file.
    pub rope_pairs: RopePairs,
    /// Whether a file without biases of queries, keys and values is damaged.
    pub attention_bias: bool,
}

/// All families that the decoder runs.
pub const FAMILIES: &[Family] = &[
    Family {
        architecture: "llama",
        about: "Llama 1-3, Mistral, SmolLM, SmolLM2, TinyLlama",
        rope_pairs: RopePairs::Interleaved,
        attention_bias: false,
    },
    Family {
        architecture: "qwen2",
        about: "Qwen2, Qwen2.5",
        rope_pairs: RopePairs::Halves,
        attention_bias: true,
    },
];

/// The geometry of one model, with the field names of a Hugging Face `config.json`.
///
/// Paper: none: house definition. Units: counts, except `rms_norm_eps` and the RoPE parameters.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Family row this model belongs to.
    pub family: Family,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// L.
    pub num_hidden_layers: usize,
    /// H_q.
    pub num_attention_heads: usize,
    /// H_kv.
    pub num_key_value_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS normalisation.
    pub rms_norm_eps: f64,
    /// Rotation frequency of each pair of dimensions, radians per position, length D/2.
    pub rope_frequencies: Vec<f32>,
    /// Whether the output head shares the embedding's weights.
    pub tie_word_embeddings: bool,
}

impl ModelConfig {
    /// Reads the configuration of an opened GGUF file.
    ///
    /// Errors: [`Error::Unsupported`] for a family or feature that the decoder lacks,
    /// [`Error::Format`] for numbers that do not fit together.
    pub fn from_gguf(gguf: &mut Gguf) -> Result<Self> {
        let architecture = gguf.text("general.architecture")?.to_owned();
        let family = *FAMILIES
            .iter()
            .find(|f| f.architecture == architecture)
            .ok_or_else(|| {
                let known: Vec<_> = FAMILIES
                    .iter()
                    .map(|f| format!("{} ({})", f.architecture, f.about))
                    .collect();
                Error::Unsupported {
                    what: "architecture",
                    found: architecture.clone(),
                    supported: known.join(", "),
                }
            })?;
        let key = |name: &str| format!("{architecture}.{name}");
        refuse_experts(gguf, &key("expert_count"))?;
        let num_attention_heads = uniform_heads(gguf, &key("attention.head_count"))?;
        let num_key_value_heads = if gguf.value(&key("attention.head_count_kv")).is_some() {
            uniform_heads(gguf, &key("attention.head_count_kv"))?
        } else {
            num_attention_heads
        };
        let hidden_size = gguf.uint(&key("embedding_length"))?;
        let head_dim = match optional_uint(gguf, &key("attention.key_length"))? {
            Some(d) => usize::try_from(d).unwrap_or(usize::MAX),
            None => hidden_size.checked_div(num_attention_heads).unwrap_or(0),
        };
        let mut max_position_embeddings = gguf.uint(&key("context_length"))?;
        if let Some(window) =
            optional_uint(gguf, &key("attention.sliding_window"))?.filter(|w| *w > 0)
        {
            // Attention is full here: up to the window the two are the same model.
            max_position_embeddings =
                max_position_embeddings.min(usize::try_from(window).unwrap_or(usize::MAX));
        }
        let vocab_size = match gguf.array_opt("tokenizer.ggml.tokens") {
            Some(tokens) => tokens.len(),
            None => gguf.uint(&key("vocab_size"))?,
        };
        let mut config = Self {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: gguf.uint(&key("feed_forward_length"))?,
            num_hidden_layers: gguf.uint(&key("block_count"))?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings,
            rms_norm_eps: gguf
                .float_opt(&key("attention.layer_norm_rms_epsilon"))
                .filter(|e| e.is_finite() && *e >= 0.0)
                .ok_or_else(|| missing(gguf, &key("attention.layer_norm_rms_epsilon")))?,
            rope_frequencies: Vec::new(),
            tie_word_embeddings: !gguf.has_tensor("output.weight"),
        };
        config.check(gguf)?;
        config.rope_frequencies = rope_frequencies(gguf, &architecture, head_dim)?;
        Ok(config)
    }

    /// G, the query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Bytes that one cached token takes over all layers and KV heads.
    pub fn cache_bytes_per_token(&self, representation: Representation) -> usize {
        let heads = self.num_hidden_layers * self.num_key_value_heads;
        heads * representation.bytes(1, self.head_dim)
    }

    /// Refuses a prompt that the model cannot prefill; `name` is what the error calls it.
    ///
    /// Errors: [`Error::PromptTooLong`]; [`Error::Invalid`] without a token, or with one outside the vocabulary.
    pub fn check_prompt(&self, name: &str, ids: &[u32]) -> Result<()> {
        if ids.len() > self.max_position_embeddings {
            return Err(Error::PromptTooLong {
                prompt: name.into(),
                tokens: ids.len(),
                context: self.max_position_embeddings,
            });
        }
        let what = || format!("prompt {name}");
        if ids.is_empty() {
            return Err(Error::invalid(
                what(),
                "empty",
                "at least one token is needed",
            ));
        }
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => {
                let bound = format!("the vocabulary has {} tokens", self.vocab_size);
                Err(Error::invalid(what(), format!("token id {id}"), bound))
            }
            None => Ok(()),
        }
    }

    fn check(&self, gguf: &Gguf) -> Result<()> {
        let bad = |problem: String| Err(Error::format(gguf.path(), problem));
        for (name, value, most) in [
            ("vocabulary", self.vocab_size, 1 << 24),
            ("embedding length", self.hidden_size, 1 << 20),
            ("feed-forward length", self.intermediate_size, 1 << 22),
            ("number of layers", self.num_hidden_layers, 1 << 12),
            ("number of heads", self.num_attention_heads, 1 << 12),
            ("number of KV heads", self.num_key_value_heads, 1 << 12),
            ("head dimension", self.head_dim, 1 << 12),
            ("context length", self.max_position_embeddings, 1 << 30),
        ] {
            if value == 0 || value > most {
                return bad(format!(
                    "declares a {name} of {value}, expected 1 to {most}"
                ));
            }
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return bad(format!(
                "declares {} query heads, not a multiple of its {} KV heads",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad(format!(
                "declares an odd head dimension of {}",
                self.head_dim
            ));
        }
        Ok(())
    }
}

fn optional_uint(gguf: &Gguf, key: &str) -> Result<Option<u64>> {
    gguf.understood(key, gguf.uint_opt(key))
}

fn optional_float(gguf: &Gguf, key: &str) -> Result<Option<f64>> {
    gguf.understood(key, gguf.float_opt(key))
}

fn missing(gguf: &Gguf, key: &str) -> Error {
    Error::format(gguf.path(), format!("lacks the metadata field {key}"))
}

fn refuse_experts(gguf: &Gguf, key: &str) -> Result<()> {
    match optional_uint(gguf, key)? {
        None | Some(0) => Ok(()),
        Some(n) => Err(Error::Unsupported {
            what: "feed-forward layer",
            found: format!("{n} experts"),
            supported: "dense models without experts".into(),
        }),
    }
}

/// A head count, which some files store once per layer.
fn uniform_heads(gguf: &Gguf, key: &str) -> Result<usize> {
    let Some(array) = gguf.array_opt(key) else {
        return gguf.uint(key);
    };
    let counts: Vec<u64> = array
        .iter()
        .filter_map(|v| {
            v.to_i32()
                .map(|x| x.max(0) as u64)
                .or_else(|_| v.to_u64())
                .ok()
        })
        .collect();
    match counts.first() {
        Some(&n) if counts.len() == array.len() && counts.iter().all(|&c| c == n) => {
            Ok(usize::try_from(n).unwrap_or(0))
        }
        _ => Err(Error::Unsupported {
            what: "head count",
            found: format!("{counts:?}"),
            supported: "models with the same number of heads in every layer".into(),
        }),
    }
}

/// Frequencies `theta^(-2i/D)`, with linear scaling or the per-pair factors of Llama 3.
fn rope_frequencies(gguf: &mut Gguf, architecture: &str, head_dim: usize) -> Result<Vec<f32>> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let theta = optional_float(gguf, &key("freq_base"))?.unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(Error::format(
            gguf.path(),
            format!("declares a RoPE base of {theta}"),
        ));
    }
    if let Some(rotated) = optional_uint(gguf, &key("dimension_count"))?
        && rotated != head_dim as u64
    {
        return Err(Error::Unsupported {
            what: "partial rotary embedding over",
            found: format!("{rotated} of {head_dim} dimensions"),
            supported: "models that rotate the whole head".into(),
        });
    }
    let linear = linear_scaling(gguf, &key)?;
    if !(linear.is_finite() && linear > 0.0) {
        return Err(Error::format(
            gguf.path(),
            format!("declares a RoPE factor of {linear}"),
        ));
    }
    let half = head_dim / 2;
    let mut frequencies: Vec<f32> = (0..half)
        .map(|i| {
            // In f32, as the models were trained and as every reference computes them.
            let exponent = (2 * i) as f32 / head_dim as f32;
            let frequency = 1.0 / (theta as f32).powf(exponent);
            (f64::from(frequency) / linear) as f32
        })
        .collect();
    if gguf.has_tensor("rope_freqs.weight") {
        let cpu = Device::Cpu;
        let factors = gguf
            .tensor("rope_freqs.weight", &[half], &cpu, candle_core::DType::F32)?
            .to_vec1::<f32>()?;
        for (frequency, factor) in frequencies.iter_mut().zip(factors) {
            *frequency /= factor;
        }
    }
    if frequencies.iter().any(|f| !f.is_finite()) {
        return Err(Error::format(
            gguf.path(),
            "has RoPE factors that are zero or not finite",
        ));
    }
    Ok(frequencies)
}

/// The factor that positions are divided by; a factor without a type is linear, as is the older field.
fn linear_scaling(gguf: &Gguf, key: &dyn Fn(&str) -> String) -> Result<f64> {
    let kind = gguf.text_opt(&key("scaling.type"));
    match gguf.understood(&key("scaling.type"), kind)? {
        Some("none") => Ok(1.0),
        None | Some("linear") => {
            let factor = optional_float(gguf, &key("scaling.factor"))?;
            let older = optional_float(gguf, &key("scale_linear"))?;
            // Some converters write 0 for "none".
            Ok(factor.or(older).filter(|f| *f != 0.0).unwrap_or(1.0))
        }
        Some(other) => Err(Error::Unsupported {
            what: "RoPE scaling",
            found: other.to_owned(),
            supported: "none, linear, the factors of Llama 3".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use candle_core::quantized::gguf_file::{Value, write};
    use candle_core::quantized::{GgmlDType, QTensor};

    /// Configuration of a file with these fields changed (`None` leaves one out) and RoPE factors.
    fn config(changes: &[(&str, Option<Value>)], factors: Option<[f32; 2]>) -> Result<ModelConfig> {
        let number = |n: u32| Value::U32(n);
        let mut fields: Vec<(&str, Value)> = vec![
            ("general.architecture", Value::String("llama".into())),
            ("llama.block_count", number(1)),
            ("llama.vocab_size", number(8)),
            ("llama.context_length", number(64)),
            ("llama.embedding_length", number(8)),
            ("llama.feed_forward_length", number(16)),
            ("llama.attention.head_count", number(2)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ];
        for (key, value) in changes {
            fields.retain(|(k, _)| k != key);
            if let Some(value) = value {
                fields.push((key, value.clone()));
            }
        }
        let factors = factors.map(|f| {
            let tensor = Tensor::new(&f, &Device::Cpu).unwrap();
            QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
        });
        let tensors: Vec<(&str, &QTensor)> =
            factors.iter().map(|t| ("rope_freqs.weight", t)).collect();
        let fields: Vec<(&str, &Value)> = fields.iter().map(|(k, v)| (*k, v)).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        write(
            &mut std::fs::File::create(&path).unwrap(),
            &fields,
            &tensors,
        )
        .unwrap();
        ModelConfig::from_gguf(&mut Gguf::open(&path)?)
    }

    #[test]
    fn geometry_follows_the_metadata() {
        let c = config(&[], None).unwrap();
        assert_eq!((c.head_dim, c.num_key_value_heads, c.group()), (4, 2, 1));
        assert!(c.tie_word_embeddings);
        // Two layers of keys and values would be 2 x 2 x 2 heads x 4 x 4 bytes; this is one layer.
        assert_eq!(c.cache_bytes_per_token(Representation::FLOAT32), 64);
        let grouped = config(
            &[("llama.attention.head_count_kv", Some(Value::U32(1)))],
            None,
        );
        assert_eq!(grouped.unwrap().group(), 2);
        let window = [("llama.attention.sliding_window", Some(Value::U32(16)))];
        assert_eq!(config(&window, None).unwrap().max_position_embeddings, 16);
    }

    #[test]
    fn frequencies_follow_base_and_scaling() {
        let base = |v| ("llama.rope.freq_base", Some(v));
        let c = config(&[base(Value::F32(10_000.0))], None).unwrap();
        assert_eq!(c.rope_frequencies, [1.0, 0.01]);
        // An integer is a number too.
        let c = config(&[base(Value::U32(100))], None).unwrap();
        assert_eq!(c.rope_frequencies, [1.0, 0.1]);
        // Linear scaling divides positions, in the newer and the older spelling.
        for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
            let c = config(&[(key, Some(Value::F32(4.0)))], None).unwrap();
            assert_eq!(c.rope_frequencies, [0.25, 0.0025], "{key}");
        }
        // Llama 3 stores a factor for every pair, which divides its frequency.
        let c = config(&[], Some([1.0, 8.0])).unwrap();
        assert_eq!(c.rope_frequencies, [1.0, 0.00125]);
        assert!(config(&[], Some([1.0, 0.0])).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused =
            |key: &str, value| config(&[(key, Some(value))], None).unwrap_err().to_string();
        let text = |s: &str| Value::String(s.into());
        assert!(refused("general.architecture", text("gpt9")).contains("Mistral"));
        assert!(refused("llama.rope.freq_base", text("1e4")).contains("unexpected type"));
        assert!(refused("llama.rope.scaling.type", text("yarn")).contains("Llama 3"));
        assert!(refused("llama.rope.dimension_count", Value::U32(2)).contains("2 of 4"));
        assert!(refused("llama.expert_count", Value::U32(8)).contains("experts"));
        assert!(refused("llama.attention.head_count", Value::U32(0)).contains("heads"));
        assert!(refused("llama.attention.head_count_kv", Value::U32(3)).contains("multiple"));
        assert!(refused("llama.block_count", Value::U32(1 << 20)).contains("layers"));
    }
}
