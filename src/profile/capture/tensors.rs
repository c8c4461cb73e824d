//! The tensors of one layer of a capture, read and checked.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::manifest::CaptureManifest;
use crate::error::{Error, Result};
use crate::model::{CapturedTensors, check_safetensors};

/// No header of four tensors is longer: 1 MiB.
pub(super) const LONGEST_HEADER: usize = 1 << 20;

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

/// One file of tensors, or what came through a pipe as one.
pub(super) struct TensorFile<'a> {
    bytes: &'a [u8],
    /// Where they lie, for messages.
    place: &'a Path,
}

impl<'a> TensorFile<'a> {
    pub(super) fn new(bytes: &'a [u8], place: &'a Path) -> Self {
        Self { bytes, place }
    }

    /// Reads tensors of these names and shapes; `labels` is what the file says of itself.
    ///
    /// Errors: [`Error::Format`], [`Error::Unsupported`] for other element types, [`Error::NotFinite`].
    pub(super) fn read<const N: usize>(
        &self,
        labels: &[(&str, usize)],
        wanted: [(&str, Vec<usize>); N],
    ) -> Result<[Tensor; N]> {
        let wrong = |problem: String| {
            Error::format(self.place, format!("is damaged or cut short: {problem}"))
        };
        check_safetensors(self.bytes).map_err(wrong)?;
        let file = SafeTensors::deserialize(self.bytes).map_err(|e| wrong(e.to_string()))?;
        let (_, header) =
            SafeTensors::read_metadata(self.bytes).map_err(|e| wrong(e.to_string()))?;
        let said = header.metadata().as_ref();
        for (name, number) in labels {
            let found = said
                .and_then(|said| said.get(*name))
                .cloned()
                .unwrap_or_default();
            if found != number.to_string() {
                let problem =
                    format!("says that it is of {name} \"{found}\", {name} {number} is expected");
                return Err(Error::format(self.place, problem));
            }
        }
        let tensors = wanted.map(|(name, shape)| {
            let Ok(view) = file.tensor(name) else {
                return Err(Error::format(
                    self.place,
                    format!("lacks the tensor {name}"),
                ));
            };
            self.tensor(name, &view, &shape)
        });
        let tensors: Vec<Tensor> = tensors.into_iter().collect::<Result<_>>()?;
        tensors
            .try_into()
            .map_err(|_| Error::format(self.place, "lacks a tensor"))
    }

    fn tensor(&self, name: &str, view: &TensorView<'_>, shape: &[usize]) -> Result<Tensor> {
        if view.shape() != shape {
            let found = view.shape();
            let problem =
                format!("tensor {name} has shape {found:?}, the manifest asks for {shape:?}");
            return Err(Error::format(self.place, problem));
        }
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Error::Unsupported {
                    what: "number format",
                    found: format!("{other:?} of tensor {name} in {}", self.place.display()),
                    supported: "F32, F16 and BF16".into(),
                });
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)?;
        let tensor = tensor.to_dtype(DType::F32)?;
        // NaN and infinity survive in a sum of absolute values, so one number shows them.
        if tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Ok(tensor);
        }
        Err(Error::NotFinite {
            place: format!("tensor {name} of {}", self.place.display()),
            advice: "the model overflowed its element type, or the file is damaged: capture again, with --dtype float32".into(),
        })
    }
}

/// Names and shapes of the tensors of a layer of a prompt of `tokens`.
pub(super) fn attention_shapes(
    manifest: &CaptureManifest,
    tokens: usize,
) -> [(&'static str, Vec<usize>); 3] {
    let model = &manifest.model;
    let (heads, kv_heads, d) = (model.num_heads, model.num_kv_heads, model.head_dim);
    [
        ("queries", vec![heads, manifest.rows(tokens), d]),
        ("keys", vec![kv_heads, tokens, d]),
        ("values", vec![kv_heads, tokens, d]),
    ]
}

/// Name and shape of W_o.
pub(super) fn output_shape(manifest: &CaptureManifest) -> (&'static str, Vec<usize>) {
    let model = &manifest.model;
    let width = model.num_heads.saturating_mul(model.head_dim);
    ("output", vec![model.hidden_size, width])
}
