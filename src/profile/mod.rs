//! Measuring how many cached tokens each head and layer needs, and the profile that holds the result.

mod store;

pub use store::{Meta, Profile, SCHEMA, TABLES, threshold_name};
