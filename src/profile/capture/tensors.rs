//! The tensors of one layer of a capture, read and checked.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::manifest::CaptureManifest;
use super::tensor_header::{TensorHeader, Wanted};
use crate::compute::finite::all_finite;
use crate::error::{Error, Result};
use crate::model::CapturedTensors;

/// The layers of a capture, prompt by prompt.
pub trait CapturedLayers {
    /// What was captured.
    fn manifest(&self) -> &CaptureManifest;

    /// The tensors of a layer of a prompt; layers are asked for in order, prompt by prompt.
    ///
    /// Errors: [`Error::Format`] for what is missing or contradicts the manifest, [`Error::NotFinite`], [`Error::Io`].
    fn layer(&mut self, prompt: usize, layer: usize) -> Result<CapturedTensors>;

    /// Refuses a capture that goes on after its last layer.
    ///
    /// Errors: [`Error::Format`], [`Error::Io`].
    fn end(&mut self) -> Result<()>;

    /// Passes over a prompt that need not be measured again.
    ///
    /// Errors: as [`CapturedLayers::layer`].
    fn skip(&mut self, prompt: usize) -> Result<()>;
}

/// Reads the tensors of a file that lies in memory whole; `place` is where it came from, for messages.
///
/// Errors: [`Error::Format`], [`Error::NotFinite`].
pub(super) fn tensors_of<const N: usize>(
    bytes: &[u8],
    wanted: &Wanted<N>,
    place: &Path,
) -> Result<[Tensor; N]> {
    let (header, data) = TensorHeader::of_bytes(bytes, place)?;
    header.check(wanted)?;
    let tensors = wanted.tensors.iter().map(|(name, shape)| {
        let (dtype, range) = header.tensor(name, shape)?;
        let lacking = || Error::format(place, format!("ends within tensor {name}"));
        let numbers = data.get(range).ok_or_else(lacking)?;
        let tensor = Tensor::from_raw_buffer(numbers, dtype, shape, &Device::Cpu)?;
        let tensor = tensor.to_dtype(DType::F32)?;
        if all_finite(&tensor)? {
            return Ok(tensor);
        }
        Err(Error::NotFinite {
            place: format!("tensor {name} of {} in {}", wanted.which(), place.display()),
            advice: "the model overflowed its element type, or the file is damaged: capture again, with --dtype float32".into(),
        })
    });
    let tensors: Vec<Tensor> = tensors.collect::<Result<_>>()?;
    tensors
        .try_into()
        .map_err(|_| Error::format(place, "lacks a tensor"))
}

/// Names and shapes of the tensors of a layer of a prompt.
fn attention_shapes(
    manifest: &CaptureManifest,
    prompt: usize,
) -> Result<[(&'static str, Vec<usize>); 3]> {
    let model = &manifest.model;
    let (heads, kv_heads, d) = (model.num_heads, model.num_kv_heads, model.head_dim);
    let tokens = manifest.prompt(prompt)?.ids.len();
    Ok([
        ("queries", vec![heads, manifest.rows(tokens), d]),
        ("keys", vec![kv_heads, tokens, d]),
        ("values", vec![kv_heads, tokens, d]),
    ])
}

/// Name and shape of W_o.
fn output_shape(manifest: &CaptureManifest) -> (&'static str, Vec<usize>) {
    let model = &manifest.model;
    let width = model.num_heads.saturating_mul(model.head_dim);
    ("output", vec![model.hidden_size, width])
}

/// What the file of a layer of a prompt holds.
///
/// Errors: [`Error::Invalid`] for a prompt that there is not.
pub(super) fn attention_file(
    manifest: &CaptureManifest,
    prompt: usize,
    layer: usize,
) -> Result<Wanted<3>> {
    Ok(Wanted {
        labels: vec![("layer", layer), ("prompt", prompt)],
        tensors: attention_shapes(manifest, prompt)?,
    })
}

/// What the file of W_o of a layer holds.
pub(super) fn output_projection_file(manifest: &CaptureManifest, layer: usize) -> Wanted<1> {
    Wanted {
        labels: vec![("layer", layer)],
        tensors: [output_shape(manifest)],
    }
}

/// What comes through a pipe of a layer of a prompt.
///
/// Errors: [`Error::Invalid`] for a prompt that there is not.
pub(super) fn piped_layer(
    manifest: &CaptureManifest,
    prompt: usize,
    layer: usize,
) -> Result<Wanted<4>> {
    let [queries, keys, values] = attention_shapes(manifest, prompt)?;
    Ok(Wanted {
        labels: vec![("layer", layer), ("prompt", prompt)],
        tensors: [queries, keys, values, output_shape(manifest)],
    })
}
