//! GGUF files whose keys for windows, factors and head dimensions do not fit.

use std::fs;
use std::io::{BufReader, Cursor};
use std::time::{Duration, Instant};

use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::{Device, Tensor};
use kvprof::compute::memory::peak_resident_bytes;

use crate::{assert_says, family_models, run};

/// A fixture's file with changed fields and tensors.
struct File {
    fields: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

impl File {
    fn of(name: &str) -> Self {
        let path = family_models::folder().join(name).join("model.gguf");
        let mut reader = BufReader::new(fs::File::open(path).unwrap());
        let content = Content::read(&mut reader).unwrap();
        let mut names: Vec<&String> = content.tensor_infos.keys().collect();
        names.sort();
        let tensor = |name: &String| {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
            (name.clone(), tensor)
        };
        let tensors = names.into_iter().map(tensor).collect();
        Self {
            fields: content.metadata.into_iter().collect(),
            tensors,
        }
    }

    fn with(mut self, key: &str, value: Option<Value>) -> Self {
        self.fields.retain(|(name, _)| name != key);
        self.fields
            .extend(value.map(|value| (key.to_owned(), value)));
        self
    }

    fn with_tensor(mut self, name: &str, numbers: Option<Vec<f32>>) -> Self {
        self.tensors.retain(|(own, _)| own != name);
        if let Some(numbers) = numbers {
            let tensor = Tensor::new(numbers, &Device::Cpu).unwrap();
            let format = candle_core::quantized::GgmlDType::F32;
            let tensor = QTensor::quantize(&tensor, format).unwrap();
            self.tensors.push((name.to_owned(), tensor));
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let fields: Vec<(&str, &Value)> = self.fields.iter().map(|(k, v)| (&**k, v)).collect();
        let tensors: Vec<(&str, &QTensor)> = self.tensors.iter().map(|(k, t)| (&**k, t)).collect();
        let mut bytes = Cursor::new(Vec::new());
        write(&mut bytes, &fields, &tensors).unwrap();
        bytes.into_inner()
    }

    fn run(&self) -> Result<(), kvprof::error::Error> {
        run_bytes(&self.bytes())
    }

    fn error(&self) -> String {
        self.run().unwrap_err().to_string()
    }
}

fn run_bytes(bytes: &[u8]) -> Result<(), kvprof::error::Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    run(&path)
}

fn field(name: &str, key: &str, value: Value) -> String {
    File::of(name).with(key, Some(value)).error()
}

#[test]
fn the_files_themselves_run_after_being_written_again() {
    for name in ["gemma3", "phi3", "llama3", "qwen3"] {
        File::of(name).run().unwrap();
    }
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let (window, pattern) = (
        "gemma3.attention.sliding_window",
        "gemma3.attention.sliding_window_pattern",
    );
    // Zero is how some converters write that there is none.
    File::of("gemma3")
        .with(window, Some(Value::U32(0)))
        .run()
        .unwrap();
    let said = field("gemma3", window, Value::U64(u64::MAX));
    assert_says(
        &said,
        &["model.gguf", "sliding window of 18446744073709551615"],
    );
    let said = field("gemma3", window, Value::String("wide".into()));
    assert_says(&said, &["model.gguf", window]);
    for flags in [vec![], vec![true; 3], vec![true; 5]] {
        let flags = flags.into_iter().map(Value::Bool).collect();
        let said = field("gemma3", pattern, Value::Array(flags));
        assert_says(&said, &["model.gguf", pattern, "4 layers"]);
    }
    let numbers = Value::Array(vec![Value::U32(1); 4]);
    assert_says(&field("gemma3", pattern, numbers), &["model.gguf", pattern]);
    let said = field("gemma3", pattern, Value::U32(0));
    assert_says(&said, &["model.gguf", pattern]);
    let said = field("qwen3", "qwen3.attention.sliding_window", Value::U32(24));
    assert_says(&said, &["Qwen3", "24 tokens", "Hugging Face folder"]);
    let said = field("gemma3", "gemma3.rope.freq_base_swa", Value::F32(f32::NAN));
    assert_says(&said, &["model.gguf", "RoPE base"]);
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
    for name in [short, long] {
        let said = File::of("phi3")
            .with_tensor(name, Some(vec![1.0; 3]))
            .error();
        assert_says(&said, &["model.gguf", name, "[3]", "[8]"]);
        for number in [0.0, -1.0] {
            let said = File::of("phi3")
                .with_tensor(name, Some(vec![number; 8]))
                .error();
            assert_says(&said, &["model.gguf", "RoPE factor"]);
        }
        let said = File::of("phi3")
            .with_tensor(name, Some(vec![f32::NAN; 8]))
            .error();
        assert_says(&said, &["model.gguf", name, "not finite"]);
        // One without the other would be another model.
        let said = File::of("phi3").with_tensor(name, None).error();
        assert_says(&said, &["model.gguf", "lacks the tensor", name]);
    }
    let said = File::of("llama3")
        .with_tensor("rope_freqs.weight", Some(vec![1.0; 9]))
        .error();
    assert_says(&said, &["model.gguf", "rope_freqs.weight", "[9]", "[8]"]);
    let original = "phi3.rope.scaling.original_context_length";
    assert_says(
        &File::of("phi3").with(original, None).error(),
        &["model.gguf", original],
    );
    assert_says(
        &field("phi3", original, Value::U32(0)),
        &["model.gguf", "RoPE original context"],
    );
    let factor = "phi3.rope.scaling.attn_factor";
    let file = File::of("phi3").with(factor, None);
    let said = file.with(original, Some(Value::U32(1))).error();
    assert_says(&said, &["model.gguf", "RoPE magnitude"]);
    for number in [f32::NAN, f32::INFINITY, 0.0] {
        assert_says(
            &field("phi3", factor, Value::F32(number)),
            &["model.gguf", "RoPE magnitude"],
        );
    }
}

#[test]
fn head_dimensions_that_do_not_fit_are_refused() {
    let (keys, values) = ("llama3", "llama.attention.key_length");
    assert_says(
        &field(keys, values, Value::U32(15)),
        &["model.gguf", "head dimension"],
    );
    let said = File::of("llama3")
        .with("llama.attention.key_length", Some(Value::U32(15)))
        .with("llama.attention.value_length", Some(Value::U32(15)))
        .error();
    assert_says(&said, &["model.gguf", "odd head dimension of 15"]);
    let said = field("llama3", "llama.attention.value_length", Value::U32(8));
    assert_says(&said, &["model.gguf", "8 beside keys of 16"]);
    let said = field("llama3", "llama.attention.key_length", Value::U64(u64::MAX));
    assert_says(&said, &["head dimension"]);
    let said = field("phi3_partial", "phi3.rope.dimension_count", Value::U32(17));
    assert_says(&said, &["model.gguf", "17 dimensions"]);
}

#[test]
fn a_tensor_of_two_to_the_fortieth_is_refused_at_once() {
    let (start, before) = (Instant::now(), peak_resident_bytes());
    let bytes = File::of("llama3").bytes();
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    for wild in [1u64 << 40, 1 << 60, u64::MAX] {
        let mut bytes = bytes.clone();
        // A number of dimensions in four bytes, and then they themselves.
        bytes[at + 4..at + 12].copy_from_slice(&wild.to_le_bytes());
        let said = run_bytes(&bytes).unwrap_err().to_string();
        assert_says(&said, &["model.gguf", "output_norm.weight"]);
    }
    // A million dimensions, tensors and fields that are not there.
    for (at, wild) in [(at, 1u64 << 31), (8, 1 << 60), (16, 1 << 60)] {
        let mut bytes = bytes.clone();
        let width = if at < 24 { 8 } else { 4 };
        bytes[at..at + width].copy_from_slice(&wild.to_le_bytes()[..width]);
        assert_says(
            &run_bytes(&bytes).unwrap_err().to_string(),
            &["model.gguf", "damaged"],
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    if let (Some(before), Some(after)) = (before, peak_resident_bytes()) {
        assert!(after - before < 512 << 20, "{before} {after}");
    }
}
