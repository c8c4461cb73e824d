//! Prompts: readers for the field's formats, templates, and a generator of prompts of our own.
//!
//! This module knows text only. Where a size in tokens matters, the caller passes a function that
//! counts them.

mod built_in;
pub mod cut;
mod dice;
mod kind;
mod marked;
pub mod needle;
mod protocol;
mod python_list;
mod read;
mod record;
mod rendered;
mod scale;
mod template;
mod text;
pub mod wikimqa_style;

pub use built_in::{BUILT_IN, BuiltIn, DEFAULT};
pub use kind::Kind;
pub use protocol::Protocol;
pub use read::{Dataset, read_jsonl, read_parquet, write_jsonl};
pub use record::Record;
pub use rendered::Rendered;
pub use template::Template;
