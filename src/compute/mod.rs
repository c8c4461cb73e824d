//! Arithmetic, whatever the numbers mean: lanes, products, packed weights, and operations of devices.

pub mod cosine_clusters;
pub mod device;
pub mod exponentials;
pub(crate) mod finite;
pub(crate) mod head_rows;
pub(crate) mod lanes;
pub mod limits;
pub mod linear;
pub mod memory;
pub mod packed_rows;
pub mod product;
pub mod rounding;
