//! A capture as a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::manifest::{CaptureManifest, LONGEST_MANIFEST};
use super::tensor_header::{TensorHeader, Wanted};
use super::tensors::{CapturedLayers, attention_file, output_projection_file, tensors_of};
use crate::error::{Error, Result};
use crate::model::CapturedTensors;

/// The name of a manifest.
pub(super) const MANIFEST: &str = "capture.json";

/// A capture on disk.
pub struct CaptureFolder {
    folder: PathBuf,
    manifest: CaptureManifest,
}

impl CaptureFolder {
    /// Reads the manifest, and of every file its header.
    ///
    /// Errors: [`Error::Format`] for a folder that is no capture, lacks a layer, or has a file that is cut short or
    /// contradicts the manifest; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            let problem = "is no capture (no capture.json); make one with kvprof_capture or with `kvprof profile --capture-out`";
            return Err(Error::format(folder, problem));
        }
        let text = read_at_most(&path, LONGEST_MANIFEST)?;
        let capture = Self {
            folder: folder.to_owned(),
            manifest: CaptureManifest::parse(&text, &path)?,
        };
        capture.check_files()?;
        Ok(capture)
    }

    /// Looks whether every file is there and says that it holds what the manifest promises, before hours are spent on the
    /// first of them.
    fn check_files(&self) -> Result<()> {
        let (manifest, layers) = (&self.manifest, self.manifest.num_layers());
        for layer in 0..layers {
            let what = || format!("layer {layer} of {layers}");
            let wanted = output_projection_file(manifest, layer);
            self.check_file(output_file(layer), &wanted, what)?;
        }
        for prompt in 0..manifest.prompts.len() {
            for layer in 0..layers {
                let what = || format!("layer {layer} of {layers} of prompt {prompt}");
                let wanted = attention_file(manifest, prompt, layer)?;
                self.check_file(layer_file(prompt, layer), &wanted, what)?;
            }
        }
        Ok(())
    }

    fn check_file<const N: usize>(
        &self,
        file: String,
        wanted: &Wanted<N>,
        what: impl Fn() -> String,
    ) -> Result<()> {
        let path = self.folder.join(&file);
        if path.is_file() {
            return TensorHeader::of_file(&path)?.check(wanted);
        }
        let problem = format!(
            "lacks {file}, {}: the capture is unfinished or was damaged; go on with its --resume, or capture again",
            what()
        );
        Err(Error::format(&self.folder, problem))
    }

    fn read<const N: usize>(&self, file: String, wanted: &Wanted<N>) -> Result<[Tensor; N]> {
        let path = self.folder.join(file);
        // Read and not mapped: a file that is cut short meanwhile must end in an error, and tensors are copied anyway.
        let bytes = read_at_most(&path, wanted.most_bytes())?;
        tensors_of(&bytes, wanted, &path)
    }
}

impl CapturedLayers for CaptureFolder {
    fn manifest(&self) -> &CaptureManifest {
        &self.manifest
    }

    fn layer(&mut self, prompt: usize, layer: usize) -> Result<CapturedTensors> {
        let wanted = attention_file(&self.manifest, prompt, layer)?;
        let [queries, keys, values] = self.read(layer_file(prompt, layer), &wanted)?;
        let wanted = output_projection_file(&self.manifest, layer);
        let [output] = self.read(output_file(layer), &wanted)?;
        Ok(CapturedTensors {
            queries,
            keys,
            values,
            output,
        })
    }

    fn skip(&mut self, _prompt: usize) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A whole file, unless it is longer than it could be.
fn read_at_most(path: &Path, most: usize) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut bytes = Vec::new();
    let read = file.take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", path, e))?;
    if bytes.len() > most {
        let problem = format!(
            "has more than the {most} bytes that it could have: it was damaged, capture again"
        );
        return Err(Error::format(path, problem));
    }
    Ok(bytes)
}

/// Where the tensors of a layer of a prompt lie in a capture.
pub(super) fn layer_file(prompt: usize, layer: usize) -> String {
    format!("prompt-{prompt:05}/layer-{layer:03}.safetensors")
}

/// Where W_o of a layer lies in a capture.
pub(super) fn output_file(layer: usize) -> String {
    format!("output-{layer:03}.safetensors")
}
