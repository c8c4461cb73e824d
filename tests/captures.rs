//! Attention that was captured, by this program or by transformers, gives the profile that a prefill gives.
#![allow(clippy::unwrap_used)]

#[path = "captures/damaged.rs"]
mod damaged;
mod family_models;
#[path = "captures/streams.rs"]
mod streams;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use kvprof::model::ModelHeader;
use kvprof::model::precision::Precision;
use kvprof::model::source::ModelFiles;
use kvprof::profile::{
    Batch, CaptureFolder, CaptureManifest, CaptureWriter, CapturedData, CapturedLayers,
    CapturedModel, MeasureOptions, Profile, ProfileRecord, ProfileRun, ProfileSettings, Prompt,
    TABLES,
};
use kvprof::run::{DataRecord, ModelRecord};
use kvprof::table::Column;

fn prompts(lengths: &[usize]) -> Vec<Prompt> {
    let prompt = |&tokens: &usize| Prompt {
        id: format!("of {tokens}"),
        ids: family_models::prompt(tokens),
    };
    lengths.iter().map(prompt).collect()
}

fn options(window: Option<usize>) -> MeasureOptions {
    MeasureOptions {
        window,
        quantise: vec!["q8".parse().unwrap()],
        ..MeasureOptions::default()
    }
}

fn run(folder: &Path, model: ModelRecord, window: Option<usize>, count: usize) -> ProfileRun {
    let settings = ProfileSettings {
        measures: options(window),
        seed: 0,
    };
    let data = DataRecord {
        prompts: count,
        ..DataRecord::default()
    };
    let record = ProfileRecord::new("kvprof measure", model, data, settings);
    ProfileRun::prepare(folder, record, count, false).unwrap()
}

/// Profiles a model and captures it, the rows of a window of both.
fn profiled(files: &ModelFiles, prompts: &[Prompt], window: Option<usize>, at: &Path) -> Profile {
    let mut header = ModelHeader::open(files.clone()).unwrap();
    let model = ModelRecord::of_files(files, &header.config, &Device::Cpu, Precision::FLOAT32);
    let manifest = CaptureManifest::new(
        "a test".to_owned(),
        ["Cpu".to_owned(), "f32".to_owned()],
        window,
        CapturedModel::of(files, &header.config),
        CapturedData::default(),
        prompts,
    );
    let writer = CaptureWriter::prepare(&at.join("capture"), manifest, false).unwrap();
    writer.begin().unwrap();
    let run = run(&at.join("own"), model, window, prompts.len());
    let mut stream = header.layers(&Device::Cpu, Precision::FLOAT32).unwrap();
    let all: Vec<usize> = (0..prompts.len()).collect();
    let embedding = stream.embedding().unwrap();
    let batch = Batch::begin(&run, prompts, &all, &embedding, usize::MAX).unwrap();
    let mut batch = batch.captured_by(Some(&writer));
    while batch.layers() < stream.config().num_hidden_layers() {
        assert!(!writer.has(0));
        let layer = stream.layer(batch.layers()).unwrap();
        for place in all.iter().rev() {
            batch.measure(*place, &layer, &mut |_| ()).unwrap();
        }
        batch.end_layer().unwrap();
    }
    batch.finish().unwrap();
    assert!(all.iter().all(|&prompt| writer.has(prompt)));
    run.finish().unwrap();
    Profile::load(&at.join("own")).unwrap()
}

/// Measures a capture.
fn measured(capture: &mut dyn CapturedLayers, window: Option<usize>, folder: &Path) -> Profile {
    let count = capture.manifest().prompts().count();
    let run = run(folder, capture.manifest().model_record(), window, count);
    for prompt in 0..count {
        let layers = &mut 0;
        run.measure_captured(prompt, capture, prompt, &mut |_| *layers += 1)
            .unwrap();
        assert_eq!(*layers, capture.manifest().num_layers());
    }
    run.finish().unwrap();
    Profile::load(folder).unwrap()
}

fn bytes(profile: &Path) -> Vec<Vec<u8>> {
    let tables = TABLES.iter().chain(&["quantisation"]);
    tables
        .map(|table| fs::read(profile.join(format!("{table}.parquet"))).unwrap())
        .collect()
}

#[test]
fn what_a_profile_captures_gives_its_bytes_again() {
    for family in family_models::folders() {
        for window in [Some(8), None] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            let prompts = prompts(&[45, 12, 1]);
            profiled(&family.files(), &prompts, window, path);
            let mut capture = CaptureFolder::open(&path.join("capture")).unwrap();
            measured(&mut capture, window, &path.join("again"));
            let same = bytes(&path.join("own")) == bytes(&path.join("again"));
            assert!(same, "{family:?}, window {window:?}");
        }
    }
}

#[test]
fn fewer_rows_than_were_captured_are_the_last() {
    let family = family_models::folders().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let prompts = prompts(&[30, 7]);
    let at = |name: &str| path.join(name);
    for name in ["few", "many"] {
        fs::create_dir(at(name)).unwrap();
    }
    profiled(&family.files(), &prompts, Some(5), &at("few"));
    profiled(&family.files(), &prompts, Some(20), &at("many"));
    let mut capture = CaptureFolder::open(&at("many/capture")).unwrap();
    measured(&mut capture, Some(5), &at("again"));
    assert_eq!(bytes(&at("few/own")), bytes(&at("again")));
    assert_ne!(bytes(&at("many/own")), bytes(&at("again")));
}

/// The captures that transformers made of the tiny models.
fn by_transformers() -> Vec<(PathBuf, ModelFiles)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all = Vec::new();
    for entry in fs::read_dir(fixtures.join("captures")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let family = family_models::folders()
            .into_iter()
            .find(|family| family.name == name);
        all.push((path, family.unwrap().files()));
    }
    assert_eq!(all.len(), 6);
    all
}

#[test]
fn captures_of_transformers_give_the_budgets_of_our_own_prefill() {
    for (path, files) in by_transformers() {
        let folder = tempfile::tempdir().unwrap();
        let own = profiled(&files, &prompts(&[45, 12, 1]), Some(8), folder.path());
        let mut capture = CaptureFolder::open(&path).unwrap();
        assert_eq!(capture.manifest().model.num_heads, own.meta.model.num_heads);
        let measured = measured(&mut capture, Some(8), &folder.path().join("measured"));
        assert_eq!(measured.meta.model.windows, own.meta.model.windows);
        let mut compared = 0;
        for (ours, theirs) in [
            (&own.heads, &measured.heads),
            (&own.kv_heads, &measured.kv_heads),
            (&own.layers, &measured.layers),
        ] {
            for name in ours.names() {
                let (Some(Column::Count(a)), Some(Column::Count(b))) =
                    (ours.column(name), theirs.column(name))
                else {
                    continue;
                };
                assert_eq!(a, b, "{name} of {}", path.display());
                compared += a.len();
            }
        }
        assert!(compared > 500, "{compared}");
        for (a, b) in [("mass_last", "mass_last"), ("cos_pooled", "cos_pooled")] {
            let (a, b) = (own.curves.numbers(a), measured.curves.numbers(b));
            for (a, b) in a.unwrap().iter().zip(b.unwrap()) {
                assert!((a - b).abs() < 1e-5, "{a} and {b} of {}", path.display());
            }
        }
    }
}
