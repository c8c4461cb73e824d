//! `kvprof profile`: prefill prompts, measure every head, leave a profile folder.

use std::path::{Path, PathBuf};

use candle_core::Device;
use kvprof::dataset;
use kvprof::model::ModelHeader;
use kvprof::model::footprint::Prefill;
use kvprof::profile::{
    CaptureFolder, CaptureManifest, CaptureWriter, CapturedData, CapturedModel, MeasureOptions,
    Profile, ProfileRecord, ProfileRun, ProfileSettings, Prompt,
};
use kvprof::run::ModelRecord;

use super::jobs::JobArguments;
use super::load::ModelArguments;
use super::long_run::{RunArguments, run_command, stop_cleanly};
use super::measure_options::{MeasureArguments, Window};
use super::profile_estimate::ProfileEstimate;
use super::profile_need::{MemoryBound, ProfileNeed};
use super::profile_report::report;
use super::profile_work::ProfileWork;
use super::prompts::PromptArguments;

/// Arguments of `kvprof profile`.
#[derive(Debug, clap::Args)]
pub struct ProfileArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = dataset::DEFAULT)]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    /// Observation window in rows, or `all`
    #[arg(long, default_value = "32")]
    window: Window,
    #[command(flatten)]
    measures: MeasureArguments,
    /// Seed, kept as provenance: nothing in a profile is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Memory to keep to, such as 2GB; by default half of what is free. Residual streams that do not fit wait in a file
    #[arg(long, value_name = "BYTES")]
    memory: Option<MemoryBound>,
    /// Also leave a capture of attention in a folder, which `kvprof measure` reads
    #[arg(long, value_name = "FOLDER", conflicts_with = "dry_run")]
    capture_out: Option<PathBuf>,
    /// Say what it would take in memory and disk, operations and time, and do nothing but time some layers for about ten seconds
    #[arg(long, conflicts_with_all = ["out", "resume"])]
    dry_run: bool,
    #[command(flatten)]
    jobs: JobArguments,
    #[command(flatten)]
    run: RunArguments,
}

impl ProfileArguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.jobs.check()?;
        let measures = self.measures.options(self.window.0)?;
        self.run.check_place::<ProfileSettings>()?;
        let set = self.prompts.open(&self.data)?;
        let (mut header, device) = self.model.open(self.run.quiet)?;
        measures.check_types(header.config.head_dim, &device)?;
        let cases = set.cases_of(&header)?;
        let prompts: Vec<Prompt> = cases.iter().map(Prompt::from).collect();
        let precision = self.model.precision()?;
        let need = ProfileNeed::of(
            &Prefill {
                config: &header.config,
                weights: header.weight_memory(&device, precision.dtype),
                device: &device,
                precision,
                window: self.window.0,
                compares_types: !measures.quantise.is_empty(),
                jobs: self.jobs.at_once(prompts.len()),
            },
            &prompts,
            self.memory,
        );
        if self.dry_run {
            let estimate = self.estimate((&mut header, &device), &prompts, &need, &measures)?;
            return need.write(&header.files.name, &estimate, self.run.json);
        }
        need.refuse_what_cannot_fit()?;
        let record = ProfileRecord::new(
            run_command(),
            ModelRecord::of_files(&header.files, &header.config, &device, precision),
            set.record(&prompts),
            ProfileSettings {
                measures,
                seed: self.seed,
            },
        );
        let names = ["profile", &record.model.name, &record.data.name];
        let folder = self.run.folder(&names);
        let capture = self.capture(&header, &record, &folder, &prompts)?;
        let run = ProfileRun::prepare(&folder, record, prompts.len(), self.run.resume)?
            .reading(header.files.in_use.clone());
        let work = ProfileWork {
            run: &run,
            prompts: &prompts,
            jobs: self.jobs,
            room: need.room(),
            capture: capture.as_ref(),
            quiet: self.run.quiet,
        };
        work.begin_capture()?;
        stop_cleanly(&folder);
        work.measure(&mut self.model.layers(&mut header, &device)?)?;
        run.finish()?;
        if let Some(folder) = &self.capture_out {
            CaptureFolder::open(folder)?;
        }
        report(&self.run, &Profile::load(&folder)?, &folder)
    }

    /// What the run would cost, after some layers were timed where one fits.
    fn estimate(
        &self,
        (header, device): (&mut ModelHeader, &Device),
        prompts: &[Prompt],
        need: &ProfileNeed,
        measures: &MeasureOptions,
    ) -> anyhow::Result<ProfileEstimate> {
        let operations = ProfileEstimate::untimed(&header.config, prompts);
        if let Some(why) = need.cannot_be_timed() {
            return Ok(operations.not_timed(why));
        }
        let mut layers = self.model.layers(header, device)?;
        operations.timed(&mut layers, prompts, need, measures, self.run.quiet)
    }

    /// The capture that is written beside the profile.
    fn capture(
        &self,
        header: &ModelHeader,
        record: &ProfileRecord,
        out: &Path,
        prompts: &[Prompt],
    ) -> anyhow::Result<Option<CaptureWriter>> {
        let Some(folder) = &self.capture_out else {
            return Ok(None);
        };
        let precision = self.model.precision()?;
        let (own, out) = (std::path::absolute(folder)?, std::path::absolute(out)?);
        anyhow::ensure!(
            !own.starts_with(&out) && !out.starts_with(&own),
            "--capture-out {} and the profile's folder {} lie in one another: keep them apart",
            folder.display(),
            out.display()
        );
        anyhow::ensure!(
            precision.cache.is_plain(),
            "--capture-out holds numbers of f32, bf16 and f16, not of a cache in {}; leave --cache-dtype out",
            precision.cache
        );
        let (model, data) = (&record.model, &record.data);
        let data = CapturedData {
            name: data.name.clone(),
            sha256: data.sha256.clone(),
        };
        let manifest = CaptureManifest::new(
            format!("kvprof {}", env!("CARGO_PKG_VERSION")),
            [model.device.clone(), model.dtype.clone()],
            self.window.0,
            CapturedModel::of(&header.files, &header.config),
            data,
            prompts,
        );
        let capture = CaptureWriter::prepare(folder, manifest, self.run.resume)?;
        Ok(Some(capture.reading(header.files.in_use.clone())))
    }
}
