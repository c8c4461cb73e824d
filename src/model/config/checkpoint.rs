//! A model's geometry from the `config.json` of a Hugging Face folder.

use super::family::{self, Activation, Family, WindowedLayers};
use super::rope::{Rope, SCALINGS, Scaling, long_magnitude, rope};
use super::{LayerKind, ModelConfig, check_every, check_rotated, declared, layers};
use crate::error::{Error, Result};
use crate::model::json_fields::JsonFields;

/// What a family's class in transformers takes for fields that its published files leave out.
struct Unsaid {
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    vocabulary: Option<usize>,
    context: Option<usize>,
    epsilon: Option<f64>,
    theta: f64,
    window: Option<usize>,
    query_scalar: Option<f64>,
    original_context: Option<usize>,
}

impl Unsaid {
    const NOTHING: Self = Self {
        heads: None,
        kv_heads: None,
        head_dim: None,
        vocabulary: None,
        context: None,
        epsilon: None,
        theta: 10_000.0,
        window: None,
        query_scalar: None,
        original_context: None,
    };

    fn of(model_type: &str) -> Self {
        match model_type {
            "gemma3_text" | "gemma3" => Self {
                heads: Some(8),
                kv_heads: Some(4),
                head_dim: Some(256),
                vocabulary: Some(262_208),
                context: Some(131_072),
                epsilon: Some(1e-6),
                theta: 1e6,
                window: Some(4096),
                query_scalar: Some(256.0),
                ..Self::NOTHING
            },
            "mistral" => Self {
                window: Some(4096),
                ..Self::NOTHING
            },
            "qwen2" => Self {
                window: Some(4096),
                ..Self::NOTHING
            },
            "qwen3" => Self {
                window: Some(4096),
                head_dim: Some(128),
                ..Self::NOTHING
            },
            "phi3" => Self {
                original_context: Some(4096),
                ..Self::NOTHING
            },
            _ => Self::NOTHING,
        }
    }
}

impl ModelConfig {
    /// Reads the configuration of a Hugging Face folder.
    ///
    /// Errors: [`Error::Unsupported`] for a family or feature that the decoder lacks, [`Error::Format`] for fields
    /// that are missing or do not fit together.
    pub(in crate::model) fn from_json(all: &JsonFields) -> Result<Self> {
        let model_type = all.required("model_type", all.text("model_type")?)?;
        let mut family = family::named(model_type)?;
        let unsaid = Unsaid::of(model_type);
        // Models that also see images keep the part that reads text in an object of its own.
        let inner = all.object("text_config")?;
        let fields = inner.as_ref().unwrap_or(all);
        refuse_features(all, fields, family)?;
        // Weights that lack what their configuration declares are damaged.
        family.attention_bias |= fields.flag("attention_bias")? == Some(true);
        let size =
            |key: &str, unsaid: Option<usize>| fields.required(key, fields.size(key)?.or(unsaid));
        let heads = size("num_attention_heads", unsaid.heads)?;
        let hidden_size = size("hidden_size", None)?;
        let quotient = hidden_size.checked_div(heads).unwrap_or(0);
        let epsilon = fields.number("rms_norm_eps")?.or(unsaid.epsilon);
        let scalar = fields
            .number("query_pre_attn_scalar")?
            .or(unsaid.query_scalar);
        let tied = match fields.flag("tie_word_embeddings")? {
            Some(tied) => tied,
            None => all.flag("tie_word_embeddings")?.unwrap_or(family.tied),
        };
        let kinds = layer_kinds(fields, family, model_type, &unsaid)?;
        let mut config = Self {
            family,
            vocab_size: size("vocab_size", unsaid.vocabulary)?,
            hidden_size,
            intermediate_size: size("intermediate_size", None)?,
            layers: kinds,
            num_attention_heads: heads,
            num_key_value_heads: (fields.size("num_key_value_heads")?)
                .or(unsaid.kv_heads)
                .unwrap_or(heads),
            head_dim: (fields.size("head_dim")?)
                .or(unsaid.head_dim)
                .unwrap_or(quotient),
            max_position_embeddings: size("max_position_embeddings", unsaid.context)?,
            rms_norm_eps: fields.required("rms_norm_eps", epsilon)?,
            ropes: Vec::new(),
            attention_scale: None,
            tie_word_embeddings: tied,
        };
        if let Some(scalar) = scalar.filter(|s| *s != config.head_dim as f64) {
            config.attention_scale = Some(1.0 / scalar.sqrt());
        }
        config.check(fields.path())?;
        config.ropes = ropes(fields, &config, &unsaid)?;
        Ok(config)
    }
}

fn unsupported(fields: &JsonFields, what: &'static str, found: String, supported: &str) -> Error {
    Error::Unsupported {
        what,
        found: format!("{found} in {}", fields.path().display()),
        supported: supported.into(),
    }
}

/// Refuses what would be computed in another way than the model was trained.
fn refuse_features(all: &JsonFields, fields: &JsonFields, family: Family) -> Result<()> {
    if let Some(method) = all.object("quantization_config")? {
        let kind = method.text("quant_method")?.unwrap_or("of an unknown kind");
        return Err(unsupported(
            fields,
            "quantisation",
            kind.to_owned(),
            "f32, f16 and bf16 checkpoints, and GGUF files",
        ));
    }
    for key in ["num_local_experts", "num_experts", "n_routed_experts"] {
        if let Some(experts) = fields.size(key)?.filter(|n| *n > 0) {
            let found = format!("{key} = {experts}");
            return Err(unsupported(
                fields,
                "feed-forward layer",
                found,
                "dense models without experts",
            ));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = fields.number(key)? {
            return Err(unsupported(
                fields,
                "soft cap of logits",
                format!("{key} = {cap}"),
                "models without one",
            ));
        }
    }
    if fields.flag("use_bidirectional_attention")? == Some(true) {
        return Err(unsupported(
            fields,
            "attention",
            "in both directions".into(),
            "causal attention",
        ));
    }
    let known: &[&str] = match family.activation {
        Activation::Silu => &["silu", "swish"],
        Activation::GeluTanh => &["gelu_pytorch_tanh"],
    };
    for key in ["hidden_act", "hidden_activation"] {
        if let Some(found) = fields.text(key)?
            && !known.contains(&found)
        {
            return Err(unsupported(
                fields,
                "activation",
                format!("{key} = {found}"),
                known[0],
            ));
        }
    }
    Ok(())
}

/// Which layers see a window, of which size.
fn layer_kinds(
    fields: &JsonFields,
    family: Family,
    model_type: &str,
    unsaid: &Unsaid,
) -> Result<Vec<LayerKind>> {
    let count = fields.required("num_hidden_layers", fields.size("num_hidden_layers")?)?;
    let mut window = fields.size("sliding_window")?;
    // A field that is null says that there is none.
    if window.is_none() && !fields.has("sliding_window") {
        window = unsaid.window;
    }
    let has_window = match model_type {
        "llama" => false,
        "qwen2" | "qwen3" => fields.flag("use_sliding_window")? == Some(true),
        _ => true,
    };
    let window = window.filter(|w| has_window && *w > 0);
    let own_rope = usize::from(matches!(family.windowed, WindowedLayers::AllButEvery(_)));
    let kind = |windowed: bool| match window {
        Some(_) if windowed => LayerKind {
            window,
            rope: own_rope,
        },
        _ => LayerKind::GLOBAL,
    };
    if let Some(listed) = fields.texts("layer_types")? {
        if listed.len() != count {
            return Err(Error::format(
                fields.path(),
                format!("lists {} layer_types, but has {count} layers", listed.len()),
            ));
        }
        let listed = listed.into_iter().map(|name| match name {
            "full_attention" => Ok(kind(false)),
            "sliding_attention" => Ok(kind(true)),
            other => Err(unsupported(
                fields,
                "layer type",
                other.to_owned(),
                "full_attention, sliding_attention",
            )),
        });
        let listed: Vec<LayerKind> = listed.collect::<Result<_>>()?;
        // Classes that do not read the list have the same kind throughout.
        if family.windowed == WindowedLayers::All && listed.iter().any(|own| *own != kind(true)) {
            let found =
                format!("layer_types of a {model_type} that differ from its sliding_window");
            let supported = "lists for qwen2, qwen3 and gemma3, whose classes read them";
            return Err(unsupported(fields, "layer type", found, supported));
        }
        return Ok(listed);
    }
    Ok(match family.windowed {
        WindowedLayers::All => layers(count, |_| kind(true)),
        WindowedLayers::AsListed => {
            let first = fields.size("max_window_layers")?.unwrap_or(28);
            layers(count, |l| kind(l >= first))
        }
        WindowedLayers::AllButEvery(usual) => {
            let key = "sliding_window_pattern";
            let every = fields.size(key)?.unwrap_or(usual);
            check_every(fields.path(), key, every)?;
            layers(count, |l| kind(!(l + 1).is_multiple_of(every)))
        }
    })
}

/// The rotary embedding of all layers, and of those with a window where it is another one.
fn ropes(fields: &JsonFields, config: &ModelConfig, unsaid: &Unsaid) -> Result<Vec<Rope>> {
    let path = fields.path();
    // Newer files keep all of it in one object, or in one for each kind of layer.
    let newer = fields.object("rope_parameters")?;
    let by_kind = |kind: &str| newer.as_ref().map_or(Ok(None), |all| all.object(kind));
    let own = by_kind("full_attention")?.or(newer.clone());
    let key = "partial_rotary_factor";
    let part = match &own {
        Some(own) if own.has(key) => own.number(key)?,
        _ => fields.number(key)?,
    };
    let part = part.unwrap_or(1.0);
    if !(part > 0.0 && part <= 1.0) {
        let problem = format!("declares a partial_rotary_factor of {part}, expected above 0 to 1");
        return Err(Error::format(path, problem));
    }
    let rotated = (config.head_dim as f64 * part) as usize;
    check_rotated(path, rotated, config.head_dim)?;
    let built =
        |theta, scaling: &Scaling| rope(theta, rotated, scaling).map_err(|e| declared(path, e));
    let theta = base(own.as_ref())?.or(fields.number("rope_theta")?);
    let scaling = match own.or(fields.object("rope_scaling")?) {
        Some(own) => scaling(fields, &own, config, unsaid)?,
        None => Scaling::None,
    };
    let mut ropes = vec![built(theta.unwrap_or(unsaid.theta), &scaling)?];
    if config.layers.iter().any(|kind| kind.rope == 1) {
        let own = by_kind("sliding_attention")?;
        if let Some(own) = &own
            && let Some(kind) = own.text("rope_type")?.filter(|kind| *kind != "default")
        {
            let found = format!("{kind} in layers with a window");
            return Err(unsupported(
                fields,
                "RoPE scaling",
                found,
                "none in layers with a window",
            ));
        }
        let theta = base(own.as_ref())?.or(fields.number("rope_local_base_freq")?);
        ropes.push(built(theta.unwrap_or(10_000.0), &Scaling::None)?);
    }
    Ok(ropes)
}

fn base(own: Option<&JsonFields>) -> Result<Option<f64>> {
    own.map_or(Ok(None), |own| own.number("rope_theta"))
}

/// How the model stretches frequencies.
fn scaling(
    fields: &JsonFields,
    own: &JsonFields,
    config: &ModelConfig,
    unsaid: &Unsaid,
) -> Result<Scaling> {
    let kind = match own.text("rope_type")? {
        Some(kind) => kind,
        None => own.text("type")?.unwrap_or("default"),
    };
    let number = |key: &str| own.required(key, own.number(key)?);
    let own_original = own.number("original_max_position_embeddings")?;
    // Phi-3's first files gave longrope two other names.
    let long = matches!(kind, "longrope" | "su")
        || kind == "yarn" && config.family.fused && own.value("long_factor").is_some();
    match kind {
        _ if long => {
            let outer = fields.size("original_max_position_embeddings")?;
            let original = outer
                .or(own.size("original_max_position_embeddings")?)
                .or(unsaid.original_context);
            let factor = own.number("factor")?;
            let (original, context) = match (original, factor) {
                (Some(original), _) => (original, config.max_position_embeddings as f64),
                (None, factor) => {
                    let own = config.max_position_embeddings;
                    (own, own as f64 * factor.unwrap_or(1.0))
                }
            };
            let magnitude = own.number("attention_factor")?;
            let factors = |key: &str| -> Result<Vec<f32>> {
                let all = own.required(key, own.numbers(key)?)?;
                Ok(all.into_iter().map(|f| f as f32).collect())
            };
            Ok(Scaling::Long {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                original,
                magnitude: magnitude.unwrap_or_else(|| long_magnitude(context, original as f64)),
            })
        }
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear(number("factor")?)),
        "llama3" => Ok(Scaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: number("original_max_position_embeddings")?,
        }),
        "yarn" => {
            for key in ["mscale", "mscale_all_dim"] {
                if let Some(value) = own.number(key)? {
                    let found = format!("yarn with {key} = {value}");
                    return Err(unsupported(own, "RoPE scaling", found, "yarn without it"));
                }
            }
            if own.flag("truncate")? == Some(false) {
                let found = "yarn with truncate = false".to_owned();
                return Err(unsupported(
                    own,
                    "RoPE scaling",
                    found,
                    "yarn that truncates",
                ));
            }
            Ok(Scaling::Yarn {
                factor: number("factor")?,
                original: own_original.unwrap_or(config.max_position_embeddings as f64),
                beta_fast: own.number("beta_fast")?.unwrap_or(32.0),
                beta_slow: own.number("beta_slow")?.unwrap_or(1.0),
                magnitude: own.number("attention_factor")?,
            })
        }
        other => Err(unsupported(own, "RoPE scaling", other.to_owned(), SCALINGS)),
    }
}
