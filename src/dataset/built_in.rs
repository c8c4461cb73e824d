//! The data sets inside the program, so that a first run needs no file.

/// A data set compiled into the program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// What the command line calls it.
    pub name: &'static str,
    /// One line on what it holds.
    pub about: &'static str,
    /// The JSONL file's bytes.
    pub bytes: &'static [u8],
}

/// Name of the data set used when none is given.
pub const DEFAULT: &str = "wikimqa-style-2k";

/// Every data set compiled into the program.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: DEFAULT,
        about: "12 two-hop questions over an invented world, about 2,000 tokens each",
        bytes: include_bytes!("../../datasets/wikimqa-style-2k.jsonl"),
    },
    BuiltIn {
        name: "wikimqa-style-4k",
        about: "8 two-hop questions over an invented world, about 4,000 tokens each",
        bytes: include_bytes!("../../datasets/wikimqa-style-4k.jsonl"),
    },
];
