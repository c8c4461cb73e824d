//! What a transfer survives, and what it does not believe.

use super::*;

fn long_weights() -> Vec<u8> {
    (0..3_000_000u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_cut_connection_goes_on_where_it_broke_off() {
    let weights = long_weights();
    let setting = Setting::of(&[("toy.gguf", &weights)]);
    setting.hub.cut_each_at(900_000);
    let found = setting.get("hf:org/repo").unwrap();
    assert_eq!(fs::read(found.weights).unwrap(), weights);
    let ranges = setting.hub.ranges("toy.gguf");
    assert_eq!(ranges, ["0-0", "0-", "900000-", "1800000-", "2700000-"]);
}

#[test]
fn a_later_process_goes_on_with_what_an_earlier_one_has() {
    let weights = long_weights();
    let setting = Setting::of(&[("toy.gguf", &weights)]);
    setting.hub.cut_after(Some(1_000_001));
    let error = setting.error("hf:org/repo");
    assert!(error.contains("cannot be reached"), "{error}");
    let blobs = setting.repository().join("blobs");
    let part = blobs.join(format!("{}.part", sha256_hex(&weights)));
    assert_eq!(fs::metadata(&part).unwrap().len(), 1_000_000);
    setting.hub.requests();
    setting.hub.cut_after(None);
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    let (cache, options) = (setting.cache(), setting.options());
    let found = resolve_with("hf:org/repo", &cache, &options, &mut progress).unwrap();
    assert_eq!(fs::read(found.weights).unwrap(), weights);
    assert_eq!(setting.hub.ranges("toy.gguf"), ["0-0", "1000000-"]);
    assert!(!part.exists());
    let said = "downloading toy.gguf (3.0 MB, of which 1.0 MB are here)";
    assert!(lines.iter().any(|line| line == said), "{lines:?}");
}

#[test]
fn a_hub_without_ranges_begins_anew() {
    let weights = long_weights();
    let setting = Setting::of(&[("toy.gguf", &weights)]);
    let blobs = setting.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(
        blobs.join(format!("{}.part", sha256_hex(&weights))),
        [9; 1000],
    )
    .unwrap();
    setting.hub.ignore_ranges();
    let found = setting.get("hf:org/repo").unwrap();
    assert_eq!(fs::read(found.weights).unwrap(), weights);
}

#[test]
fn what_is_not_the_hubs_own_content_is_not_kept() {
    let setting = Setting::of(&[("toy.gguf", b"weights")]);
    setting.hub.tag("toy.gguf", &"0".repeat(64));
    let error = setting.error("hf:org/repo");
    assert!(
        error.contains(&sha256_hex(b"weights")) && error.contains("nothing was kept"),
        "{error}"
    );
    assert!(!setting.repository().join("snapshots").exists());
    // A part of another content is noticed by the whole's hash.
    let setting = Setting::of(&[("toy.gguf", b"weights")]);
    let blobs = setting.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(
        blobs.join(format!("{}.part", sha256_hex(b"weights"))),
        "other",
    )
    .unwrap();
    assert!(setting.error("hf:org/repo").contains("try again"));
    assert!(setting.get("hf:org/repo").is_ok());
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let setting = Setting::of(&[("toy.gguf", b"weights")]);
    fs::write(setting.folder.path().join("token"), "secret\n").unwrap();
    setting.get("hf:org/repo").unwrap();
    if std::env::var("HF_TOKEN").is_ok_and(|token| !token.is_empty()) {
        return;
    }
    let trusted = setting.hub.trusted();
    assert_eq!(trusted, ["hub"; 3], "listing, tag and content");
}
