//! Files in parts, models with several places, and their terms.

use super::*;

const PARTS: &str = "pypi:toy-{1..3}==1.0/part{01..03}.bin";

/// Wheels `toy-1` to `toy-3` as one, since the script gives the same to everybody: each part is another member.
fn in_parts() -> Index {
    Index::new(&[
        ("part01.bin", b"GG"),
        ("part02.bin", b"U"),
        ("part03.bin", b"F..."),
    ])
}

#[test]
fn parts_are_joined_in_order() {
    let index = in_parts();
    let found = index.resolve(PARTS).unwrap();
    assert_eq!(fs::read(&found.weights).unwrap(), b"GGUF...");
    assert_eq!(
        (found.name.as_str(), found.origin.as_str()),
        ("toy-1-3", PARTS)
    );
    let folder = index.cache.path().join("models/toy-1-3-1.0");
    assert_eq!(found.weights, folder.join("toy-1-3.gguf"));
    assert!(!folder.join("parts").exists());
    assert_eq!(index.resolve(PARTS).unwrap(), found);
    assert_eq!(index.calls(), 3);
    let calls = fs::read_to_string(index.folder.path().join("calls")).unwrap();
    assert!(
        calls.contains("-- toy-1==1.0\n") && calls.ends_with("-- toy-3==1.0\n"),
        "{calls}"
    );
}

#[test]
fn an_interrupted_fetch_goes_on_with_the_parts_it_has() {
    let index = Index::new(&[("part01.bin", b"GG"), ("part02.bin", b"U")]);
    let error = index.resolve(PARTS).unwrap_err().to_string();
    assert!(error.contains("has no member part03.bin"), "{error}");
    assert_eq!(index.calls(), 3);
    index.publish(&[("part03.bin", b"F...")]);
    let found = index.resolve(PARTS).unwrap();
    assert_eq!(fs::read(found.weights).unwrap(), b"GGUF...");
    assert_eq!(index.calls(), 4);
}

#[test]
fn parts_of_another_file_or_with_a_wrong_sum_are_not_kept() {
    let index = Index::new(&[
        ("part01.bin", b"GG"),
        ("part02.bin", b"U"),
        ("a1", b"x"),
        ("a2", b"y"),
    ]);
    index.resolve(PARTS).unwrap_err();
    // The same packages, other members.
    let other = index.resolve("pypi:toy-{1..3}==1.0/a{1..3}").unwrap_err();
    assert!(other.to_string().contains("a3"), "{other}");
    index.publish(&[
        ("part01.bin", b"1"),
        ("part02.bin", b"2"),
        ("part03.bin", b"3"),
    ]);
    let fetch = |hash: &str| {
        let file = wheel_file(PARTS);
        wheel::fetch(
            &file,
            Some(hash),
            &index.cache,
            &index.options,
            &mut quiet(),
        )
    };
    let error = fetch(OTHER_HASH).unwrap_err().to_string();
    assert!(error.contains(OTHER_HASH), "{error}");
    let folder = index.cache.path().join("models/toy-1-3-1.0");
    let left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, [".lock"]);
    let found = index.resolve(PARTS).unwrap();
    assert_eq!(fs::read(found.weights).unwrap(), b"123");
}

#[test]
fn places_are_tried_in_order_until_one_gives_the_right_file() {
    let index = toy();
    let sha256: &'static str = index.resolve(SPEC).unwrap().sha256.leak();
    let named = |places, sha256| NamedModel {
        name: "toy",
        places,
        sha256,
        bytes: 7,
        licence: "MIT",
        terms: None,
        about: "a toy",
    };
    let elsewhere = toy();
    let fetch = |model: &NamedModel| {
        let mut lines = Vec::new();
        let mut progress = |line: &str| lines.push(line.to_owned());
        let found = fetch_named(model, &elsewhere.cache, &elsewhere.options, &mut progress);
        (found, lines.join("\n"))
    };
    let (found, said) = fetch(&named(&["pypi:gone==1/none.gguf", SPEC], sha256));
    let found = found.unwrap();
    assert_eq!((found.name.as_str(), found.origin.as_str()), ("toy", SPEC));
    assert!(
        said.contains("none.gguf") && said.contains(&format!("trying {SPEC}")),
        "{said}"
    );
    let calls = elsewhere.calls();
    // What is here needs no other place.
    let (found, said) = fetch(&named(&["pypi:gone==1/none.gguf", SPEC], sha256));
    assert!(found.is_ok() && said.is_empty(), "{said}");
    assert_eq!(elsewhere.calls(), calls);

    let (wrong, _) = fetch(&named(&["pypi:gone==1/none.gguf", SPEC], OTHER_HASH));
    let error = wrong.unwrap_err().to_string();
    assert!(
        error.contains("none of its 2 places")
            && error.contains(OTHER_HASH)
            && error.contains("pypi:gone==1"),
        "{error}"
    );
    let (only, _) = fetch(&named(&["pypi:gone==1/none.gguf"], sha256));
    assert!(!only.unwrap_err().to_string().contains("places"));
}

#[test]
fn terms_are_accepted_before_the_first_fetch_and_not_asked_for_again() {
    let index = toy();
    let sha256: &'static str = toy().resolve(SPEC).unwrap().sha256.leak();
    let terms = Terms {
        key: "toy",
        name: "Toy Terms",
        address: "https://example.org/terms",
    };
    let model = NamedModel {
        name: "toy",
        places: &[SPEC],
        sha256,
        bytes: 7,
        licence: "Toy Terms",
        terms: Some(terms),
        about: "a toy",
    };
    let fetch = |accepted: &[&str]| {
        let options = FetchOptions {
            accepted_terms: accepted.iter().map(|key| (*key).to_owned()).collect(),
            ..index.options.clone()
        };
        let mut lines = Vec::new();
        let mut progress = |line: &str| lines.push(line.to_owned());
        let found = fetch_named(&model, &index.cache, &options, &mut progress);
        let file = wheel_file(SPEC);
        if found.is_err() {
            fetch_known(&model, &file, &index.cache, &options, &mut quiet()).unwrap_err();
            header_of::header_of_named(&model, &index.cache, &options, &mut quiet()).unwrap_err();
        }
        (found, lines)
    };
    for accepted in [&[][..], &["gemma"]] {
        let (found, _) = fetch(accepted);
        let error = found.unwrap_err();
        assert!(matches!(error, Error::TermsNotAccepted { .. }));
        let error = error.to_string();
        assert!(
            error.contains("Toy Terms (https://example.org/terms)")
                && error.contains("--accept-terms toy or set KVPROF_ACCEPT_TERMS=toy"),
            "{error}"
        );
    }
    assert_eq!(index.calls(), 0);
    let (found, lines) = fetch(&["gemma", "toy"]);
    assert!(lines[0].contains("https://example.org/terms"), "{lines:?}");
    assert_eq!((found.unwrap().sha256.as_str(), index.calls()), (sha256, 1));
    assert!(fetch(&[]).0.is_ok());
    assert_eq!(index.calls(), 1);
}

#[test]
fn a_part_that_is_gone_names_itself_and_the_places_that_are_left() {
    let index = in_parts();
    let gone = "ERROR: Could not find a version that satisfies the requirement toy-1==1.0\n\
                ERROR: No matching distribution found for toy-1==1.0\n";
    fs::write(index.folder.path().join("fail"), gone).unwrap();
    let error = index.resolve(PARTS).unwrap_err().to_string();
    assert!(
        error.contains("part 1 of 3: pypi:toy-1==1.0/part01.bin")
            && error.contains("may have been deleted")
            && error.contains("pass its path"),
        "{error}"
    );
    let model = NamedModel {
        name: "toy",
        places: &["hf:org/repo/toy.gguf", PARTS],
        sha256: OTHER_HASH,
        bytes: 7,
        licence: "MIT",
        terms: None,
        about: "a toy",
    };
    let file = wheel_file(PARTS);
    let known = fetch_known(&model, &file, &index.cache, &index.options, &mut quiet());
    let known = known.unwrap_err().to_string();
    assert!(
        known.contains("2 places, which are all tried for the name toy"),
        "{known}"
    );
    let options = FetchOptions {
        offline: true,
        hub_cache: Some(index.folder.path().join("hub")),
        ..index.options.clone()
    };
    let named = fetch_named(&model, &index.cache, &options, &mut quiet());
    let named = named.unwrap_err().to_string();
    assert!(
        named.contains("https://huggingface.co/org/repo/resolve/main/toy.gguf"),
        "{named}"
    );
}
