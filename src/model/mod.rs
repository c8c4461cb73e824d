//! Models: where they come from, how they are read, and a decoder whose attention can be observed.

mod alignment;
pub mod attention;
pub mod cache;
mod card;
pub mod chat;
pub mod config;
pub mod decoder;
mod decoder_layer;
mod embedding;
mod feed_forward;
pub mod footprint;
pub mod gguf;
mod gguf_walk;
mod header;
mod json_fields;
mod layer_run;
mod layer_stream;
mod loaded;
pub mod precision;
pub mod ragged_heads;
pub mod residency;
mod rotation;
pub mod source;
mod step_table;
pub mod tokenizer;
mod weights;

pub use card::ModelCard;
pub use embedding::Embedding;
pub use gguf::WeightMemory;
pub use header::{ModelHeader, config_of, text_side_of};
pub use layer_stream::{HiddenRows, LayerStream, StreamedLayer};
pub use loaded::{Model, message_ids};
pub use rotation::{TextRotation, turn_back};
pub use weights::{TensorGroup, TensorSource};
