//! Names of tensors: those of GGUF files, by which this program asks, and those of Hugging Face checkpoints.

use crate::model::config::Family;

/// What the names of a checkpoint's own decoder may begin with; the longer ones are those of models that see images.
pub(super) const STARTS: [&str; 3] = ["model.", "language_model.model.", "model.language_model."];

/// Beginnings of tensors that belong to what sees images, and endings of what the decoder computes itself.
const NOT_OF_THE_DECODER: [&str; 6] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
    "vision_model.",
    "visual.",
];

/// Whether a checkpoint's tensor is no part of the decoder that reads text.
pub(super) fn is_foreign(name: &str) -> bool {
    NOT_OF_THE_DECODER
        .iter()
        .any(|start| name.starts_with(start))
        || name.ends_with("rotary_emb.inv_freq")
}

/// What a checkpoint calls a tensor of the decoder whose names begin with `start`.
pub(super) fn in_checkpoint(name: &str, start: &str, family: &Family) -> String {
    match name {
        "token_embd.weight" => return format!("{start}embed_tokens.weight"),
        "output_norm.weight" => return format!("{start}norm.weight"),
        "output.weight" => {
            // The head lies beside the decoder, wherever that is.
            let outer = start.strip_suffix("model.").unwrap_or_default();
            let outer = if outer.ends_with('.') { outer } else { "" };
            return format!("{outer}lm_head.weight");
        }
        _ => {}
    }
    let parts = name.strip_prefix("blk.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        Some((layer, part, kind))
    });
    let Some((layer, part, kind)) = parts else {
        return format!("{start}{name}");
    };
    let own = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if family.branch_norms => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" if family.fused => "mlp.gate_up_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "post_ffw_norm" => "post_feedforward_layernorm",
        other => other,
    };
    format!("{start}layers.{layer}.{own}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::FAMILIES;

    #[test]
    fn names_follow_the_family() {
        let [llama, gemma, phi] = ["llama", "gemma3", "phi3"]
            .map(|name| FAMILIES.iter().find(|f| f.architecture == name).unwrap());
        for (family, name, want) in [
            (llama, "token_embd.weight", "model.embed_tokens.weight"),
            (llama, "output.weight", "lm_head.weight"),
            (
                llama,
                "blk.12.attn_q.weight",
                "model.layers.12.self_attn.q_proj.weight",
            ),
            (
                llama,
                "blk.0.attn_q.bias",
                "model.layers.0.self_attn.q_proj.bias",
            ),
            (
                llama,
                "blk.0.ffn_norm.weight",
                "model.layers.0.post_attention_layernorm.weight",
            ),
            (
                gemma,
                "blk.0.ffn_norm.weight",
                "model.layers.0.pre_feedforward_layernorm.weight",
            ),
            (
                phi,
                "blk.3.ffn_up.weight",
                "model.layers.3.mlp.gate_up_proj.weight",
            ),
        ] {
            assert_eq!(in_checkpoint(name, "model.", family), want);
        }
        let head = |start| in_checkpoint("output.weight", start, gemma);
        assert_eq!(
            head("language_model.model."),
            "language_model.lm_head.weight"
        );
        assert_eq!(head("model.language_model."), "lm_head.weight");
    }
}
