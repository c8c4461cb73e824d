//! No byte string given as a model may end in a panic.
#![allow(clippy::unwrap_used)]

mod tiny_model;

use std::fs;

use candle_core::Device;
use kvprof::error::Error;
use kvprof::model::attention::NoProbe;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::model::tokenizer::Tokenizer;
use proptest::prelude::*;
use tiny_model::tiny_model;

/// Opens the bytes as a model, and runs it where it loads.
fn run(bytes: &[u8]) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let mut gguf = Gguf::open(&path)?;
    let _ = Tokenizer::from_gguf(&gguf);
    let config = ModelConfig::from_gguf(&mut gguf)?;
    let decoder = Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32)?;
    let mut cache = decoder.new_cache(4)?;
    decoder
        .prefill(&[1, 2, 3, 0], &mut cache, 3, &mut NoProbe)
        .map(|_| ())
}

#[test]
fn the_tiny_model_itself_runs() {
    run(&tiny_model(2, 1, |_, t| t)).unwrap();
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let bytes = tiny_model(2, 1, |name, t| match name {
        "blk.0.ffn_up.weight" => (t * f64::NAN).unwrap(),
        _ => t,
    });
    let error = run(&bytes).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    assert!(error.to_string().contains("blk.0.ffn_up.weight"), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    let whole = tiny_model(2, 1, |_, t| t);
    for end in (0..whole.len() - 32).step_by(7) {
        assert!(run(&whole[..end]).is_err(), "{end} of {}", whole.len());
    }
}

#[test]
fn an_alignment_of_zero_is_an_error() {
    let mut bytes = tiny_model(2, 1, |_, t| t);
    let key = b"general.alignment";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].fill(0);
    let error = run(&bytes).unwrap_err().to_string();
    assert!(error.contains("alignment of zero"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((0.0f64..1.0, any::<u8>()), 1..6),
        in_header in any::<bool>(),
    ) {
        let mut bytes = tiny_model(2, 1, |_, t| t);
        let span = if in_header { 900 } else { bytes.len() };
        for (at, byte) in changes {
            let at = (at * span as f64) as usize;
            bytes[at] = byte;
        }
        let _ = run(&bytes);
    }

    #[test]
    fn noise_after_the_magic_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = run(&[b"GGUF\x03\0\0\0".as_slice(), &noise].concat());
    }
}
