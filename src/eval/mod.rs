//! Evaluation: what a cut cache costs and what it saves.

pub mod speed;
