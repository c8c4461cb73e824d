//! A model's geometry from the metadata of a GGUF file.

use candle_core::Device;

use super::family::{self, Family, RopePairs, WindowedLayers};
use super::rope::{SCALINGS, Scaling, long_magnitude, rope, yarn_magnitude};
use super::{LayerKind, ModelConfig, check_every, check_rotated, declared, layers};
use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

/// RoPE base of windowed layers where a family's other layers have another one and the file does not say.
const WINDOWED_BASE: f64 = 10_000.0;

/// Numbers that other families multiply with, and the values at which they change nothing.
const NEUTRAL: [(&str, f64); 7] = [
    ("attention.scale", 0.0),
    ("logit_scale", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
    ("rope.scaling.yarn_attn_factor", 1.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
];

/// Tensors with the factors of short and of long texts.
const SHORT_FACTORS: &str = "rope_factors_short.weight";
const LONG_FACTORS: &str = "rope_factors_long.weight";

/// Layers of the one Gemma 3 (27B) whose queries are scaled by its hidden size and not by its head dimension.
const LAYERS_OF_27B: usize = 62;

impl ModelConfig {
    /// Reads the configuration of an opened GGUF file.
    ///
    /// Errors: [`Error::Unsupported`] for a family or feature that the decoder lacks,
    /// [`Error::Format`] for numbers that do not fit together.
    pub fn from_gguf(gguf: &mut Gguf) -> Result<Self> {
        let architecture = gguf.text("general.architecture")?.to_owned();
        let family = family::named(&architecture)?;
        let key = |name: &str| format!("{architecture}.{name}");
        refuse_experts(gguf, &key("expert_count"))?;
        for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
            refuse_cap(gguf, &key(cap))?;
        }
        for (field, neutral) in NEUTRAL {
            refuse_other(gguf, &key(field), neutral)?;
        }
        if gguf.bool_opt(&key("attention.causal")) == Some(false) {
            return Err(Error::Unsupported {
                what: "attention",
                found: "in both directions".into(),
                supported: "causal attention".into(),
            });
        }
        let num_attention_heads = uniform_heads(gguf, &key("attention.head_count"))?;
        let num_key_value_heads = if gguf.value(&key("attention.head_count_kv")).is_some() {
            uniform_heads(gguf, &key("attention.head_count_kv"))?
        } else {
            num_attention_heads
        };
        let hidden_size = gguf.uint(&key("embedding_length"))?;
        let quotient = hidden_size.checked_div(num_attention_heads).unwrap_or(0);
        let head_dim = optional_size(gguf, &key("attention.key_length"))?.unwrap_or(quotient);
        if let Some(values) = optional_size(gguf, &key("attention.value_length"))?
            && values != head_dim
        {
            return Err(Error::Unsupported {
                what: "head dimension of values",
                found: format!(
                    "{values} beside keys of {head_dim} in {}",
                    gguf.path().display()
                ),
                supported: "models whose keys and values are equally long".into(),
            });
        }
        let vocab_size = match gguf.array_opt("tokenizer.ggml.tokens") {
            Some(tokens) => tokens.len(),
            None => gguf.uint(&key("vocab_size"))?,
        };
        let kinds = layer_kinds(gguf, family, &key)?;
        let scaled_by_hidden = family.scaled_embedding && kinds.len() == LAYERS_OF_27B;
        let mut config = Self {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: gguf.uint(&key("feed_forward_length"))?,
            layers: kinds,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings: gguf.uint(&key("context_length"))?,
            rms_norm_eps: gguf
                .float_opt(&key("attention.layer_norm_rms_epsilon"))
                .filter(|e| e.is_finite() && *e >= 0.0)
                .ok_or_else(|| gguf.missing(&key("attention.layer_norm_rms_epsilon"), "a float"))?,
            ropes: Vec::new(),
            attention_scale: scaled_by_hidden.then(|| 1.0 / (quotient as f64).sqrt()),
            tie_word_embeddings: !gguf.has_tensor("output.weight"),
        };
        config.check(gguf.path())?;
        config.read_ropes(gguf, &key)?;
        Ok(config)
    }

    /// The rotary embedding of all layers, and of those with a window where it is another one.
    fn read_ropes(&mut self, gguf: &mut Gguf, key: &dyn Fn(&str) -> String) -> Result<()> {
        let path = gguf.path().to_owned();
        let head_dim = self.head_dim;
        let rotated = optional_size(gguf, &key("rope.dimension_count"))?.unwrap_or(head_dim);
        check_rotated(&path, rotated, head_dim)?;
        if rotated != head_dim && self.family.rope_pairs == RopePairs::Interleaved {
            return Err(Error::Unsupported {
                what: "rotation of a part of a head in a GGUF file of",
                found: format!("{} ({rotated} of {head_dim} dimensions)", self.family.about),
                supported: "files of this family that rotate whole heads".into(),
            });
        }
        let theta = optional_float(gguf, &key("rope.freq_base"))?.unwrap_or(10_000.0);
        let scaling = scaling(gguf, key, rotated / 2, self.max_position_embeddings)?;
        let main = rope(theta, rotated, &scaling).map_err(|e| declared(&path, e))?;
        self.ropes.push(main);
        if self.layers.iter().any(|kind| kind.rope == 1) {
            let theta = optional_float(gguf, &key("rope.freq_base_swa"))?.unwrap_or(WINDOWED_BASE);
            let windowed = rope(theta, rotated, &Scaling::None).map_err(|e| declared(&path, e))?;
            self.ropes.push(windowed);
        }
        Ok(())
    }
}

/// Which layers see a window, of which size.
fn layer_kinds(
    gguf: &Gguf,
    family: Family,
    key: &dyn Fn(&str) -> String,
) -> Result<Vec<LayerKind>> {
    let count = gguf.uint(&key("block_count"))?;
    // Some converters write 0 for "none".
    let window = optional_size(gguf, &key("attention.sliding_window"))?.filter(|w| *w > 0);
    let Some(window) = window else {
        return Ok(layers(count, |_| LayerKind::GLOBAL));
    };
    let windowed = |rope| LayerKind {
        window: Some(window),
        rope,
    };
    let pattern = key("attention.sliding_window_pattern");
    match family.windowed {
        WindowedLayers::All => Ok(layers(count, |_| windowed(0))),
        WindowedLayers::AsListed => Err(Error::Unsupported {
            what: "sliding window in a GGUF file of",
            found: format!("{} ({window} tokens)", family.about),
            supported:
                "the Hugging Face folder of this model, which says which layers it holds for".into(),
        }),
        WindowedLayers::AllButEvery(usual) => {
            if let Some(flags) = gguf.array_opt(&pattern) {
                let flags: Vec<bool> = flags.iter().filter_map(|f| f.to_bool().ok()).collect();
                if flags.len() != count {
                    return Err(gguf.wrong(format!(
                        "has {} flags in {pattern}, expected one for each of {count} layers",
                        flags.len()
                    )));
                }
                let kind = |l: usize| {
                    if flags[l] {
                        windowed(1)
                    } else {
                        LayerKind::GLOBAL
                    }
                };
                return Ok((0..count).map(kind).collect());
            }
            let every = optional_size(gguf, &pattern)?.unwrap_or(usual);
            check_every(gguf.path(), &pattern, every)?;
            Ok(layers(count, |l| {
                if (l + 1).is_multiple_of(every) {
                    LayerKind::GLOBAL
                } else {
                    windowed(1)
                }
            }))
        }
    }
}

/// How the file stretches frequencies: by factors of its own, or by a rule.
fn scaling(
    gguf: &mut Gguf,
    key: &dyn Fn(&str) -> String,
    pairs: usize,
    context: usize,
) -> Result<Scaling> {
    let own = |name: &str| key(&format!("rope.{name}"));
    if let Some(factors) = pair_factors(gguf, "rope_freqs.weight", pairs)? {
        return Ok(Scaling::Factors(factors));
    }
    let original = optional_size(gguf, &own("scaling.original_context_length"))?;
    let short = pair_factors(gguf, SHORT_FACTORS, pairs)?;
    let long = pair_factors(gguf, LONG_FACTORS, pairs)?;
    match (short, long) {
        (Some(short), Some(long)) => {
            let name = own("scaling.original_context_length");
            let original = original.ok_or_else(|| gguf.missing(&name, "an unsigned integer"))?;
            let magnitude = optional_float(gguf, &own("scaling.attn_factor"))?;
            let usual = || long_magnitude(context as f64, original as f64);
            return Ok(Scaling::Long {
                short,
                long,
                original,
                magnitude: magnitude.unwrap_or_else(usual),
            });
        }
        (Some(_), None) => return Err(gguf.wrong(format!("lacks the tensor {LONG_FACTORS}"))),
        (None, Some(_)) => return Err(gguf.wrong(format!("lacks the tensor {SHORT_FACTORS}"))),
        (None, None) => {}
    }
    let kind = gguf.text_opt(&own("scaling.type"));
    let kind = gguf
        .understood(&own("scaling.type"), kind)?
        .map(str::to_owned);
    let factor = optional_float(gguf, &own("scaling.factor"))?;
    let older = optional_float(gguf, &own("scale_linear"))?;
    // Some converters write 0 for "none".
    let factor = factor.or(older).filter(|f| *f != 0.0);
    let has_magnitude = optional_float(gguf, &own("scaling.attn_factor"))?
        .is_some_and(|own| own != 0.0 && own != 1.0);
    match kind.as_deref() {
        _ if !matches!(kind.as_deref(), Some("yarn")) && has_magnitude => Err(Error::Unsupported {
            what: "metadata field",
            found: own("scaling.attn_factor"),
            supported: "files with it under yarn or with factors for long texts".into(),
        }),
        Some("llama3") => Err(gguf.wrong("lacks the tensor rope_freqs.weight")),
        Some("none") => Ok(Scaling::None),
        // A factor without a type is linear, as is the older field.
        None | Some("linear") => Ok(factor.map_or(Scaling::None, Scaling::Linear)),
        Some("yarn") => Ok(Scaling::Yarn {
            factor: factor.unwrap_or(1.0),
            original: original.unwrap_or(context) as f64,
            beta_fast: optional_float(gguf, &own("scaling.yarn_beta_fast"))?.unwrap_or(32.0),
            beta_slow: optional_float(gguf, &own("scaling.yarn_beta_slow"))?.unwrap_or(1.0),
            // A factor in the file is on top of the rule's own.
            magnitude: optional_float(gguf, &own("scaling.attn_factor"))?
                .map(|own| own * yarn_magnitude(factor.unwrap_or(1.0))),
        }),
        Some("longrope") => Err(gguf.wrong(format!("lacks the tensor {SHORT_FACTORS}"))),
        Some(other) => Err(Error::Unsupported {
            what: "RoPE scaling",
            found: other.to_owned(),
            supported: SCALINGS.into(),
        }),
    }
}

/// A tensor of factors, one for each pair of dimensions, if it is there.
fn pair_factors(gguf: &mut Gguf, name: &str, pairs: usize) -> Result<Option<Vec<f32>>> {
    if !gguf.has_tensor(name) {
        return Ok(None);
    }
    let factors = gguf.tensor(name, &[pairs], &Device::Cpu, candle_core::DType::F32)?;
    Ok(Some(factors.to_vec1()?))
}

fn optional_size(gguf: &Gguf, key: &str) -> Result<Option<usize>> {
    let value = gguf.understood(key, gguf.uint_opt(key))?;
    Ok(value.map(|v| usize::try_from(v).unwrap_or(usize::MAX)))
}

fn optional_float(gguf: &Gguf, key: &str) -> Result<Option<f64>> {
    gguf.understood(key, gguf.float_opt(key))
}

fn refuse_experts(gguf: &Gguf, key: &str) -> Result<()> {
    match optional_size(gguf, key)? {
        None | Some(0) => Ok(()),
        Some(n) => Err(Error::Unsupported {
            what: "feed-forward layer",
            found: format!("{n} experts"),
            supported: "dense models without experts".into(),
        }),
    }
}

fn refuse_cap(gguf: &Gguf, key: &str) -> Result<()> {
    match optional_float(gguf, key)? {
        None | Some(0.0) => Ok(()),
        Some(cap) => Err(Error::Unsupported {
            what: "soft cap of logits",
            found: format!("{key} = {cap}"),
            supported: "models without one".into(),
        }),
    }
}

/// Refuses a number that changes what is computed; 0 says nothing in such files.
fn refuse_other(gguf: &Gguf, key: &str, neutral: f64) -> Result<()> {
    match optional_float(gguf, key)? {
        Some(value) if value != neutral && value != 0.0 => Err(Error::Unsupported {
            what: "metadata field",
            found: format!("{key} = {value}"),
            supported: format!("files without it, or with {neutral}"),
        }),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::Representation;
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
        let windowed = config(&window, None).unwrap();
        assert_eq!(windowed.max_position_embeddings, 64);
        assert_eq!((windowed.span(0, 10), windowed.span(0, 50)), (10, 16));
    }

    #[test]
    fn frequencies_follow_base_and_scaling() {
        let base = |v| ("llama.rope.freq_base", Some(v));
        let c = config(&[base(Value::F32(10_000.0))], None).unwrap();
        assert_eq!(c.ropes[0].frequencies, [1.0, 0.01]);
        // An integer is a number too.
        let c = config(&[base(Value::U32(100))], None).unwrap();
        assert_eq!(c.ropes[0].frequencies, [1.0, 0.1]);
        // Linear scaling divides positions, in the newer and the older spelling.
        for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
            let c = config(&[(key, Some(Value::F32(4.0)))], None).unwrap();
            assert_eq!(c.ropes[0].frequencies, [0.25, 0.0025], "{key}");
        }
        // Llama 3 stores a factor for every pair, which divides its frequency.
        let c = config(&[], Some([1.0, 8.0])).unwrap();
        assert_eq!(c.ropes[0].frequencies, [1.0, 0.00125]);
        assert!(config(&[], Some([1.0, 0.0])).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused =
            |key: &str, value| config(&[(key, Some(value))], None).unwrap_err().to_string();
        let text = |s: &str| Value::String(s.into());
        assert!(refused("general.architecture", text("gpt9")).contains("Mistral"));
        assert!(refused("llama.rope.freq_base", text("1e4")).contains("unexpected type"));
        assert!(refused("llama.rope.scaling.type", text("ntk")).contains("llama3"));
        assert!(refused("llama.rope.dimension_count", Value::U32(6)).contains("2 to 4"));
        assert!(refused("llama.rope.dimension_count", Value::U32(3)).contains("even"));
        assert!(refused("llama.attn_logit_softcapping", Value::F32(30.0)).contains("soft cap"));
        assert!(refused("llama.expert_count", Value::U32(8)).contains("experts"));
        assert!(refused("llama.attention.head_count", Value::U32(0)).contains("heads"));
        assert!(refused("llama.attention.head_count_kv", Value::U32(3)).contains("multiple"));
        assert!(refused("llama.block_count", Value::U32(1 << 20)).contains("layers"));
    }
}
