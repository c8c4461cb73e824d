//! Models: where they come from, how they are read, and a decoder whose attention can be observed.

pub mod gguf;
