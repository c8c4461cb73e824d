//! kvprof measures how much KV cache each layer and head of a language model needs.

pub mod budget;
pub mod dataset;
pub mod error;
pub mod files;
pub mod model;
pub mod plot;
pub mod profile;
pub mod registry;
pub mod table;
