//! `kvprof measure`: a profile of attention that was captured elsewhere.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::profile::{
    CaptureFolder, CaptureManifest, CaptureStream, CapturedLayers, Profile, ProfileRecord,
    ProfileRun, ProfileSettings, Prompt, prompts_sha256,
};
use kvprof::run::DataRecord;

use super::long_run::{RunArguments, progress_bar, run_command, stop_cleanly};
use super::measure_options::{MeasureArguments, Window};
use super::profile_report::report;

/// Arguments of `kvprof measure`.
#[derive(Debug, clap::Args)]
pub struct CapturedArguments {
    /// Captures: folders that kvprof_capture or `kvprof profile --capture-out` wrote; several make one profile
    #[arg(value_name = "CAPTURE", required_unless_present = "stdin_layers")]
    captures: Vec<PathBuf>,
    /// Read one capture from standard input while it is made, so that nothing of it need lie on disk
    #[arg(long, conflicts_with = "captures")]
    stdin_layers: bool,
    /// Observation window in rows, or `all`; by default that of the capture
    #[arg(long)]
    window: Option<Window>,
    #[command(flatten)]
    measures: MeasureArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// The captures of a run, and which prompt is where.
struct Captures {
    all: Vec<Box<dyn CapturedLayers>>,
    prompts: Vec<Prompt>,
    /// Capture and place in it of every prompt.
    places: Vec<(usize, usize)>,
}

impl CapturedArguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.run.check_place::<ProfileSettings>()?;
        let mut captures = self.open()?;
        let manifest = captures.all[0].manifest();
        let window = self.checked_window(manifest)?;
        let measures = self.measures.options(window)?;
        measures.check_types(manifest.model.head_dim, &candle_core::Device::Cpu)?;
        let record = ProfileRecord::new(
            run_command(),
            manifest.model_record(),
            captures.data_record(),
            ProfileSettings { measures, seed: 0 },
        );
        let names = ["measure", &record.model.name, &record.data.name];
        let folder = self.run.folder(&names);
        let count = captures.prompts.len();
        let run = ProfileRun::prepare(&folder, record, count, self.run.resume)?;
        stop_cleanly(&folder);
        captures.measure(&run, self.run.quiet)?;
        run.finish()?;
        report(&self.run, &Profile::load(&folder)?, &folder)
    }

    fn open(&self) -> anyhow::Result<Captures> {
        refuse_what_comes_twice(&self.captures)?;
        let mut all: Vec<Box<dyn CapturedLayers>> = Vec::new();
        if self.stdin_layers {
            all.push(Box::new(CaptureStream::open(io::stdin().lock())?));
        }
        for folder in &self.captures {
            all.push(Box::new(CaptureFolder::open(folder)?));
        }
        for (other, folder) in all.iter().zip(&self.captures).skip(1) {
            let other = other.manifest();
            if let Some(field) = all[0].manifest().differs_in(other) {
                anyhow::bail!(
                    "{} has another {field} than {}: measure them one by one",
                    folder.display(),
                    self.captures[0].display()
                );
            }
        }
        let manifests = all.iter().map(|one| one.manifest());
        let prompts = manifests.clone().flat_map(CaptureManifest::prompts);
        let places = manifests.enumerate().flat_map(|(capture, manifest)| {
            (0..manifest.prompts.len()).map(move |prompt| (capture, prompt))
        });
        let (prompts, places) = (prompts.collect(), places.collect());
        Ok(Captures {
            all,
            prompts,
            places,
        })
    }

    /// The window, which must lie in what was captured.
    fn checked_window(&self, manifest: &CaptureManifest) -> anyhow::Result<Option<usize>> {
        let Some(Window(window)) = self.window else {
            return Ok(manifest.window);
        };
        let Some(captured) = manifest.window else {
            return Ok(window);
        };
        let shown = window.map_or("all".to_owned(), |rows| rows.to_string());
        anyhow::ensure!(
            window.is_some_and(|rows| rows <= captured),
            "--window is {shown}, but the capture holds the queries of the last {captured} rows; capture again with more"
        );
        Ok(window)
    }
}

/// Refuses a folder that is named twice, whose prompts would count twice in every mean; copies are not recognised.
fn refuse_what_comes_twice(captures: &[PathBuf]) -> anyhow::Result<()> {
    let mut places = HashSet::new();
    for folder in captures {
        let place = fs::canonicalize(folder);
        let place = place.with_context(|| format!("cannot find {}", folder.display()))?;
        anyhow::ensure!(
            places.insert(place),
            "{} comes twice among the captures: name it once",
            folder.display()
        );
    }
    Ok(())
}

impl Captures {
    fn measure(&mut self, run: &ProfileRun, quiet: bool) -> anyhow::Result<()> {
        let tokens = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let bar = progress_bar(tokens, "tokens", quiet);
        for (index, &(capture, prompt)) in self.places.iter().enumerate() {
            let (tokens, id) = (self.prompts[index].ids.len(), &self.prompts[index].id);
            let capture = &mut *self.all[capture];
            let before = bar.position();
            if run.has(index) {
                capture.skip(prompt)?;
            } else {
                let layers = capture.manifest().num_layers() as u64;
                let mut passed = 0;
                let mut on_layer = |_| {
                    passed += 1;
                    bar.set_position(before + passed * tokens as u64 / layers);
                    bar.set_message(format!("prompt {}, layer {passed}/{layers}", index + 1));
                };
                run.measure_captured(index, capture, prompt, &mut on_layer)
                    .with_context(|| format!("measuring prompt {} ({id})", index + 1))?;
            }
            bar.set_position(before + tokens as u64);
        }
        bar.finish_and_clear();
        Ok(self.all.iter_mut().try_for_each(|capture| capture.end())?)
    }

    /// What the record of the run keeps of the data sets that prompts came from.
    fn data_record(&self) -> DataRecord {
        let manifests = self.all.iter().map(|capture| &capture.manifest().data);
        let (mut names, mut hashes) = (Vec::new(), Vec::new());
        for data in manifests {
            if !names.contains(&data.name.as_str()) {
                names.push(&data.name);
            }
            hashes.push(data.sha256.as_str());
        }
        let sha256 = match hashes.as_slice() {
            [one] => (*one).to_owned(),
            all => kvprof::files::sha256_hex(all.join("\n").as_bytes()),
        };
        DataRecord {
            name: names.join("+"),
            sha256,
            template: "captured".to_owned(),
            prompts: self.prompts.len(),
            prompts_sha256: prompts_sha256(&self.prompts),
            max_prompt_tokens: None,
            protocol: None,
        }
    }
}
