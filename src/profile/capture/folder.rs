//! A capture as a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::manifest::{CaptureManifest, LONGEST_MANIFEST};
use super::tensors::{CapturedLayers, LONGEST_HEADER, TensorFile, attention_shapes, output_shape};
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
    /// Reads the manifest and looks whether every file is there.
    ///
    /// Errors: [`Error::Format`] for a folder that is no capture, or one that lacks a layer; [`Error::Io`].
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

    fn check_files(&self) -> Result<()> {
        let layers = self.manifest.num_layers();
        for layer in 0..layers {
            self.require(output_file(layer), || format!("layer {layer} of {layers}"))?;
        }
        for prompt in 0..self.manifest.prompts.len() {
            for layer in 0..layers {
                self.require(layer_file(prompt, layer), || {
                    format!("layer {layer} of {layers} of prompt {prompt}")
                })?;
            }
        }
        Ok(())
    }

    fn require(&self, file: String, what: impl Fn() -> String) -> Result<()> {
        if self.folder.join(&file).is_file() {
            return Ok(());
        }
        let problem = format!(
            "lacks {file}, {}: the capture is unfinished or was damaged; go on with its --resume, or capture again",
            what()
        );
        Err(Error::format(&self.folder, problem))
    }

    fn read<const N: usize>(
        &self,
        file: String,
        labels: &[(&str, usize)],
        wanted: [(&str, Vec<usize>); N],
    ) -> Result<[Tensor; N]> {
        let path = self.folder.join(file);
        let numbers = wanted
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>());
        let most = LONGEST_HEADER + 4 * numbers.sum::<usize>();
        // Read and not mapped: a file that is cut short meanwhile must end in an error, and tensors are copied anyway.
        let bytes = read_at_most(&path, most)?;
        TensorFile::new(&bytes, &path).read(labels, wanted)
    }
}

impl CapturedLayers for CaptureFolder {
    fn manifest(&self) -> &CaptureManifest {
        &self.manifest
    }

    fn layer(&mut self, prompt: usize, layer: usize) -> Result<CapturedTensors> {
        let tokens = self.manifest.prompts[prompt].ids.len();
        let labels = [("prompt", prompt), ("layer", layer)];
        let shapes = attention_shapes(&self.manifest, tokens);
        let [queries, keys, values] = self.read(layer_file(prompt, layer), &labels, shapes)?;
        let shape = [output_shape(&self.manifest)];
        let [output] = self.read(output_file(layer), &labels[1..], shape)?;
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
