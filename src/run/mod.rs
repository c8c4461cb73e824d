//! A run on disk: what it is called, the record that it keeps of itself, and the folder that it fills part by part.
//!
//! [`RunRecord`] is the content of `meta.json`: what made the run, which model, which data, and the [`RunSettings`] of its
//! kind. [`RunFolder`] holds its tables, and is what an interrupted run is continued from.

mod folder;
mod kind;
mod record;
mod writer_lock;

pub use folder::{RunFolder, made_by, read_tables};
pub use kind::{RunKind, RunSettings};
pub use record::{DataRecord, Made, ModelRecord, RunRecord};
