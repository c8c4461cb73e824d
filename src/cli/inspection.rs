//! What `kvprof inspect` knows of a model.

use kvprof::budget::{Budget, Geometry};
use kvprof::model::ModelCard;
use kvprof::model::cache::Representation;
use kvprof::model::source::ModelFiles;
use serde_json::{Value, json};

/// Everything that is told of a model.
pub struct Inspection {
    /// Its files; weights may be holes.
    pub files: ModelFiles,
    /// What they say.
    pub card: ModelCard,
    /// Bytes of its weight files.
    pub file_bytes: u64,
    /// Its hash, where it is known without reading all of them.
    pub sha256: Option<String>,
    /// Layers and heads.
    pub geometry: Geometry,
    /// Lengths of text, ascending.
    pub lengths: Vec<usize>,
    /// What is cached of each length.
    pub full: Vec<Held>,
    /// Budgets, and what each keeps at every length.
    pub budgets: Vec<(Budget, Vec<Held>)>,
    /// Type that budgets are counted in.
    pub held_as: Representation,
    /// Whether windowed layers are left out of budgets.
    pub whole_windows: bool,
}

/// How many KV heads hold how many tokens each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held(pub Vec<(usize, usize)>);

impl Held {
    /// Tokens spread evenly over KV heads, added to what others hold.
    pub fn with_spread(mut self, tokens: usize, heads: usize) -> Self {
        let (each, more) = (tokens / heads.max(1), tokens % heads.max(1));
        self.0.extend([(heads - more, each), (more, each + 1)]);
        self
    }

    /// Tokens over all layers and KV heads.
    pub fn tokens(&self) -> usize {
        self.0.iter().map(|(heads, tokens)| heads * tokens).sum()
    }
}

impl Inspection {
    /// Bytes of what is cached.
    pub fn bytes(&self, held: &Held, held_as: Representation) -> usize {
        let of_heads = |&(heads, tokens): &(usize, usize)| {
            heads.saturating_mul(held_as.bytes(tokens, self.geometry.head_dim))
        };
        held.0.iter().map(of_heads).fold(0, usize::saturating_add)
    }

    /// Bytes that one more token among many takes while no window is full, and once all are.
    pub fn bytes_per_token(&self, held_as: Representation) -> [usize; 2] {
        let geometry = &self.geometry;
        [geometry.layers, geometry.global_layers().len()]
            .map(|layers| (layers * geometry.kv_heads) as f64)
            .map(|heads| (heads * held_as.bytes_per_token(geometry.head_dim)).round() as usize)
    }

    /// All of it, for programs.
    pub fn to_json(&self) -> Value {
        let (config, tokens) = (&self.card.config, &self.card.tokens);
        let geometry = &self.geometry;
        let tensors = self.card.tensors.iter();
        let tensors: Vec<Value> = tensors
            .map(|group| json!({"type": group.name, "tensors": group.tensors, "parameters": group.parameters, "bytes": group.bytes}))
            .collect();
        let layers: Vec<Value> = (0..geometry.layers)
            .map(|l| {
                let window = geometry.windows.get(l).copied().flatten();
                let kind = if window.is_some() { "window" } else { "global" };
                json!({"layer": l, "kind": kind, "window": window})
            })
            .collect();
        let caches: Vec<Value> = Representation::that_hold(geometry.head_dim)
            .into_iter()
            .map(|held_as| {
                let [first, later] = self.bytes_per_token(held_as);
                let at = self.lengths.iter().zip(&self.full);
                let at: Vec<Value> = at
                    .map(|(tokens, held)| json!({"tokens": tokens, "bytes": self.bytes(held, held_as)}))
                    .collect();
                json!({
                    "cache_dtype": held_as.to_string(), "bytes_per_token": first,
                    "bytes_per_token_beyond_windows": later, "full": at,
                })
            })
            .collect();
        let budgets: Vec<Value> = self
            .budgets
            .iter()
            .map(|(budget, held)| {
                let at = self.lengths.iter().zip(held);
                let at: Vec<Value> = at
                    .map(|(tokens, held)| {
                        json!({"tokens": tokens, "held_tokens": held.tokens(), "bytes": self.bytes(held, self.held_as)})
                    })
                    .collect();
                json!({"budget": budget.to_string(), "at": at})
            })
            .collect();
        let named = |(id, text): &(u32, String)| json!({"id": id, "text": text});
        let stops: Vec<Value> = tokens.stops.iter().map(named).collect();
        json!({
            "model": self.files.name, "source": self.files.origin, "sha256": self.sha256,
            "architecture": config.family.architecture, "family": config.family.about,
            "file_bytes": self.file_bytes, "tensors": tensors,
            "layers": layers, "query_heads": geometry.heads, "kv_heads": geometry.kv_heads,
            "head_dim": geometry.head_dim, "rotated_dimensions": self.rotated(),
            "hidden_size": config.hidden_size, "feed_forward_size": config.intermediate_size,
            "vocabulary": config.vocab_size, "tied_output_head": config.tie_word_embeddings,
            "context": config.max_position_embeddings,
            "tokenizer": {"tokens": tokens.tokens, "begins_with": tokens.bos.as_ref().map(named), "stop": stops},
            "chat_template": self.card.has_chat_template,
            "caches": caches, "budgets_cache_dtype": self.held_as.to_string(),
            "whole_windows": self.whole_windows, "budgets": budgets,
        })
    }

    /// Dimensions of a head that are rotated.
    pub fn rotated(&self) -> usize {
        let ropes = self.card.config.ropes.first();
        ropes.map_or(0, |rope| 2 * rope.frequencies.len())
    }
}
