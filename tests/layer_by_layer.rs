//! A profile that is made layer by layer has the bytes of one that is made prompt by prompt, however it was interrupted.
#![allow(clippy::unwrap_used)]

mod family_models;

use std::fs;
use std::path::Path;

use candle_core::Device;
use family_models::FamilyModel;
use kvprof::model::ModelHeader;
use kvprof::model::precision::Precision;
use kvprof::model::source::{self, ModelFiles};
use kvprof::profile::{Batch, MeasureOptions, ProfileRecord, ProfileRun, ProfileSettings, Prompt};
use kvprof::run::{DataRecord, ModelRecord};

/// A model and the prompts of a run.
struct Case<'a> {
    files: ModelFiles,
    precision: Precision,
    options: &'a MeasureOptions,
    prompts: &'a [Prompt],
}

impl Case<'_> {
    fn header(&self) -> ModelHeader {
        ModelHeader::open(self.files.clone()).unwrap()
    }

    fn run(&self, folder: &Path, resume: bool) -> ProfileRun {
        let header = self.header();
        let model =
            ModelRecord::of_files(&self.files, &header.config, &Device::Cpu, self.precision);
        let settings = ProfileSettings {
            measures: self.options.clone(),
            seed: 0,
        };
        let record = ProfileRecord::new("kvprof profile", model, DataRecord::default(), settings);
        ProfileRun::prepare(folder, record, self.prompts.len(), resume).unwrap()
    }

    /// Prompt by prompt, all layers in memory.
    fn by_prompt(&self, folder: &Path) {
        let run = self.run(folder, false);
        let model = self.header().load(&Device::Cpu, self.precision).unwrap();
        for (index, prompt) in self.prompts.iter().enumerate() {
            run.measure(index, prompt, &model.decoder, &mut |_| ())
                .unwrap();
        }
        run.finish().unwrap();
    }

    /// Layer by layer, with so much room for residual streams. Stops after some layers and keeps them, where that is asked
    /// for.
    fn by_layer(&self, folder: &Path, resume: bool, room: usize, stop: Option<usize>) {
        let (run, mut header) = (self.run(folder, resume), self.header());
        let mut stream = header.layers(&Device::Cpu, self.precision).unwrap();
        let all: Vec<usize> = (0..self.prompts.len()).collect();
        let embedding = stream.embedding().unwrap();
        let mut batch = Batch::begin(&run, self.prompts, &all, &embedding, room).unwrap();
        let layers = stream.config().num_hidden_layers();
        while batch.layers() < layers {
            if stop == Some(batch.layers()) {
                return batch.keep().unwrap();
            }
            let layer = stream.layer(batch.layers()).unwrap();
            // In another order than that of the run.
            for place in (0..batch.len()).rev() {
                batch.measure(place, &layer, &mut |_| ()).unwrap();
            }
            batch.end_layer().unwrap();
        }
        batch.finish().unwrap();
        assert_eq!(Batch::kept(&run), None);
        run.finish().unwrap();
    }
}

fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn prompts(lengths: &[usize]) -> Vec<Prompt> {
    let prompt = |&tokens: &usize| Prompt {
        id: format!("of {tokens}"),
        ids: family_models::prompt(tokens),
    };
    lengths.iter().map(prompt).collect()
}

/// Refuses any difference between the ways to one profile.
fn assert_same_bytes(case: &Case<'_>, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |part: &str| folder.path().join(part);
    case.by_prompt(&at("prompts"));
    let want = bytes(&at("prompts"));
    assert!(want.len() >= 5, "{name}: {want:?}");
    case.by_layer(&at("memory"), false, usize::MAX, None);
    assert_eq!(bytes(&at("memory")), want, "{name} in memory");
    case.by_layer(&at("scratch"), false, 0, None);
    assert_eq!(bytes(&at("scratch")), want, "{name} in a scratch file");
    // One prompt's stream in memory, the others' in the file; kept twice, taken up with other room.
    let layers = case.header().config.num_hidden_layers();
    case.by_layer(&at("kept"), false, 4 * 64 * 13, Some(1));
    case.by_layer(&at("kept"), true, 0, Some(layers - 1));
    case.by_layer(&at("kept"), true, usize::MAX, None);
    assert_eq!(bytes(&at("kept")), want, "{name} interrupted");
}

fn all_families() -> Vec<FamilyModel> {
    family_models::all()
}

#[test]
fn every_family_in_every_format() {
    for family in all_families() {
        for (window, quantise) in [(Some(8), vec!["q8".parse().unwrap()]), (None, vec![])] {
            let options = MeasureOptions {
                window,
                quantise,
                ..MeasureOptions::default()
            };
            let case = Case {
                files: family.files(),
                precision: Precision::FLOAT32,
                options: &options,
                prompts: &prompts(&[1, 12, 45]),
            };
            assert_same_bytes(&case, &format!("{family:?}, window {window:?}"));
        }
    }
}

#[test]
fn a_prompt_of_two_runs_whose_window_lies_in_both() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let options = MeasureOptions {
        quantise: vec!["q4".parse().unwrap()],
        ..MeasureOptions::default()
    };
    for cache in ["f32", "q8"] {
        let case = Case {
            files: files.clone(),
            precision: Precision {
                cache: cache.parse().unwrap(),
                ..Precision::FLOAT32
            },
            options: &options,
            prompts: &prompts(&[1030, 40]),
        };
        assert_same_bytes(&case, &format!("cache of {cache}"));
    }
}

#[test]
fn a_batch_of_other_prompts_begins_anew() {
    let family = family_models::folders().remove(0);
    let options = MeasureOptions::default();
    let case = Case {
        files: family.files(),
        precision: Precision::FLOAT32,
        options: &options,
        prompts: &prompts(&[5, 9]),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    case.by_layer(&path, false, usize::MAX, Some(1));
    let run = case.run(&path, true);
    assert_eq!(Batch::kept(&run), Some((vec![0, 1], 1)));
    // What was being kept when the run was killed is not taken for a whole one.
    fs::create_dir(run.parts_folder().join("keeping")).unwrap();
    let mut header = case.header();
    let mut stream = header.layers(&Device::Cpu, case.precision).unwrap();
    let embedding = stream.embedding().unwrap();
    let begin = |numbers: &[usize]| Batch::begin(&run, case.prompts, numbers, &embedding, 0);
    assert_eq!(begin(&[0, 1]).unwrap().layers(), 1);
    let unfinished = begin(&[0, 1]).unwrap().finish().unwrap_err().to_string();
    assert!(
        unfinished.contains("layers that were passed is 1"),
        "{unfinished}"
    );
    assert_eq!(begin(&[1]).unwrap().layers(), 0);
    assert_eq!(Batch::kept(&run), None);
    assert_eq!(begin(&[0, 1]).unwrap().layers(), 0);
}

#[test]
fn damage_in_a_later_layer_is_told_before_the_first() {
    let family = family_models::folders().remove(0);
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&family.weights).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut shard = fs::read(&path).unwrap();
    let name = b"model.layers.1.mlp.up_proj.weight";
    let place = shard.windows(name.len()).position(|w| w == name).unwrap();
    shard[place + 20] = b'X';
    fs::write(&path, shard).unwrap();
    let mut files = family.files();
    files.weights = folder.path().to_owned();
    let mut header = ModelHeader::open(files).unwrap();
    let said = header.layers(&Device::Cpu, Precision::FLOAT32).err();
    let said = said.unwrap().to_string();
    assert!(
        said.contains("lacks the tensor blk.1.ffn_up.weight"),
        "{said}"
    );
}

#[test]
fn a_bias_that_nothing_reads_is_told_in_every_layer() {
    let family = family_models::folders().remove(0);
    for layer in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&family.weights).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let path = folder.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let own = format!("model.layers.{layer}.input_layernorm");
        let norm = tensors[&format!("{own}.weight")].clone();
        tensors.insert(format!("{own}.bias"), norm);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let mut files = family.files();
        files.weights = folder.path().to_owned();
        let mut header = ModelHeader::open(files).unwrap();
        let said = header.layers(&Device::Cpu, Precision::FLOAT32).err();
        let said = said.unwrap().to_string();
        assert!(said.contains(&format!("{own}.bias")), "{said}");
    }
}

#[test]
fn a_run_that_was_killed_among_its_parts_or_kept_damage_goes_on() {
    let family = family_models::folders().remove(0);
    let options = MeasureOptions::default();
    let case = Case {
        files: family.files(),
        precision: Precision::FLOAT32,
        options: &options,
        prompts: &prompts(&[5, 9]),
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |part: &str| folder.path().join(part);
    case.by_prompt(&at("whole"));
    // One of two parts is written, and the batch is still kept.
    let one = case.run(&at("one"), false);
    let model = case.header().load(&Device::Cpu, case.precision).unwrap();
    one.measure(0, &case.prompts[0], &model.decoder, &mut |_| ())
        .unwrap();
    case.by_layer(&at("killed"), false, usize::MAX, Some(1));
    for table in one.tables() {
        let part = format!(".parts/000000.{table}.parquet");
        fs::copy(at("one").join(&part), at("killed").join(&part)).unwrap();
    }
    case.by_layer(&at("killed"), true, usize::MAX, None);
    assert_eq!(bytes(&at("whole")), bytes(&at("killed")));
    // What was kept is cut short: the batch begins anew.
    case.by_layer(&at("damaged"), false, usize::MAX, Some(1));
    let hidden = at("damaged").join(".parts/kept-00001/hidden");
    let kept = fs::read(&hidden).unwrap();
    fs::write(hidden, &kept[1..]).unwrap();
    case.by_layer(&at("damaged"), true, usize::MAX, None);
    assert_eq!(bytes(&at("whole")), bytes(&at("damaged")));
}
