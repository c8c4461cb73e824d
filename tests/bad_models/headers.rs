//! Headers of safetensors files that lie, and files that are cut short.

use std::fs;
use std::time::{Duration, Instant};

use kvprof::compute::memory::peak_resident_bytes;
use serde_json::{Value, json};

use crate::{Folder, assert_says};

const NORM: &str = "model.norm.weight";

/// Header and data of the weights.
fn parts(folder: &Folder) -> (Value, Vec<u8>) {
    let bytes = fs::read(folder.path("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (header, bytes[8 + length..].to_vec())
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

/// What is said of weights with a changed header.
fn with(change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> String {
    let folder = Folder::of("llama");
    let (mut header, mut data) = parts(&folder);
    change(&mut header, &mut data);
    folder.write("model.safetensors", file(&header.to_string(), &data));
    folder.error()
}

fn says(said: &str, more: &[&str]) {
    assert_says(said, &[&["model.safetensors", "damaged"], more].concat());
}

#[test]
fn headers_that_do_not_fit_their_file_are_refused_and_nothing_is_allocated_for_them() {
    let (start, before) = (Instant::now(), peak_resident_bytes());
    for length in [1u64 << 63, u64::MAX, 1 << 40, 200_000] {
        let folder = Folder::of("llama");
        let mut bytes = fs::read(folder.path("model.safetensors")).unwrap();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        folder.write("model.safetensors", bytes);
        says(&folder.error(), &[&length.to_string()]);
    }
    for shape in [
        json!([1u64 << 40]),
        json!([1u64 << 40, 1u64 << 40]),
        json!([u64::MAX, 2]),
        json!([1u64 << 62]),
        json!([31]),
        json!([]),
    ] {
        says(&with(|header, _| header[NORM]["shape"] = shape), &[NORM]);
    }
    // Offsets that agree with such a shape lie over the end of the file.
    let wild = with(|header, data| {
        let entry = json!({"dtype": "F32", "shape": [1u64 << 40],
            "data_offsets": [data.len(), data.len() as u64 + (1u64 << 42)]});
        header["wild"] = entry;
    });
    says(
        &wild,
        &["tensor wild ends at byte", "download the file again"],
    );
    // Eight of the largest together come round to the beginning again.
    let round = with(|header, data| {
        let mut at = data.len() as u64;
        for tensor in 0..8u64 {
            let bytes = (1u64 << 61) - if tensor == 7 { at } else { 8 };
            let end = at.wrapping_add(bytes);
            header[format!("wild{tensor}")] =
                json!({"dtype": "U8", "shape": [bytes], "data_offsets": [at, end]});
            at = end;
        }
    });
    says(&round, &["wild0"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    if let (Some(before), Some(after)) = (before, peak_resident_bytes()) {
        assert!(after - before < 512 << 20, "{before} {after}");
    }
}

#[test]
fn offsets_that_overlap_or_leave_gaps_name_their_tensor() {
    let moved = |start: i64, end: i64| {
        with(|header, _| {
            let offsets = header[NORM]["data_offsets"].clone();
            let [from, to] = [0, 1].map(|i| offsets[i].as_i64().unwrap());
            header[NORM]["data_offsets"] = json!([from + start, to + end]);
        })
    };
    for (start, end) in [(0, 4), (0, -4), (4, 4), (-4, -4), (4, 0), (-4, 0)] {
        let said = moved(start, end);
        assert_says(&said, &["model.safetensors", "damaged", "tensor "]);
    }
    let backwards = with(|header, _| header[NORM]["data_offsets"] = json!([128, 0]));
    says(&backwards, &["tensor "]);
    let negative = with(|header, _| header[NORM]["data_offsets"] = json!([-1, 4]));
    says(&negative, &[NORM]);
    let more = with(|_, data| data.extend([0; 100]));
    says(&more, &["100 bytes belong to no tensor"]);
    let fewer = with(|_, data| data.truncate(data.len() - 1));
    says(&fewer, &["ends at byte", "download the file again"]);
}

#[test]
fn entries_that_cannot_be_read_are_named() {
    for (key, value) in [
        ("dtype", json!("F31")),
        ("dtype", json!(3)),
        ("shape", json!("wide")),
        ("shape", json!([1.5])),
        ("shape", json!([-1])),
        ("data_offsets", json!([1])),
        ("data_offsets", json!(null)),
    ] {
        says(&with(|header, _| header[NORM][key] = value), &[NORM]);
    }
    says(&with(|header, _| header[NORM] = json!(7)), &[NORM]);
    says(&with(|header, _| *header = json!([])), &["header"]);
    says(&with(|header, _| header["__metadata__"] = json!(7)), &[]);
    // One name twice.
    let folder = Folder::of("llama");
    let (header, data) = parts(&folder);
    let (entry, mut text) = (header[NORM].to_string(), header.to_string());
    text.insert_str(1, &format!("\"{NORM}\":{entry},"));
    folder.write("model.safetensors", file(&text, &data));
    says(&folder.error(), &[NORM, "twice"]);
    for text in ["", "{", "nonsense", "{\"a\":", "\u{0}\u{0}"] {
        folder.write("model.safetensors", file(text, &data));
        says(&folder.error(), &["header cannot be read"]);
    }
    let mut bytes = file("xxxx", &data);
    bytes[8..12].copy_from_slice(&[0xff; 4]);
    folder.write("model.safetensors", bytes);
    says(&folder.error(), &["header cannot be read"]);
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["llama_bf16", "qwen2_sharded"] {
        let folder = Folder::of(name);
        let file = match name {
            "qwen2_sharded" => "model-00002-of-00002.safetensors",
            _ => "model.safetensors",
        };
        let whole = fs::read(folder.path(file)).unwrap();
        let ends = (0..40).chain((40..whole.len()).step_by(1999));
        for end in ends.chain([whole.len() - 1]) {
            folder.write(file, &whole[..end]);
            assert_says(&folder.error(), &[file, "damaged"]);
        }
    }
}
