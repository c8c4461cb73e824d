//! `config.json`, and which files a folder has.

use std::fs;

use serde_json::{Value, json};

use crate::{Folder, assert_says, run};

/// What is said of a folder with a changed configuration.
fn with(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = Folder::of(name);
    folder.json("config.json", change);
    folder.error()
}

/// What is said of a folder with one field changed.
fn field(name: &str, key: &str, value: Value) -> String {
    with(name, |config| config[key] = value)
}

/// What is said of a folder without a field.
fn without(name: &str, key: &str) -> String {
    with(name, |config| {
        config.as_object_mut().unwrap().remove(key).unwrap();
    })
}

#[test]
fn folders_without_what_a_model_needs_say_what_it_is() {
    let empty = tempfile::tempdir().unwrap();
    let said = run(empty.path()).unwrap_err().to_string();
    assert_says(&said, &["no .gguf file and no .safetensors file"]);
    let folder = Folder::of("llama");
    fs::remove_file(folder.path("config.json")).unwrap();
    assert_says(&folder.error(), &["no config.json"]);
    let folder = Folder::of("llama");
    fs::rename(
        folder.path("model.safetensors"),
        folder.path("pytorch_model.bin"),
    )
    .unwrap();
    assert_says(&folder.error(), &["pytorch_model.bin", "save_pretrained"]);
    let folder = Folder::of("qwen2_sharded");
    fs::remove_file(folder.path("model.safetensors.index.json")).unwrap();
    assert_says(
        &folder.error(),
        &["2 safetensors files", "model.safetensors.index.json"],
    );
    let folder = Folder::of("qwen2_sharded");
    fs::remove_file(folder.path("model-00002-of-00002.safetensors")).unwrap();
    let shard = "model-00002-of-00002.safetensors";
    assert_says(&folder.error(), &["index.json", shard, "download it"]);
}

#[test]
fn what_is_no_configuration_is_refused() {
    let folder = Folder::of("llama");
    let whole = fs::read(folder.path("config.json")).unwrap();
    for (bytes, part) in [
        (&b""[..], "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b"{\"a\":\n,}", "line 2"),
        (b"\xff\xfe{}", "not valid JSON"),
        (&whole[..whole.len() / 2], "not valid JSON"),
        ("[".repeat(100_000).as_bytes(), "not valid JSON"),
        (b"{}", "lacks the field model_type"),
    ] {
        folder.write("config.json", bytes);
        assert_says(&folder.error(), &["config.json", part]);
    }
    let file = fs::File::create(folder.path("config.json")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    assert_says(&folder.error(), &["config.json", "larger than 64 MB"]);
}

#[test]
fn architectures_of_other_kinds_are_refused_by_name() {
    for (kind, parts) in [
        ("mixtral", ["mixtral", "mixture of experts"]),
        ("qwen3_moe", ["qwen3_moe", "mixture of experts"]),
        ("jamba", ["jamba", "recurrent"]),
        ("qwen3_next", ["qwen3_next", "recurrent"]),
        ("deepseek_v3", ["deepseek_v3", "latent"]),
        ("gpt_neox", ["gpt_neox", "Mistral"]),
    ] {
        assert_says(&field("llama", "model_type", json!(kind)), &parts);
    }
    let said = field("llama", "num_local_experts", json!(8));
    assert_says(&said, &["config.json", "num_local_experts = 8", "dense"]);
    let said = field(
        "llama",
        "quantization_config",
        json!({"quant_method": "gptq"}),
    );
    assert_says(&said, &["config.json", "gptq", "GGUF"]);
    let said = field("llama", "quantization_config", json!({}));
    assert_says(&said, &["config.json", "quantisation"]);
    let said = field("gemma3", "attn_logit_softcapping", json!(50.0));
    assert_says(&said, &["config.json", "attn_logit_softcapping"]);
    let said = field("llama", "hidden_act", json!("relu"));
    assert_says(&said, &["config.json", "hidden_act = relu", "silu"]);
}

#[test]
fn scalings_that_are_unknown_or_incomplete_name_their_key() {
    let said = with("llama3", |c| c["rope_scaling"]["rope_type"] = json!("ntk"));
    assert_says(&said, &["config.json", "RoPE scaling", "ntk", "longrope"]);
    for (name, key) in [
        ("llama3", "factor"),
        ("llama3", "low_freq_factor"),
        ("llama3", "high_freq_factor"),
        ("llama3", "original_max_position_embeddings"),
        ("llama_linear", "factor"),
        ("llama_yarn", "factor"),
        ("phi3", "short_factor"),
        ("phi3", "long_factor"),
    ] {
        let said = with(name, |config| {
            config["rope_scaling"]
                .as_object_mut()
                .unwrap()
                .remove(key)
                .unwrap();
        });
        assert_says(
            &said,
            &[
                "config.json",
                &format!("lacks the field rope_scaling.{key}"),
            ],
        );
        let said = with(name, |config| config["rope_scaling"][key] = json!("many"));
        assert_says(
            &said,
            &["config.json", &format!("rope_scaling.{key} = \"many\"")],
        );
    }
    for (name, key, value) in [
        ("llama3", "factor", json!(0)),
        ("llama3", "low_freq_factor", json!(0)),
        ("llama3", "high_freq_factor", json!(0.5)),
        ("llama_linear", "factor", json!(-1)),
        ("llama_yarn", "factor", json!(0)),
        ("llama_yarn", "beta_fast", json!(0)),
        ("llama_yarn", "attention_factor", json!(1e300)),
        ("phi3", "attention_factor", json!(-1)),
        ("phi3", "short_factor", json!([1, 2, 3])),
        ("phi3", "long_factor", json!([0, 0, 0, 0, 0, 0, 0, 0])),
    ] {
        let said = with(name, |config| config["rope_scaling"][key] = value);
        assert_says(&said, &["config.json", "RoPE"]);
    }
    // The magnitude would be a division by the logarithm of one.
    let said = field("phi3", "original_max_position_embeddings", json!(1));
    assert_says(&said, &["config.json", "RoPE magnitude"]);
    let said = field("phi3_partial", "partial_rotary_factor", json!(1.5));
    assert_says(&said, &["config.json", "partial_rotary_factor of 1.5"]);
    let said = field("phi3_partial", "partial_rotary_factor", json!(0.2));
    assert_says(&said, &["config.json", "3 dimensions"]);
    for theta in [json!(0), json!(-1), json!(1e300)] {
        assert_says(
            &field("llama", "rope_theta", theta),
            &["config.json", "RoPE base"],
        );
    }
    let said = field("gemma3", "rope_local_base_freq", json!(0));
    assert_says(&said, &["config.json", "RoPE base"]);
}

#[test]
fn kinds_of_layers_that_do_not_fit_are_refused() {
    let said = field("gemma3", "layer_types", json!(["full_attention"]));
    assert_says(
        &said,
        &["config.json", "lists 1 layer_types, but has 4 layers"],
    );
    let kinds = json!([
        "sliding_attention",
        "full_attention",
        "linear_attention",
        "full_attention"
    ]);
    let said = field("gemma3", "layer_types", kinds);
    assert_says(
        &said,
        &[
            "config.json",
            "layer type",
            "linear_attention",
            "sliding_attention",
        ],
    );
    let said = field("gemma3", "layer_types", json!([1, 2, 3, 4]));
    assert_says(&said, &["config.json", "layer_types", "a list of texts"]);
    for window in [json!(-1), json!(1.5), json!("16")] {
        let said = field("mistral", "sliding_window", window);
        assert_says(&said, &["config.json", "sliding_window", "whole number"]);
    }
    let said = field("mistral", "sliding_window", json!(u64::MAX));
    assert_says(
        &said,
        &["config.json", "sliding window of 18446744073709551615"],
    );
    let said = with("gemma3", |config| {
        config["layer_types"] = Value::Null;
        config["sliding_window_pattern"] = json!(0);
    });
    assert_says(&said, &["config.json", "sliding_window_pattern"]);
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    for (key, value, part) in [
        ("num_hidden_layers", json!(0), "number of layers of 0"),
        ("num_hidden_layers", json!(1u64 << 40), "number of layers"),
        ("num_attention_heads", json!(0), "number of heads of 0"),
        (
            "num_key_value_heads",
            json!(3),
            "multiple of its 3 KV heads",
        ),
        ("num_key_value_heads", json!(0), "number of KV heads of 0"),
        ("head_dim", json!(7), "odd head dimension of 7"),
        ("head_dim", json!(0), "head dimension of 0"),
        ("hidden_size", json!(1u64 << 60), "embedding length"),
        ("intermediate_size", json!(u64::MAX), "feed-forward length"),
        ("max_position_embeddings", json!(0), "context length of 0"),
        ("vocab_size", json!(0), "vocabulary of 0"),
        ("vocab_size", json!(-5), "vocab_size = -5"),
        ("rms_norm_eps", json!(-1.0), "epsilon of -1"),
        ("rms_norm_eps", json!("small"), "rms_norm_eps = \"small\""),
        ("tie_word_embeddings", json!(1), "tie_word_embeddings = 1"),
        ("model_type", json!(["llama"]), "model_type"),
        ("rope_scaling", json!([8]), "rope_scaling = [8]"),
    ] {
        assert_says(&field("llama", key, value), &["config.json", part]);
    }
    for key in [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    ] {
        let said = without("llama", key);
        assert_says(&said, &["config.json", &format!("lacks the field {key}")]);
    }
    for scalar in [json!(0), json!(-4.0)] {
        let said = field("gemma3", "query_pre_attn_scalar", scalar);
        assert_says(&said, &["config.json", "attention scale"]);
    }
}
