//! Reading fields of a JSON file that a model comes with, with errors that name file and field.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No model's configuration is larger.
const MOST_BYTES: u64 = 64 << 20;

/// The fields of one object in a JSON file.
#[derive(Clone, Debug)]
pub(crate) struct JsonFields {
    path: PathBuf,
    /// Where the object lies in the file, ending in a dot, or nothing.
    place: String,
    fields: Map<String, Value>,
}

impl JsonFields {
    /// Reads a file that holds one object.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for what is no JSON object, or too large to be one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let mut text = Vec::new();
        file.take(MOST_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|e| Error::io("read", path, e))?;
        if text.len() as u64 > MOST_BYTES {
            let problem = format!(
                "is larger than {} MB, which no configuration is",
                MOST_BYTES >> 20
            );
            return Err(Error::format(path, problem));
        }
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::format_at(path, e.line(), format!("is not valid JSON: {e}")))?;
        match value {
            Value::Object(fields) => Ok(Self {
                path: path.to_owned(),
                place: String::new(),
                fields,
            }),
            _ => Err(Error::format(path, "is not a JSON object")),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there and is not null.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// Whether a field is there, be it null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// The names of all fields.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    fn wrong(&self, key: &str, value: &Value, kind: &str) -> Error {
        let place = &self.place;
        let mut shown: String = value.to_string().chars().take(60).collect();
        if shown.len() < value.to_string().len() {
            shown.push_str("...");
        }
        Error::format(
            &self.path,
            format!("has the field {place}{key} = {shown}, expected {kind}"),
        )
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(key, value, kind)),
            },
        }
    }

    /// A count, if it is there.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok())
        })
    }

    /// A number, if it is there.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A truth value, if it is there.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text, if it is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// Numbers, if they are there.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |v| {
            v.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    /// Token ids, one or a list of them; none where the field is absent.
    pub(crate) fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let ids = self.typed(key, "a token id or a list of them", |v| {
            let list = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
            let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
            list.iter().map(id).collect()
        });
        Ok(ids?.unwrap_or_default())
    }

    /// Texts, if they are there.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.typed(key, "a list of texts", |v| {
            v.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// An object within, if it is there.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>> {
        self.typed(key, "an object", |v| {
            Some(Self {
                path: self.path.clone(),
                place: format!("{}{key}.", self.place),
                fields: v.as_object()?.clone(),
            })
        })
    }

    /// What must be there.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            let place = &self.place;
            Error::format(&self.path, format!("lacks the field {place}{key}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<JsonFields> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        JsonFields::read(&path)
    }

    #[test]
    fn fields_have_their_types_and_errors_their_places() {
        let all =
            fields(r#"{"n": 3, "x": 1e-6, "z": null, "o": {"t": ["a"], "n": -1}, "e": [2, 3]}"#)
                .unwrap();
        assert_eq!(all.size("n").unwrap(), Some(3));
        assert_eq!(all.number("x").unwrap(), Some(1e-6));
        assert_eq!(all.size("z").unwrap(), None);
        assert!(all.has("z") && !all.has("y"));
        assert_eq!(all.ids("n").unwrap(), [3]);
        assert_eq!(all.ids("e").unwrap(), [2, 3]);
        assert!(all.ids("y").unwrap().is_empty());
        assert!(all.ids("x").is_err() && all.ids("o").is_err());
        let inner = all.object("o").unwrap().unwrap();
        assert_eq!(inner.texts("t").unwrap().unwrap(), ["a"]);
        let error = inner.size("n").unwrap_err().to_string();
        assert!(
            error.contains("o.n = -1, expected a whole number"),
            "{error}"
        );
        let error = inner.required::<()>("m", None).unwrap_err().to_string();
        assert!(error.contains("lacks the field o.m"), "{error}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[1]", "{", "{\"a\": 1"] {
            assert!(fields(text).is_err(), "{text}");
        }
    }
}
