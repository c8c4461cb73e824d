//! `KEY=VALUE` arguments as the JSON object that registries read.

use anyhow::Context;
use kvprof::registry;
use serde_json::{Map, Value};

/// All pairs as one object; `flag` is what the user typed before each.
pub fn object(flag: &str, pairs: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut fields = Map::new();
    for pair in pairs {
        let (key, text) = pair
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .with_context(|| format!("{flag} {pair} is no KEY=VALUE"))?;
        anyhow::ensure!(
            fields
                .insert(key.to_owned(), registry::typed(text))
                .is_none(),
            "{flag} {key} is given twice"
        );
    }
    Ok(fields)
}
