//! A capture that comes through a pipe, layer by layer.

use std::io::{BufRead, Read};
use std::path::Path;

use super::manifest::{CaptureManifest, LONGEST_MANIFEST};
use super::tensor_header::{LENGTH, LONGEST_HEADER};
use super::tensors::{CapturedLayers, piped_layer, tensors_of};
use crate::error::{Error, Result};
use crate::model::CapturedTensors;

/// A capture that is read once from the front to the end.
pub struct CaptureStream<R> {
    from: R,
    manifest: CaptureManifest,
    /// Prompt and layer that come next.
    next: (usize, usize),
    bytes: Vec<u8>,
}

impl<R: BufRead> CaptureStream<R> {
    /// Reads the manifest, which is the first line.
    ///
    /// Errors: [`Error::Format`] for a line that is no manifest; [`Error::Io`].
    pub fn open(mut from: R) -> Result<Self> {
        let mut line = Vec::new();
        let mut limited = (&mut from).take(LONGEST_MANIFEST as u64);
        let read = limited.read_until(b'\n', &mut line);
        read.map_err(|e| Error::io("read", place(), e))?;
        if line.last() != Some(&b'\n') {
            let problem = format!(
                "does not begin with a capture's manifest: {} bytes came without the end of a line",
                line.len()
            );
            return Err(Error::format(place(), problem));
        }
        Ok(Self {
            manifest: CaptureManifest::parse(&line, place())?,
            from,
            next: (0, 0),
            bytes: Vec::new(),
        })
    }

    /// The bytes of the next layer.
    fn take(&mut self) -> Result<()> {
        let (prompt, layer) = self.next;
        let most = piped_layer(&self.manifest, prompt, layer)?.most_data();
        self.bytes.clear();
        self.read(LENGTH)?;
        let mut length = [0; LENGTH];
        length.copy_from_slice(&self.bytes);
        let header = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if header > LONGEST_HEADER {
            let problem =
                format!("has a header of {header} bytes, at most {LONGEST_HEADER} are possible");
            return Err(self.wrong(&problem));
        }
        self.read(header)?;
        let data = data_bytes(&self.bytes[LENGTH..]);
        let data = data.map_err(|problem| self.wrong(&problem))?;
        if data > most {
            let problem =
                format!("has {data} bytes of tensors, the manifest asks for at most {most}");
            return Err(self.wrong(&problem));
        }
        self.read(data)?;
        let last = layer + 1 == self.manifest.num_layers();
        self.next = if last {
            (prompt + 1, 0)
        } else {
            (prompt, layer + 1)
        };
        Ok(())
    }

    fn read(&mut self, count: usize) -> Result<()> {
        let mut limited = (&mut self.from).take(count as u64);
        let read = limited.read_to_end(&mut self.bytes);
        match read.map_err(|e| Error::io("read", place(), e))? {
            found if found == count => Ok(()),
            found => {
                let problem = format!(
                    "ended {} bytes too early: what captures has failed",
                    count - found
                );
                Err(self.wrong(&problem))
            }
        }
    }

    fn wrong(&self, problem: &str) -> Error {
        let (prompt, layer) = self.next;
        Error::format(
            place(),
            format!("layer {layer} of prompt {prompt} {problem}"),
        )
    }
}

/// Bytes of the tensors that a header describes.
fn data_bytes(header: &[u8]) -> Result<usize, String> {
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|e| format!("has a header that cannot be read: {e}"))?;
    let ends = entries.iter().filter(|(name, _)| *name != "__metadata__");
    let ends = ends.map(|(name, entry)| {
        let end = entry
            .get("data_offsets")
            .and_then(|offsets| offsets.get(1)?.as_u64());
        let end = end.and_then(|end| usize::try_from(end).ok());
        end.ok_or_else(|| format!("has a tensor {name} that lies nowhere"))
    });
    ends.collect::<Result<Vec<_>, _>>()
        .map(|ends| ends.into_iter().max().unwrap_or(0))
}

impl<R: BufRead> CapturedLayers for CaptureStream<R> {
    fn manifest(&self) -> &CaptureManifest {
        &self.manifest
    }

    fn layer(&mut self, prompt: usize, layer: usize) -> Result<CapturedTensors> {
        if (prompt, layer) != self.next {
            let bound = format!("a stream is read in order: {:?} comes next", self.next);
            return Err(Error::invalid(
                "prompt and layer",
                format!("{:?}", (prompt, layer)),
                bound,
            ));
        }
        self.take()?;
        let wanted = piped_layer(&self.manifest, prompt, layer)?;
        let [queries, keys, values, output] = tensors_of(&self.bytes, &wanted, place())?;
        Ok(CapturedTensors {
            queries,
            keys,
            values,
            output,
        })
    }

    fn end(&mut self) -> Result<()> {
        let rest = self
            .from
            .fill_buf()
            .map_err(|e| Error::io("read", place(), e))?;
        if rest.is_empty() {
            return Ok(());
        }
        let problem = "goes on after the last layer of the last prompt: the manifest is of another capture, or two came one after the other";
        Err(Error::format(place(), problem))
    }

    fn skip(&mut self, prompt: usize) -> Result<()> {
        while self.next.0 == prompt {
            self.take()?;
        }
        Ok(())
    }
}

/// What messages call it.
fn place() -> &'static Path {
    Path::new("standard input")
}
