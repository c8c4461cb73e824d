//! `--products` as a stranger meets it.
#![allow(clippy::unwrap_used)]

mod binary;
mod family_models;

use std::path::Path;

use binary::{json, kvprof, refusal, short_prompts};
use candle_core::Device;
use kvprof::compute::linear::Products;
use kvprof::model::ModelHeader;
use kvprof::model::precision::Precision;

/// Profiles short prompts with products of a kind.
fn profiled(path: &Path, data: &str, products: &[&str], out: &str) {
    kvprof(path)
        .args(["profile", "--data", data, "--quiet", "--out", out])
        .args(products)
        .assert()
        .success();
}

#[test]
fn a_profile_says_what_its_products_were_and_compare_shows_what_they_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    profiled(path, &data, &[], "plain");
    profiled(path, &data, &["--products", "f32"], "f32");
    for (kind, bound) in [("i16", 1.0), ("i8", 12.0)] {
        profiled(path, &data, &["--products", kind], kind);
        let dtype = json(path.join(kind).join("meta.json"))["dtype"].clone();
        assert_eq!(dtype, format!("f32, products {kind}"));
        let compared = kvprof(path)
            .args(["compare", "plain", kind, "--all", "--json"])
            .output()
            .unwrap();
        let compared: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
        let columns = compared["columns"].as_array().unwrap();
        let column = |name: &str| {
            let found = columns.iter().find(|c| c["column"] == name);
            found.unwrap()["largest"].as_f64().unwrap()
        };
        assert!(column("entropy") > 0.0, "{kind} rounds");
        assert!(column("mba_pooled_90") <= bound, "{kind}");
    }
    // Float32 is what there is without a word.
    assert_eq!(json(path.join("f32/meta.json"))["dtype"], "f32");
    let tables = |profile: &str| std::fs::read(path.join(profile).join("heads.parquet")).unwrap();
    assert_eq!(tables("plain"), tables("f32"));
    assert_ne!(tables("plain"), tables("i8"));
    let other = ["profile", "--data", &data, "--out", "i16", "--resume"];
    let said = refusal(path, &other, 1);
    assert!(said.contains("another dtype"), "{said}");
}

#[test]
fn products_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], code| refusal(folder.path(), arguments, code);
    let kind = refused(&["profile", "--products", "i12"], 2);
    assert!(kind.contains("f32, i16, i8"), "{kind}");
    let half = ["profile", "--products", "i16", "--dtype", "bf16"];
    let half = refused(&half, 1);
    assert!(
        half.contains("--products") && half.contains("--dtype f32"),
        "{half}"
    );
}

#[test]
fn integer_products_of_a_model_without_quantised_matrices_are_refused() {
    let family = family_models::folders().remove(0);
    let precision = Precision {
        products: Products::Int8,
        ..Precision::FLOAT32
    };
    let header = || ModelHeader::open(family.files()).unwrap();
    let mut streamed = header();
    let streamed = streamed.layers(&Device::Cpu, precision).err().unwrap();
    let loaded = header().load(&Device::Cpu, precision).err().unwrap();
    for said in [streamed.to_string(), loaded.to_string()] {
        assert!(
            said.contains("--products") && said.contains("none of its matrices is quantised"),
            "{said}"
        );
    }
}
