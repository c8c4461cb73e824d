//! Families of decoders: what each does in its own way, one row per family.

use crate::error::{Error, Result};

/// How a weight file lays out the two halves that rotary embedding pairs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Dimension i is paired with i + D/2, as in Hugging Face checkpoints.
    Halves,
    /// Dimension 2i is paired with 2i + 1: GGUF files of Llama store queries and keys so.
    Interleaved,
}

/// What the gate of a feed-forward layer goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The approximation of GELU by a hyperbolic tangent.
    GeluTanh,
}

/// Which layers of a family see a window of keys only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowedLayers {
    /// All, where the model declares a window.
    All,
    /// None unless a `config.json` says which: the family's GGUF files never declare a window.
    AsListed,
    /// All but every so manieth.
    AllButEvery(usize),
}

/// What tells one decoder family from another; a new family is a row of [`FAMILIES`].
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `general.architecture` in a GGUF file.
    pub architecture: &'static str,
    /// `model_type` in a `config.json`.
    pub model_types: &'static [&'static str],
    /// Models known to use it.
    pub about: &'static str,
    /// Layout of queries and keys in a GGUF file.
    pub rope_pairs: RopePairs,
    /// Whether a file without biases of queries, keys and values is damaged.
    pub attention_bias: bool,
    /// Whether every head's queries and keys are normalised before they are rotated.
    pub head_norms: bool,
    /// Whether what attention and feed-forward give is normalised before it is added.
    pub branch_norms: bool,
    /// Whether queries, keys and values lie in one matrix, and gate and up in another.
    pub fused: bool,
    /// Of the feed-forward layer.
    pub activation: Activation,
    /// Whether embeddings are multiplied by the root of the hidden size.
    pub scaled_embedding: bool,
    /// Whether a checkpoint's norms are stored as their distance from one; GGUF files have them whole.
    pub norms_from_one: bool,
    /// Which layers a declared window holds for.
    pub windowed: WindowedLayers,
    /// Whether the output head shares the embedding's weights where a `config.json` does not say.
    pub tied: bool,
}

/// The plain decoder that the others differ from.
const LLAMA: Family = Family {
    architecture: "llama",
    model_types: &["llama", "mistral"],
    about: "Llama 1-3, Mistral, SmolLM, SmolLM2, TinyLlama",
    rope_pairs: RopePairs::Interleaved,
    attention_bias: false,
    head_norms: false,
    branch_norms: false,
    fused: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    norms_from_one: false,
    windowed: WindowedLayers::All,
    tied: false,
};

/// All families that the decoder runs.
pub const FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        architecture: "qwen2",
        model_types: &["qwen2"],
        about: "Qwen2, Qwen2.5",
        rope_pairs: RopePairs::Halves,
        attention_bias: true,
        windowed: WindowedLayers::AsListed,
        ..LLAMA
    },
    Family {
        architecture: "qwen3",
        model_types: &["qwen3"],
        about: "Qwen3",
        rope_pairs: RopePairs::Halves,
        head_norms: true,
        windowed: WindowedLayers::AsListed,
        ..LLAMA
    },
    Family {
        architecture: "gemma3",
        model_types: &["gemma3_text", "gemma3"],
        about: "Gemma 3",
        rope_pairs: RopePairs::Halves,
        head_norms: true,
        branch_norms: true,
        activation: Activation::GeluTanh,
        scaled_embedding: true,
        norms_from_one: true,
        windowed: WindowedLayers::AllButEvery(6),
        tied: true,
        ..LLAMA
    },
    Family {
        architecture: "phi3",
        model_types: &["phi3"],
        about: "Phi-3, Phi-3.5, Phi-4",
        rope_pairs: RopePairs::Halves,
        fused: true,
        ..LLAMA
    },
];

/// How the names of architectures begin whose layers are of another kind, and what kind that is.
const OTHERS: &[(&str, &str)] = &[
    ("mixtral", MIXTURE),
    ("qwen2moe", MIXTURE),
    ("qwen2_moe", MIXTURE),
    ("qwen3moe", MIXTURE),
    ("qwen3_moe", MIXTURE),
    ("llama4", MIXTURE),
    ("phimoe", MIXTURE),
    ("olmoe", MIXTURE),
    ("dbrx", MIXTURE),
    ("grok", MIXTURE),
    ("gpt-oss", MIXTURE),
    ("gpt_oss", MIXTURE),
    ("deepseek", LATENT),
    ("glm4moe", MIXTURE),
    ("glm4_moe", MIXTURE),
    ("granitemoe", MIXTURE),
    ("ernie4_5_moe", MIXTURE),
    ("ernie4_5-moe", MIXTURE),
    ("mamba", HYBRID),
    ("falcon_mamba", HYBRID),
    ("falcon-h1", HYBRID),
    ("falcon_h1", HYBRID),
    ("jamba", HYBRID),
    ("bamba", HYBRID),
    ("zamba", HYBRID),
    ("granitehybrid", HYBRID),
    ("nemotron_h", HYBRID),
    ("plamo2", HYBRID),
    ("lfm2", HYBRID),
    ("rwkv", HYBRID),
    ("recurrent_gemma", HYBRID),
    ("qwen3next", HYBRID),
    ("qwen3_next", HYBRID),
    ("qwen3_5", HYBRID),
    ("qwen35", HYBRID),
    ("minimax", HYBRID),
    ("kimi", HYBRID),
];

const MIXTURE: &str = "a mixture of experts";
const HYBRID: &str = "a hybrid of attention and recurrent layers";
const LATENT: &str = "a model whose cache holds latent vectors in place of keys and values";

/// The row of an architecture, whichever of its names is given.
///
/// Errors: [`Error::Unsupported`] for one that the decoder does not run, by its kind where that is known.
pub(super) fn named(name: &str) -> Result<Family> {
    let is_it = |f: &&Family| f.architecture == name || f.model_types.contains(&name);
    if let Some(family) = FAMILIES.iter().find(is_it) {
        return Ok(*family);
    }
    let known: Vec<_> = FAMILIES
        .iter()
        .map(|f| format!("{} ({})", f.architecture, f.about))
        .collect();
    let kind = OTHERS.iter().find(|(start, _)| name.starts_with(start));
    Err(Error::Unsupported {
        what: "architecture",
        found: match kind {
            Some((_, kind)) => format!("{name}, {kind}"),
            None => name.to_owned(),
        },
        supported: known.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_a_family_find_it() {
        for (name, architecture) in [
            ("llama", "llama"),
            ("mistral", "llama"),
            ("gemma3_text", "gemma3"),
            ("qwen3", "qwen3"),
        ] {
            assert_eq!(named(name).unwrap().architecture, architecture);
        }
    }

    #[test]
    fn others_are_refused_by_their_kind() {
        for (name, kind) in [
            ("mixtral", "experts"),
            ("qwen3_moe", "experts"),
            ("falcon-h1", "recurrent"),
            ("deepseek2", "latent"),
            ("gpt2", "gpt2"),
        ] {
            let error = named(name).unwrap_err().to_string();
            assert!(error.contains(kind) && error.contains(name), "{error}");
        }
    }
}
