//! Const tables of named, parameterised implementations of one trait.
//!
//! A new implementation is one file with its `ENTRY` and one line in its table.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One line of a registry.
pub struct Entry<T: ?Sized + 'static> {
    /// kebab-case name used on the command line and in files.
    pub name: &'static str,
    /// Source, with section or equation; "house definition" where there is none.
    pub paper: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it does otherwise than the source, in a line; "as published" where nothing.
    pub differs: &'static str,
    /// Builds the value from JSON parameters; `{}` gives the defaults. See [`parse`].
    pub build: fn(Value) -> serde_json::Result<Box<T>>,
}

/// The entry called `name`.
///
/// Errors: [`Error::UnknownName`], listing the names there are.
pub fn find<'a, T: ?Sized>(
    kind: &'static str,
    table: &'a [Entry<T>],
    name: &str,
) -> Result<&'a Entry<T>> {
    let found = table.iter().find(|entry| entry.name == name);
    found.ok_or_else(|| Error::unknown(kind, name, table.iter().map(|entry| entry.name)))
}

/// Builds the entry called `name` from JSON parameters; `null` stands for none.
///
/// Errors: [`Error::UnknownName`]; [`Error::Invalid`] for parameters that are no JSON object, of which
/// one is unknown, or one has a value that cannot be.
pub fn build<T: ?Sized>(
    kind: &'static str,
    table: &[Entry<T>],
    name: &str,
    parameters: Value,
) -> Result<Box<T>> {
    let entry = find(kind, table, name)?;
    let what = || format!("parameters of {kind} '{name}'");
    let parameters = match parameters {
        Value::Null => Value::Object(Map::new()),
        Value::Object(fields) => Value::Object(fields),
        // serde would read a list as the fields in order, which nobody means.
        other => {
            let bound = "a JSON object is expected, such as {} for the defaults";
            return Err(Error::invalid(what(), other, bound));
        }
    };
    let given = parameters.to_string();
    (entry.build)(parameters)
        .map_err(|problem| Error::invalid(what(), given, format!("{problem}; {{}} is the default")))
}

/// A word as JSON, or as text where it is none: how parameters are typed on a command line.
pub fn typed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads parameters into a struct; used by the entries' build functions.
///
/// Errors: serde's, which names the field and those that exist.
pub fn parse<P: DeserializeOwned>(parameters: Value) -> serde_json::Result<P> {
    serde_json::from_value(parameters)
}

/// The parameters of a built value in full, defaults included, as a file keeps them.
pub fn described<P: Serialize>(parameters: &P) -> Value {
    serde_json::to_value(parameters).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    trait Shape {
        fn sides(&self) -> u32;
    }

    #[derive(Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Polygon {
        sides: u32,
    }

    impl Default for Polygon {
        fn default() -> Self {
            Self { sides: 3 }
        }
    }

    impl Shape for Polygon {
        fn sides(&self) -> u32 {
            self.sides
        }
    }

    const SHAPES: &[Entry<dyn Shape>] = &[Entry {
        name: "polygon",
        paper: "house definition",
        about: "a plane figure",
        differs: "as published",
        build: |p| Ok(Box::new(parse::<Polygon>(p)?)),
    }];

    fn built(name: &str, parameters: Value) -> Result<u32> {
        build("shape", SHAPES, name, parameters).map(|shape| shape.sides())
    }

    #[test]
    fn parameters_are_defaults_unless_given() {
        assert_eq!(built("polygon", Value::Null).unwrap(), 3);
        assert_eq!(built("polygon", json!({})).unwrap(), 3);
        assert_eq!(built("polygon", json!({"sides": 5})).unwrap(), 5);
        assert_eq!(described(&Polygon::default()), json!({"sides": 3}));
    }

    #[test]
    fn what_cannot_be_built_says_why_and_what_could() {
        let refused = |name, parameters| built(name, parameters).unwrap_err().to_string();
        assert_eq!(
            refused("circle", json!({})),
            "unknown shape 'circle'; known: polygon"
        );
        let unknown = refused("polygon", json!({"corners": 4}));
        assert!(
            unknown.contains("corners") && unknown.contains("`sides`"),
            "{unknown}"
        );
        assert!(refused("polygon", json!({"sides": -1})).contains("-1"));
        assert!(refused("polygon", json!([5])).contains("JSON object"));
    }
}
