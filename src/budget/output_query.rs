//! The queries that curves and outputs are measured for.

use crate::error::{Error, Result};
use crate::profile::{Query, Vector};

/// The query's vector, where curves and outputs are measured for it.
///
/// Errors: [`Error::Unsupported`] for `rows`.
pub(super) fn output_query(query: Query) -> Result<Vector> {
    match query {
        Query::Last => Ok(Vector::Last),
        Query::Pooled => Ok(Vector::Pooled),
        Query::Rows => Err(Error::Unsupported {
            what: "query",
            found: "rows".into(),
            supported: "last, pooled".into(),
        }),
    }
}
