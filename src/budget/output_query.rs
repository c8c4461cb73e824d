//! The queries that curves and outputs are measured for.

use crate::error::{Error, Result};
use crate::profile::Query;

/// The query's name, where curves and outputs are measured for it.
///
/// Errors: [`Error::Unsupported`] for `rows`.
pub(super) fn output_query(query: Query) -> Result<&'static str> {
    match query {
        Query::Last | Query::Pooled => Ok(query.name()),
        Query::Rows => Err(Error::Unsupported {
            what: "query",
            found: "rows".into(),
            supported: "last, pooled".into(),
        }),
    }
}
