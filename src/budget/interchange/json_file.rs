//! JSON files of other tools.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::budget::json_problem::json_problem;
use crate::error::{Error, Result};

/// Reads JSON; `otherwise` says what a file is that cannot be read so, as "is no JSON list".
///
/// Errors: [`Error::Io`]; [`Error::Format`] with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path, otherwise: &str) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let text = String::from_utf8_lossy(&bytes);
        let problem = format!("{otherwise}: {}", json_problem(&text, &e));
        Error::format_at(path, e.line(), problem)
    })
}
