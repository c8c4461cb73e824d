//! A run that is stopped and continued ends with the same bytes as one that was not.
#![allow(clippy::unwrap_used)]

mod family_models;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use kvprof::model::decoder::Decoder;
use kvprof::model::{Model, source};
use kvprof::profile::{Profile, ProfileRecord, ProfileRun, ProfileSettings, Prompt, TABLES};
use kvprof::run::{DataRecord, ModelRecord};

fn record(prompts: usize) -> ProfileRecord {
    let model = ModelRecord {
        name: "smollm2-135m".into(),
        source: "test".into(),
        sha256: "0".into(),
        architecture: "llama".into(),
        num_layers: 30,
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        windows: Vec::new(),
        device: "Cpu".into(),
        dtype: "f32".into(),
    };
    let data = DataRecord {
        name: "test".into(),
        sha256: "0".into(),
        template: "raw".into(),
        prompts,
        prompts_sha256: "0".into(),
        max_prompt_tokens: None,
        protocol: None,
    };
    ProfileRecord::new("kvprof profile", model, data, ProfileSettings::default())
}

fn bytes(folder: &Path) -> Vec<Vec<u8>> {
    let tables = TABLES
        .iter()
        .map(|t| fs::read(folder.join(format!("{t}.parquet"))).unwrap());
    tables
        .chain([fs::read(folder.join("meta.json")).unwrap()])
        .collect()
}

#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let model = Model::load(files, &Device::Cpu, DType::F32).unwrap();
    // Lengths of one token, less than a window, and more.
    let prompts: Vec<Prompt> = [1, 20, 60]
        .into_iter()
        .map(|n| Prompt {
            id: format!("n{n}"),
            ids: (0..n).map(|i| 200 + i * 31 % 900).collect(),
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let measure = |run: &ProfileRun, range: std::ops::Range<usize>| {
        for i in range {
            if !run.has(i) {
                run.measure(i, &prompts[i], &model.decoder, &mut |_| ())
                    .unwrap();
            }
        }
    };
    let whole = folder.path().join("whole");
    let run = ProfileRun::prepare(&whole, record(3), 3, false).unwrap();
    measure(&run, 0..3);
    run.finish().unwrap();
    let profile = Profile::load(&whole).unwrap();

    let parts = folder.path().join("parts");
    measure(
        &ProfileRun::prepare(&parts, record(3), 3, false).unwrap(),
        0..2,
    );
    assert!(
        Profile::load(&parts)
            .unwrap_err()
            .to_string()
            .contains("--resume")
    );
    // What a killed write leaves behind, and half a part: the first tables of prompt 2 only.
    fs::write(parts.join(".parts/.kvprof-x.partial"), b"half").unwrap();
    let from = parts.join(".parts/000001.heads.parquet");
    fs::copy(from, parts.join(".parts/000002.heads.parquet")).unwrap();
    assert!(
        ProfileRun::prepare(&parts, record(3), 3, false).is_err(),
        "only with resume"
    );
    assert!(
        ProfileRun::prepare(&parts, record(2), 2, true).is_err(),
        "another run's folder"
    );
    let run = ProfileRun::prepare(&parts, record(3), 3, true).unwrap();
    measure(&run, 0..3);
    run.finish().unwrap();
    assert_eq!(bytes(&whole), bytes(&parts));
    assert!(!parts.join(".parts").exists());

    // One key: every budget is 1, every mass 1.
    let one = &profile.heads.numbers("mba_pooled_99").unwrap()[..270];
    assert!(one.iter().all(|&b| b == 1.0));
    let lmbo = profile.layer_grid("lmbo_last_99_9_first").unwrap();
    assert!(lmbo[0].iter().all(|&b| b == 1.0));
    assert!(
        profile.heads.numbers("window_mass").unwrap()[..540]
            .iter()
            .all(|&m| m == 1.0)
    );
}

/// Measures prompts of one token, less than a window, and more.
fn measure_all(run: &ProfileRun, decoder: &Decoder, prompts: std::ops::Range<usize>) {
    for index in prompts {
        let prompt = Prompt {
            id: format!("p{index}"),
            ids: family_models::prompt([1, 12, 45][index]),
        };
        if !run.has(index) {
            (run.measure(index, &prompt, decoder, &mut |_| ())).unwrap();
        }
    }
}

#[test]
fn an_interrupted_run_of_any_family_ends_with_the_same_bytes() {
    family_models::each(|name, model| {
        let config = model.decoder.config();
        let mut own = record(3);
        own.model = ModelRecord {
            name: name.to_owned(),
            num_layers: config.num_hidden_layers(),
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            windows: config.windows(),
            ..own.model
        };
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let prepare = |path: &Path, resume| ProfileRun::prepare(path, own.clone(), 3, resume);
        let run = prepare(&whole, false).unwrap();
        measure_all(&run, &model.decoder, 0..3);
        run.finish().unwrap();
        measure_all(&prepare(&parts, false).unwrap(), &model.decoder, 0..2);
        // A killed write, and half a part.
        fs::write(parts.join(".parts/.kvprof-x.partial"), b"half").unwrap();
        let from = parts.join(".parts/000001.heads.parquet");
        fs::copy(from, parts.join(".parts/000002.heads.parquet")).unwrap();
        let run = prepare(&parts, true).unwrap();
        measure_all(&run, &model.decoder, 0..3);
        run.finish().unwrap();
        assert_eq!(bytes(&whole), bytes(&parts), "{name}");
        let profile = Profile::load(&whole).unwrap();
        assert_eq!(profile.meta.model.windows, config.windows(), "{name}");
    });
}
