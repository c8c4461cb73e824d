//! Writing a capture while a profile is made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use super::folder::{MANIFEST, layer_file, output_file};
use super::manifest::CaptureManifest;
use crate::error::{Error, Result};
use crate::files;
use crate::model::attention::{AttentionProbe, AttentionView};
use crate::model::cache::HeadCache;
use crate::model::source::FilesInUse;
use crate::profile::quantisation::WindowQueries;

/// A capture that is being written.
pub struct CaptureWriter {
    folder: PathBuf,
    manifest: CaptureManifest,
    reads: FilesInUse,
}

impl CaptureWriter {
    /// A capture that is to be written, or, where `resume` says so, one of the same manifest that goes on; nothing is written yet.
    ///
    /// Errors: [`Error::OutputExists`] for a folder that holds anything else; [`Error::Io`].
    pub fn prepare(folder: &Path, manifest: CaptureManifest, resume: bool) -> Result<Self> {
        let writer = Self {
            folder: folder.to_owned(),
            manifest,
            reads: FilesInUse::default(),
        };
        let path = folder.join(MANIFEST);
        let in_the_way = |problem: &str| Error::OutputExists {
            path: folder.to_owned(),
            problem: problem.to_owned(),
        };
        if path.exists() {
            let text = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
            if CaptureManifest::parse(&text, &path)? != writer.manifest {
                return Err(in_the_way(
                    "holds another capture; choose another folder with --capture-out",
                ));
            }
            if !resume {
                return Err(in_the_way(
                    "already holds this very capture; go on with --resume, or choose another folder",
                ));
            }
            return Ok(writer);
        }
        let occupied = folder.is_file()
            || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(in_the_way(
                "holds something else than a capture; choose another folder with --capture-out",
            ));
        }
        Ok(writer)
    }

    /// The capture of a model whose weights are read from these files: no layer is written once they have changed.
    pub fn reading(self, reads: FilesInUse) -> Self {
        Self { reads, ..self }
    }

    /// Writes the manifest, so that layers may follow, and removes what killed writes have left.
    ///
    /// Errors: [`Error::Io`].
    pub fn begin(&self) -> Result<()> {
        files::remove_partial(&self.folder)?;
        for prompt in 0..self.manifest.prompts.len() {
            if let Some(folder) = self.folder.join(layer_file(prompt, 0)).parent() {
                files::remove_partial(folder)?;
            }
        }
        let path = self.folder.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&self.manifest);
        files::replace_with(
            &path,
            &text.map_err(|e| Error::format(&path, e.to_string()))?,
        )
    }

    /// Whether every layer of a prompt is there.
    pub fn has(&self, prompt: usize) -> bool {
        self.has_layers(prompt, self.manifest.num_layers())
    }

    /// Whether so many layers of a prompt are there, from the first.
    pub fn has_layers(&self, prompt: usize, layers: usize) -> bool {
        (0..layers).all(|l| {
            self.folder.join(layer_file(prompt, l)).is_file()
                && self.folder.join(output_file(l)).is_file()
        })
    }

    /// A probe that writes the layers of a prompt.
    pub fn probe(&self, prompt: usize) -> CaptureProbe<'_> {
        CaptureProbe {
            writer: self,
            prompt,
            queries: BTreeMap::new(),
        }
    }

    fn write_layer(&self, prompt: usize, view: &AttentionView<'_>, queries: Tensor) -> Result<()> {
        let heads = |of: fn(&HeadCache) -> Result<Tensor>| -> Result<Tensor> {
            let heads = view.cache.heads.iter().map(of);
            Ok(Tensor::stack(&heads.collect::<Result<Vec<_>>>()?, 0)?)
        };
        let tensors = [
            ("queries", queries),
            ("keys", heads(HeadCache::keys)?),
            ("values", heads(HeadCache::values)?),
        ];
        let labels = [("prompt", prompt), ("layer", view.layer)];
        self.write(&layer_file(prompt, view.layer), &labels, tensors)?;
        let output = output_file(view.layer);
        if self.folder.join(&output).is_file() {
            return Ok(());
        }
        let tensors = [("output", view.output_projection()?)];
        self.write(&output, &labels[1..], tensors)
    }

    fn write<const N: usize>(
        &self,
        file: &str,
        labels: &[(&str, usize)],
        tensors: [(&'static str, Tensor); N],
    ) -> Result<()> {
        self.reads.check()?;
        let path = self.folder.join(file);
        let labels = labels
            .iter()
            .map(|(name, number)| ((*name).to_owned(), number.to_string()));
        let stored: Vec<Stored> = tensors.into_iter().map(Stored::of).collect::<Result<_>>()?;
        let views = stored.iter().map(|one| Ok((one.name, one.view()?)));
        let views: Vec<_> = views
            .collect::<Result<_, SafeTensorError>>()
            .map_err(|e| unwritten(&path, &e))?;
        let bytes = safetensors::serialize(views, Some(labels.collect()));
        files::replace_with(&path, &bytes.map_err(|e| unwritten(&path, &e))?)
    }
}

/// The bytes of a tensor as a file has them.
struct Stored {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// In the type that it has, where captures have that.
    fn of((name, tensor): (&'static str, Tensor)) -> Result<Self> {
        let (dtype, tensor) = match tensor.dtype() {
            DType::F16 => (Dtype::F16, tensor),
            DType::BF16 => (Dtype::BF16, tensor),
            _ => (Dtype::F32, tensor.to_dtype(DType::F32)?),
        };
        let mut bytes = Vec::new();
        tensor.contiguous()?.write_bytes(&mut bytes)?;
        Ok(Self {
            name,
            dtype,
            shape: tensor.dims().to_vec(),
            bytes,
        })
    }

    fn view(&self) -> Result<TensorView<'_>, SafeTensorError> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes)
    }
}

fn unwritten(path: &Path, problem: &SafeTensorError) -> Error {
    Error::io("write", path, std::io::Error::other(problem.to_string()))
}

/// Writes the layers of one prompt as a prefill shows them.
pub struct CaptureProbe<'a> {
    writer: &'a CaptureWriter,
    prompt: usize,
    /// Of layers whose prompt has not ended.
    queries: BTreeMap<usize, WindowQueries>,
}

impl AttentionProbe for CaptureProbe<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let first = view.prompt_tokens - self.writer.manifest.rows(view.prompt_tokens);
        let own = self.queries.entry(view.layer);
        own.or_insert_with(|| WindowQueries::from(first))
            .take(view)?;
        match self.queries.remove(&view.layer) {
            Some(queries) if view.is_last() => {
                self.writer
                    .write_layer(self.prompt, view, queries.joined()?)
            }
            Some(queries) => {
                self.queries.insert(view.layer, queries);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
