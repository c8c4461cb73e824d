//! Tensors that are missing, misshapen, left over, of other formats, or no numbers.

use std::fs;

use safetensors::Dtype;
use serde_json::json;

use crate::{Folder, Stored, assert_says};

const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";
const NORM: &str = "model.layers.0.input_layernorm.weight";

#[test]
fn missing_and_misshapen_tensors_are_named_with_both_shapes() {
    for name in [
        QUERY,
        NORM,
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
    ] {
        let folder = Folder::of("llama");
        folder.tensors(|all| all.retain(|t| t.0 != name));
        assert_says(
            &folder.error(),
            &["model.safetensors", "lacks the tensor", name],
        );
        let folder = Folder::of("llama");
        folder.tensor(name, |t| t.2 = vec![t.3.len() / 4, 1]);
        assert_says(
            &folder.error(),
            &["model.safetensors", name, "has shape", "expected ["],
        );
    }
    let folder = Folder::of("qwen2");
    let bias = "model.layers.2.self_attn.k_proj.bias";
    folder.tensors(|all| all.retain(|t| t.0 != bias));
    assert_says(
        &folder.error(),
        &["model.safetensors", "lacks the tensor", bias],
    );
    let folder = Folder::of("qwen3");
    let norm = "model.layers.0.self_attn.q_norm.weight";
    folder.tensor(norm, |t| t.2 = vec![2, 8]);
    assert_says(&folder.error(), &[norm, "[2, 8]", "[16]"]);
    let folder = Folder::of("phi3");
    let fused = "model.layers.0.self_attn.qkv_proj.weight";
    folder.tensor(fused, |t| t.2.reverse());
    assert_says(&folder.error(), &[fused, "[32, 64]", "[64, 32]"]);
    // A vocabulary of another size than the embedding.
    let folder = Folder::of("llama");
    folder.json("config.json", |config| config["vocab_size"] = json!(301));
    let embedding = "model.embed_tokens.weight";
    assert_says(&folder.error(), &[embedding, "[300, 32]", "[301, 32]"]);
}

#[test]
fn tensors_that_nobody_asks_for_are_no_part_that_is_left_out() {
    let folder = Folder::of("llama");
    let extra = "model.layers.2.self_attn.q_proj.weight";
    let bias = "model.layers.0.self_attn.surprise.bias";
    folder.tensors(|all| {
        all.push((extra.into(), Dtype::F32, vec![2], vec![0; 8]));
        all.push((bias.into(), Dtype::F32, vec![2], vec![0; 8]));
    });
    let path = folder.0.path().display().to_string();
    assert_says(&folder.error(), &[extra, bias, &path]);
}

#[test]
fn formats_that_are_not_read_are_named() {
    let sizes = [
        (Dtype::F8_E4M3, 1),
        (Dtype::F8_E5M2, 1),
        (Dtype::I8, 1),
        (Dtype::U8, 1),
        (Dtype::I32, 4),
        (Dtype::F64, 8),
        (Dtype::BOOL, 1),
    ];
    for (dtype, size) in sizes {
        for name in [QUERY, NORM] {
            let folder = Folder::of("llama");
            folder.tensor(name, |(_, own, shape, bytes)| {
                *own = dtype;
                *bytes = vec![0; shape.iter().product::<usize>() * size];
            });
            let said = folder.error();
            assert_says(
                &said,
                &[
                    "model.safetensors",
                    name,
                    &format!("{dtype:?}"),
                    "BF16",
                    "GGUF",
                ],
            );
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let bits32 = [
        f32::NAN.to_bits(),
        f32::INFINITY.to_bits(),
        f32::NEG_INFINITY.to_bits(),
    ];
    for bits in bits32 {
        for name in [QUERY, NORM, "model.embed_tokens.weight"] {
            let folder = Folder::of("llama");
            folder.tensor(name, |t| t.3[12..16].copy_from_slice(&bits.to_le_bytes()));
            assert_says(
                &folder.error(),
                &["model.safetensors", name, "not finite", "again"],
            );
        }
    }
    for bits in [0x7f80u16, 0xff80, 0x7fc0] {
        for name in [QUERY, NORM] {
            let folder = Folder::of("llama_bf16");
            folder.tensor(name, |t| t.3[6..8].copy_from_slice(&bits.to_le_bytes()));
            assert_says(&folder.error(), &["model.safetensors", name, "not finite"]);
        }
    }
}

#[test]
fn indices_that_lie_are_refused() {
    let index = "model.safetensors.index.json";
    let (first, second) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let folder = Folder::of("qwen2_sharded");
        folder.json(index, change);
        folder.error()
    };
    let moved = changed(&|all| all["weight_map"][NORM] = json!(second));
    assert_says(&moved, &[index, second, NORM, "does not"]);
    let invented = changed(&|all| all["weight_map"]["model.layers.9.x"] = json!(first));
    assert_says(&invented, &[index, first, "model.layers.9.x"]);
    let gone = changed(&|all| all["weight_map"][NORM] = json!("model-00003.safetensors"));
    assert_says(&gone, &[index, "model-00003.safetensors", "not there"]);
    for outside in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "config.json",
    ] {
        let said = changed(&|all| all["weight_map"][NORM] = json!(outside));
        assert_says(&said, &[index, outside]);
    }
    let odd = changed(&|all| all["weight_map"][NORM] = json!(3));
    assert_says(&odd, &[index, "index of shards"]);
    let empty = changed(&|all| all["weight_map"] = json!({}));
    assert_says(&empty, &[index, "no shards"]);
    let none = changed(&|all| *all = json!({"weight": {}}));
    assert_says(&none, &[index, "weight_map"]);
    // The same tensor in both.
    let folder = Folder::of("qwen2_sharded");
    let bytes = fs::read(folder.path(first)).unwrap();
    folder.write(second, bytes);
    assert_says(&folder.error(), &[second, "another shard holds too"]);
}

#[test]
fn weights_of_another_model_do_not_load() {
    let folder = Folder::of("llama");
    let gemma = Folder::of("gemma3");
    fs::copy(
        gemma.path("model.safetensors"),
        folder.path("model.safetensors"),
    )
    .unwrap();
    assert_says(&folder.error(), &["model.safetensors", "tensor"]);
    let folder = Folder::of("qwen2_window");
    folder.json("config.json", |config| {
        config["num_hidden_layers"] = json!(2)
    });
    folder.json("config.json", |config| config["layer_types"] = json!(null));
    assert_says(
        &folder.error(),
        &["model.layers.2.", &folder.0.path().display().to_string()],
    );
    let folder = Folder::of("llama");
    folder.tensors(|all: &mut Vec<Stored>| all.clear());
    assert_says(&folder.error(), &["model.safetensors", "lacks the tensor"]);
}
