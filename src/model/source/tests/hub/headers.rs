//! Headers that are read by ranges.

use super::*;
use crate::model::gguf::Gguf;

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A GGUF file with many tokens, 4 MB of weights, and factors of rotary positions behind them.
fn gguf() -> Vec<u8> {
    const WEIGHTS: usize = 1_000_000;
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(2u64.to_le_bytes());
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(text("general.architecture"));
    bytes.extend(8u32.to_le_bytes());
    bytes.extend(text("toy"));
    bytes.extend(text("general.alignment"));
    bytes.extend(4u32.to_le_bytes());
    bytes.extend(64u32.to_le_bytes());
    bytes.extend(text("tokens"));
    bytes.extend([9u32, 8].map(u32::to_le_bytes).concat());
    bytes.extend(30_000u64.to_le_bytes());
    for token in 0..30_000 {
        bytes.extend(text(&format!("token {token}")));
    }
    for (name, count, offset) in [
        ("big.weight", WEIGHTS, 0),
        ("rope_freqs.weight", 4, 4 * WEIGHTS),
    ] {
        bytes.extend(text(name));
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend(2f32.to_le_bytes().repeat(WEIGHTS));
    bytes.extend([1f32, 2., 4., 8.].map(f32::to_le_bytes).concat());
    bytes
}

fn shard(tensor: &str, elements: usize) -> Vec<u8> {
    let header = serde_json::json!({
        tensor: {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
    });
    let header = header.to_string().into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(vec![7; 4 * elements]);
    bytes
}

impl Setting {
    fn header(&self, spec: &str) -> Result<HeaderFiles> {
        header_of(spec, &self.cache(), &self.options(), &mut quiet())
    }

    fn header_error(&self, spec: &str) -> String {
        self.header(spec).unwrap_err().to_string()
    }
}

#[test]
fn a_gguf_header_opens_as_the_whole_file_does() {
    let whole = gguf();
    let setting = Setting::of(&[("sub/toy.gguf", &whole), ("sub/tokenizer.json", b"{}")]);
    let header = setting.header("hf:org/repo").unwrap();
    assert!(
        setting.hub.sent() < 1_500_000,
        "{} bytes of {}",
        setting.hub.sent(),
        whole.len()
    );
    assert!(!header.has_weights());
    assert_eq!(header.bytes, whole.len() as u64);
    assert_eq!(header.sha256(), Some(sha256_hex(&whole).as_str()));
    let files = &header.files;
    assert_eq!(
        (files.name.as_str(), files.origin.as_str()),
        ("toy", format!("hf:org/repo@{COMMIT}/sub/toy.gguf").as_str())
    );
    assert_eq!(
        fs::read(files.tokenizer_json.as_ref().unwrap()).unwrap(),
        b"{}"
    );
    let mut gguf = Gguf::open(&files.weights).unwrap();
    assert_eq!(gguf.text_opt("general.architecture"), Some("toy"));
    assert_eq!(gguf.array_opt("tokens").unwrap().len(), 30_000);
    let device = candle_core::Device::Cpu;
    let factors = gguf.tensor("rope_freqs.weight", &[4], &device, candle_core::DType::F32);
    assert_eq!(factors.unwrap().to_vec1::<f32>().unwrap(), [1., 2., 4., 8.]);
    assert_eq!(fs::metadata(&files.weights).unwrap().len(), header.bytes);
    let folder = files.weights.parent().unwrap().to_owned();
    drop(header);
    assert!(!folder.exists());
    // What was fetched since is not asked for by ranges.
    let fetched = setting.get("hf:org/repo").unwrap();
    let header = setting.header("hf:org/repo").unwrap();
    assert!(header.has_weights());
    assert_eq!(header.files, fetched);
}

#[test]
fn headers_of_shards_tell_the_hash_of_the_whole() {
    let (one, two) = (shard("a", 1_000_000), shard("b", 500_000));
    let files: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"t\": 1}"),
        ("model.safetensors.index.json", INDEX),
        ("model-1-of-2.safetensors", &one),
        ("model-2-of-2.safetensors", &two),
    ];
    let setting = Setting::of(files);
    let header = setting.header("hf:org/repo").unwrap();
    assert!(setting.hub.sent() < 600_000, "{}", setting.hub.sent());
    assert_eq!(header.bytes, (one.len() + two.len()) as u64);
    let folder = SafetensorsFolder::open(&header.files.weights).unwrap();
    assert_eq!(folder.shards.len(), 2);
    for (path, whole) in folder.shards.iter().zip([&one, &two]) {
        let bytes = fs::read(path).unwrap();
        let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
        assert_eq!(
            (&bytes[..length], bytes.len()),
            (&whole[..length], whole.len())
        );
        assert_ne!(&bytes, whole, "the weights were not fetched");
    }
    let fetched = setting.get("hf:org/repo").unwrap();
    assert_eq!(header.files.sha256, fetched.sha256);
    assert_eq!(header.files.origin, fetched.origin);
    assert_eq!(header.files.name, fetched.name);
}

#[test]
fn a_hub_without_ranges_gives_headers_too() {
    let whole = gguf();
    let setting = Setting::of(&[("toy.gguf", &whole)]);
    setting.hub.ignore_ranges();
    let header = setting.header("hf:org/repo").unwrap();
    assert!(Gguf::open(&header.files.weights).is_ok());
}

#[test]
fn headers_that_lie_are_refused() {
    let refused = |bytes: &[u8], expected: &str| {
        let setting = Setting::of(&[("toy.gguf", bytes)]);
        let error = setting.header_error("hf:org/repo");
        assert!(
            error.contains("the header of toy.gguf cannot be read") && error.contains(expected),
            "{error}"
        );
    };
    let whole = gguf();
    refused(b"no such file", "letters GGUF");
    refused(b"GGUF\x09\0\0\0", "version is 9");
    refused(&whole[..10_000], "fill whole buffer");
    // A name of 2^62 bytes is not read, and none of it is set aside.
    let mut long = whole[..24].to_vec();
    long.extend((1u64 << 62).to_le_bytes());
    refused(&long, "a name of");

    let shard = |bytes: &[u8]| {
        let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", bytes)];
        Setting::of(&files).header_error("hf:org/repo")
    };
    let error = shard(&u64::MAX.to_le_bytes());
    assert!(error.contains("more than 104857600"), "{error}");
    let error = shard(&9u64.to_le_bytes());
    assert!(error.contains("ends before it"), "{error}");
}

#[test]
fn files_on_this_machine_are_not_hashed_for_their_header() {
    let setting = Setting::of(&[]);
    let path = setting.folder.path().join("own.gguf");
    let file = fs::File::create(&path).unwrap();
    file.set_len(65 << 20).unwrap();
    fs::write(setting.folder.path().join("small.gguf"), "GGUF").unwrap();
    let small = setting.folder.path().join("small.gguf");
    let known = setting.header(small.to_str().unwrap()).unwrap();
    assert_eq!(known.sha256(), Some(sha256_hex(b"GGUF").as_str()));

    use std::io::Write;
    (&file).write_all(b"GGUF").unwrap();
    let header = setting.header(path.to_str().unwrap()).unwrap();
    assert_eq!((header.sha256(), header.bytes), (None, 65 << 20));
    // Once it was hashed, the hash is remembered while the file stays as it is.
    let found = setting.get(path.to_str().unwrap()).unwrap();
    let header = setting.header(path.to_str().unwrap()).unwrap();
    assert_eq!(header.sha256(), Some(found.sha256.as_str()));
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let header = setting.header(path.to_str().unwrap()).unwrap();
    assert_eq!(header.sha256(), None);
}
