//! kvprof measures how much KV cache each layer and head of a language model needs.
//!
//! # Symbols
//!
//! | symbol | meaning |
//! |---|---|
//! | L | layers |
//! | H_q, H_kv, G | query heads, KV heads, H_q / H_kv |
//! | D | head dimension |
//! | T | tokens of a prompt |
//! | S | tokens held in the cache of one KV head |
//! | w | observation window: the last w rows of a prompt |
//! | a | an attention vector over keys |
//! | b | a budget, in keys per head |
//! | τ | share of the attention mass, or cosine, that a budget must keep |
//!
//! # From the paper to the code
//!
//! | ZigZagKV, arXiv 2412.09036 | here |
//! |---|---|
//! | attention of a head | [`model::attention::AttentionView::probabilities`] |
//! | MBA, minimum budget for the attention | [`profile::Ranked::minimum_budget`] |
//! | LMBA, its mean over a layer's heads | `lmba_*` of [`profile::prompt_tables`] |
//! | LMBO, minimum budget for the output | [`profile::output_curves`], [`profile::OutputCurve::first`] |
//! | first and second figure | charts `lmba` and `lmbo` of [`plot::CHARTS`] |
//!
//! # The way of a prompt
//!
//! [`dataset::Dataset::open`] reads records, [`dataset::Template`] turns one into a message,
//! [`model::Model::message_ids`] into token ids. [`model::decoder::Decoder::prefill`] runs them and
//! shows every layer to a [`profile::Profiler`]; [`profile::ProfileRun`] writes what it measured, and
//! [`profile::Profile::load`] reads it back for [`plot::draw`].
//! [`method::observe`] prefills a prompt once for many methods; [`generate::Generator`] cuts and decodes for one,
//! [`eval::Sweep`] for all.

// The made-up evaluation under tests/ names the library as integration tests do.
#[cfg(test)]
extern crate self as kvprof;

pub mod bench;
pub mod budget;
pub mod compute;
pub mod dataset;
pub mod error;
pub mod eval;
pub mod files;
pub mod generate;
pub mod method;
pub mod model;
pub mod plot;
pub mod profile;
pub mod registry;
pub mod report;
pub mod run;
pub mod select;
pub mod table;

#[cfg(test)]
#[path = "../tests/sample_results/mod.rs"]
mod sample_results;
