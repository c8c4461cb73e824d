//! Attention that was captured elsewhere: its manifest, its tensors, and where they come from.

mod folder;
mod manifest;
mod measure;
mod stream;
mod tensor_header;
mod tensors;
mod writer;

pub use folder::CaptureFolder;
pub use manifest::{CaptureManifest, CapturedData, CapturedModel, CapturedPrompt, LayerFacts};
pub use stream::CaptureStream;
pub use tensors::CapturedLayers;
pub use writer::{CaptureProbe, CaptureWriter};
