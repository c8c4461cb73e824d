//! Bytes of a folder's files changed and cut off at random: a sound model or a typed error, never a panic.

use std::collections::BTreeMap;
use std::fs;

use kvprof::model::ModelHeader;
use kvprof::model::source::ModelFiles;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Folder;

/// Cases for each file of a folder.
const CASES: usize = 60;

/// Folders that differ in what they hold: plain, in shards, with a template of its own, SentencePiece, and factors.
const FOLDERS: [&str; 5] = ["llama_bf16", "qwen2_sharded", "qwen3", "gemma3", "phi3"];

fn below(random: &mut ChaCha8Rng, most: usize) -> usize {
    random.next_u32() as usize % most.max(1)
}

/// Changes a few bytes, takes some out, doubles some, or cuts the end off; in weights all of that in the header.
fn damaged(random: &mut ChaCha8Rng, file: &str, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let span = if file.ends_with(".safetensors") {
        8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize
    } else {
        whole.len()
    };
    for _ in 0..1 + below(random, 3) {
        let at = below(random, span.min(bytes.len()));
        match below(random, 6) {
            0 | 1 => bytes[at] = random.next_u32() as u8,
            // Digits, quotes and brackets are where a text still means something.
            2 | 3 => bytes[at] = b"0123456789-e.\"[]{},:ntf"[below(random, 23)],
            4 => {
                let end = (at + 1 + below(random, 8)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 1 + below(random, 8)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    if below(random, 8) == 0 {
        bytes.truncate(below(random, bytes.len()));
    }
    bytes
}

#[test]
fn damaged_folders_run_or_are_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(14);
    let (mut sound, mut refused) = (0, BTreeMap::<String, usize>::new());
    for name in FOLDERS {
        let folder = Folder::of(name);
        let mut files: Vec<String> = (fs::read_dir(folder.0.path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        for file in files {
            let whole = fs::read(folder.path(&file)).unwrap();
            for _ in 0..CASES {
                folder.write(&file, damaged(&mut random, &file, &whole));
                match attempt(&folder) {
                    Ok(()) => sound += 1,
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        *refused.entry(file.clone()).or_default() += 1;
                    }
                }
            }
            folder.write(&file, &whole);
        }
        attempt(&folder).unwrap();
    }
    eprintln!("{sound} run, refused: {refused:?}");
    // Both happen, or this tries nothing.
    assert!(sound > 100 && refused.values().sum::<usize>() > 500);
}

/// Loads and runs the model without hashing it.
fn attempt(folder: &Folder) -> Result<(), kvprof::error::Error> {
    use candle_core::{DType, Device};
    use kvprof::model::attention::NoProbe;
    use kvprof::model::precision::Precision;
    let files = ModelFiles {
        name: "damaged".into(),
        weights: folder.0.path().to_owned(),
        tokenizer_json: None,
        origin: String::new(),
        sha256: String::new(),
        in_use: Default::default(),
    };
    let model = ModelHeader::open(files)?.load(&Device::Cpu, Precision::of(DType::F32)?)?;
    let text = "The river 12 <|im_end|> flows.";
    let ids = model.message_ids(text, false, None, |ids, _| ids.to_vec());
    let mut ids = ids.unwrap_or_else(|_| vec![1, 2, 3]);
    ids.truncate(5);
    if ids.is_empty() {
        ids.push(1);
    }
    model.decoder.config().check_prompt("damaged", &ids)?;
    let _ = model.tokenizer.decode(&ids)?;
    let mut cache = model.decoder.new_cache(6)?;
    (model.decoder).prefill(&ids, &mut cache, 3, &mut NoProbe)?;
    model.decoder.decode(ids[0], &mut cache).map(drop)
}
