//! Captures that are no captures: named, and nothing is written of them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kvprof::profile::{CaptureFolder, CapturedLayers};
use serde_json::{Value, json};

use super::{profiled, prompts, run};
use crate::family_models;

/// Writes a sound capture.
fn sound(at: &Path) {
    let family = family_models::folders().remove(0);
    profiled(&family.files(), &prompts(&[9, 4]), Some(4), at);
}

/// What is said of a capture after something was done to it.
fn said(damage: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    sound(folder.path());
    let path = folder.path().join("capture");
    damage(&path);
    let mut capture = match CaptureFolder::open(&path) {
        Ok(capture) => capture,
        Err(problem) => return problem.to_string(),
    };
    let model = capture.manifest().model_record();
    let run = run(&folder.path().join("profile"), model, Some(4), 2);
    let measured = run.measure_captured(0, &mut capture, 0, &mut |_| ());
    let problem = measured.expect_err("the damage was not seen").to_string();
    assert!(!run.has(0), "{problem}");
    assert!(run.finish().is_err(), "{problem}");
    problem
}

fn in_manifest(change: impl Fn(&mut Value)) -> impl Fn(&Path) {
    move |path| {
        let path = path.join("capture.json");
        let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
}

#[test]
fn manifests_of_other_kinds_are_named() {
    for (field, value, part) in [
        ("version", json!(2), "version 2, this kvprof reads 1"),
        ("version", json!("1"), "version \"1\""),
        ("format", json!("npz"), "its format is not"),
        ("byte_order", json!("big"), "byte order \"big\""),
        ("window", json!(0), "window of 0"),
        ("window", json!(-1), "not the manifest"),
        ("prompts", json!([]), "number of prompts of 0"),
        (
            "prompts",
            json!([{"id": "x", "ids": []}]),
            "prompt x of 0 tokens",
        ),
        ("colour", json!("red"), "unknown field `colour`"),
        ("dtype", Value::Null, "not the manifest"),
        (
            "data",
            json!({"name": "a\nb", "sha256": ""}),
            "control character",
        ),
    ] {
        let text = said(in_manifest(|manifest| manifest[field] = value.clone()));
        assert!(text.contains(part), "{field} {value}: {text}");
        assert!(text.contains("capture.json"), "{text}");
    }
    for (field, value, part) in [
        ("num_heads", json!(5), "cannot share evenly"),
        ("num_kv_heads", json!(0), "num_kv_heads of 0"),
        ("head_dim", json!(1u64 << 40), "head_dim of 1099511627776"),
        ("layers", json!([]), "number of layers of 0"),
        (
            "layers",
            json!([{"window": 0, "scale": 1.0}]),
            "layer 0 has a window of 0 keys",
        ),
        (
            "layers",
            json!([{"window": null, "scale": 1e-300}]),
            "between 0.000001 and 1000000",
        ),
        (
            "layers",
            json!([{"window": null, "scale": -1.0}]),
            "a scale of -1",
        ),
    ] {
        let text = said(in_manifest(|m| m["model"][field] = value.clone()));
        assert!(text.contains(part), "{field} {value}: {text}");
    }
    let text = said(|path| fs::write(path.join("capture.json"), "{").unwrap());
    assert!(text.contains("not the manifest of a capture"), "{text}");
    let text = said(|path| fs::remove_file(path.join("capture.json")).unwrap());
    assert!(text.contains("no capture.json"), "{text}");
}

#[test]
fn layers_that_are_missing_or_others_are_named() {
    let layer =
        |prompt: usize, layer: usize| format!("prompt-{prompt:05}/layer-{layer:03}.safetensors");
    let text = said(|path| fs::remove_file(path.join(layer(1, 1))).unwrap());
    assert!(
        text.contains("lacks prompt-00001/layer-001.safetensors"),
        "{text}"
    );
    assert!(text.contains("--resume"), "{text}");
    let text = said(|path| fs::remove_file(path.join("output-001.safetensors")).unwrap());
    assert!(text.contains("lacks output-001.safetensors"), "{text}");
    let exchange = |from: String, to: String| {
        move |path: &Path| {
            fs::copy(path.join(from), path.join(to)).unwrap();
        }
    };
    let text = said(exchange(layer(0, 1), layer(0, 0)));
    assert!(text.contains("layer \"1\", layer 0 is expected"), "{text}");
    let text = said(exchange(layer(1, 0), layer(0, 0)));
    assert!(
        text.contains("prompt \"1\", prompt 0 is expected"),
        "{text}"
    );
    let text = said(|path| {
        let path = path.join(layer(0, 1));
        let whole = fs::read(&path).unwrap();
        fs::write(path, &whole[..whole.len() - 3]).unwrap();
    });
    assert!(text.contains("damaged or cut short"), "{text}");
    let text = said(|path| fs::write(path.join(layer(0, 1)), b"").unwrap());
    assert!(text.contains("layer-001.safetensors"), "{text}");
    assert!(text.contains("it has 0 bytes"), "{text}");
}

#[test]
fn damage_of_the_last_layer_is_seen_before_the_first_is_measured() {
    let opened = |damage: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        sound(folder.path());
        let path = folder.path().join("capture");
        damage(&path);
        let refused = CaptureFolder::open(&path).err().expect("not seen");
        refused.to_string()
    };
    let last = "prompt-00001/layer-001.safetensors";
    let cut = opened(&|path| {
        let file = fs::OpenOptions::new().write(true).open(path.join(last));
        let file = file.unwrap();
        let whole = file.metadata().unwrap().len();
        file.set_len(whole - 1).unwrap();
    });
    assert!(cut.contains(last) && cut.contains("ends at byte"), "{cut}");
    let other = opened(&|path| {
        fs::copy(
            path.join("output-000.safetensors"),
            path.join("output-001.safetensors"),
        )
        .unwrap();
    });
    assert!(other.contains("layer 1 is expected"), "{other}");
    let header = opened(&|path| fs::write(path.join(last), [255; 64]).unwrap());
    assert!(header.contains("at most 1048576"), "{header}");
    let within = opened(&|path| fs::write(path.join(last), 100u64.to_le_bytes()).unwrap());
    assert!(within.contains("ends in its header"), "{within}");
    let longer = opened(&in_manifest(|manifest| {
        manifest["prompts"][1]["ids"] = json!([1, 2, 3, 4, 5]);
    }));
    assert!(longer.contains("the manifest asks for"), "{longer}");
}

/// Writes a layer of the first prompt anew, with one tensor in the place of another of its name.
fn with_tensor(name: &'static str, of: impl Fn(&Tensor) -> Tensor) -> impl FnOnce(&Path) {
    move |path| {
        let path = path.join("prompt-00000/layer-000.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let other = of(&tensors[name]);
        tensors.insert(name.to_owned(), other);
        let labels = HashMap::from(
            [("prompt", "0"), ("layer", "0")].map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        let bytes = safetensors::serialize(&tensors, Some(labels)).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn tensors_that_contradict_the_manifest_are_named() {
    let text = said(with_tensor("keys", |keys| {
        keys.narrow(1, 0, 8).unwrap().contiguous().unwrap()
    }));
    assert!(text.contains("tensor keys has shape"), "{text}");
    let text = said(with_tensor("values", |values| {
        values.to_dtype(DType::F64).unwrap()
    }));
    assert!(text.contains("tensor values holds F64"), "{text}");
    for bad in [f32::NAN, f32::INFINITY] {
        let text = said(with_tensor("queries", |queries| {
            let mut numbers: Vec<f32> = queries.flatten_all().unwrap().to_vec1().unwrap();
            numbers[3] = bad;
            Tensor::from_vec(numbers, queries.shape(), &Device::Cpu).unwrap()
        }));
        assert!(
            text.contains("tensor queries of layer 0, prompt 0 in") && text.contains("not finite"),
            "{text}"
        );
    }
    // Every number is finite, and what attention gives of them is not.
    let text = said(|path| {
        with_tensor("values", |values| {
            (values.ones_like().unwrap() * 1e30).unwrap()
        })(path);
        let output = path.join("output-000.safetensors");
        let mut tensors = candle_core::safetensors::load(&output, &Device::Cpu).unwrap();
        let large = (tensors["output"].ones_like().unwrap() * 1e30).unwrap();
        tensors.insert("output".to_owned(), large);
        let labels = HashMap::from([("layer".to_owned(), "0".to_owned())]);
        fs::write(
            output,
            safetensors::serialize(&tensors, Some(labels)).unwrap(),
        )
        .unwrap();
    });
    assert!(text.contains("a layer's output"), "{text}");
    let text = said(|path| {
        let path = path.join("prompt-00000/layer-000.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        tensors.remove("values");
        let labels = HashMap::from(
            [("prompt", "0"), ("layer", "0")].map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        fs::write(
            path,
            safetensors::serialize(&tensors, Some(labels)).unwrap(),
        )
        .unwrap();
    });
    assert!(text.contains("lacks the tensor values"), "{text}");
}
