//! What the cut left stays, and all that is generated with it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FirstCache, ResidencyRule};
use crate::budget::{CacheBudget, Floor};
use crate::error::Result;
use crate::model::residency::{Residency, Unchanging};
use crate::registry::{Entry, described, parse};

/// Nothing leaves while decoding: a full cache, or one that was cut once.
///
/// Paper: none: house definition. Differs: as published in all methods that cut a prompt once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "keep",
    paper: "house definition",
    about: "nothing leaves while decoding: a full cache, or one that was cut once",
    differs: "as published where a prompt is cut once",
    build: |p| Ok(Box::new(parse::<Keep>(p)?)),
};

impl ResidencyRule for Keep {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        true
    }

    fn check(&self, _: usize, _: &Floor, _: Option<CacheBudget>) -> Result<()> {
        Ok(())
    }

    fn start(&self, _: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        Ok(Box::new(Unchanging))
    }
}
