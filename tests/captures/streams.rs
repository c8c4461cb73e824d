//! A capture that comes through a pipe is the one that a folder holds.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Device;
use kvprof::profile::{CaptureFolder, CaptureStream, CapturedLayers};

use super::{bytes, measured, profiled, prompts};
use crate::family_models;

/// A folder as a stream.
fn streamed(folder: &Path) -> Vec<u8> {
    let capture = CaptureFolder::open(folder).unwrap();
    let manifest = capture.manifest();
    let mut stream = serde_json::to_vec(manifest).unwrap();
    stream.push(b'\n');
    for prompt in 0..manifest.prompts.len() {
        for layer in 0..manifest.num_layers() {
            let load = |file: String| {
                candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap()
            };
            let mut tensors = load(format!("prompt-{prompt:05}/layer-{layer:03}.safetensors"));
            tensors.extend(load(format!("output-{layer:03}.safetensors")));
            let labels = [("prompt", prompt), ("layer", layer)];
            let labels = labels.map(|(name, number)| (name.to_owned(), number.to_string()));
            let file = safetensors::serialize(&tensors, Some(HashMap::from(labels)));
            stream.extend(file.unwrap());
        }
    }
    stream
}

fn captured(at: &Path) -> Vec<u8> {
    let family = family_models::folders().remove(0);
    profiled(&family.files(), &prompts(&[9, 4]), Some(4), at);
    streamed(&at.join("capture"))
}

#[test]
fn a_stream_gives_the_bytes_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let stream = captured(folder.path());
    let mut capture = CaptureStream::open(stream.as_slice()).unwrap();
    measured(&mut capture, Some(4), &folder.path().join("streamed"));
    let again = bytes(&folder.path().join("streamed"));
    assert_eq!(bytes(&folder.path().join("own")), again);
    // A prompt that is there already is passed over.
    let mut capture = CaptureStream::open(stream.as_slice()).unwrap();
    let early = capture.layer(1, 0).unwrap_err().to_string();
    assert!(early.contains("(0, 0) comes next"), "{early}");
    capture.skip(0).unwrap();
    assert_eq!(capture.layer(1, 0).unwrap().keys.dims()[1], 4);
    assert!(capture.end().is_err(), "layers are left");
    capture.skip(1).unwrap();
    capture.end().unwrap();
    let beyond = capture.layer(2, 0).unwrap_err().to_string();
    assert!(beyond.contains("the capture has 2"), "{beyond}");
    let twice = [stream.as_slice(), &stream].concat();
    let mut capture = CaptureStream::open(twice.as_slice()).unwrap();
    (0..2).for_each(|prompt| capture.skip(prompt).unwrap());
    let said = capture.end().unwrap_err().to_string();
    assert!(said.contains("goes on after the last layer"), "{said}");
}

#[test]
fn a_stream_that_ends_or_lies_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let stream = captured(folder.path());
    let line = stream.iter().position(|b| *b == b'\n').unwrap() + 1;
    let said = |stream: &[u8]| match CaptureStream::open(stream) {
        Ok(mut capture) => capture.layer(0, 0).unwrap_err().to_string(),
        Err(problem) => problem.to_string(),
    };
    assert!(said(b"").contains("0 bytes came without the end of a line"));
    assert!(said(&stream[..line - 1]).contains("without the end of a line"));
    for end in [line, line + 5, line + 8, line + 100, line + 3000] {
        let text = said(&stream[..end]);
        assert!(text.contains("layer 0 of prompt 0 ended"), "{end}: {text}");
    }
    let with_length = |length: u64| {
        let mut stream = stream.clone();
        stream[line..line + 8].copy_from_slice(&length.to_le_bytes());
        stream
    };
    for length in [u64::MAX, 1 << 40, 1 << 21] {
        assert!(
            said(&with_length(length)).contains("at most 1048576"),
            "{length}"
        );
    }
    assert!(said(&with_length(3)).contains("header that cannot be read"));
    let header = br#"{"keys":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999]}}"#;
    let mut huge = stream[..line].to_vec();
    huge.extend((header.len() as u64).to_le_bytes());
    huge.extend(header);
    assert!(said(&huge).contains("has 99999999999 bytes of tensors"));
}
