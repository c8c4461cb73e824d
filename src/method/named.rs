//! Methods that have names of their own, with their papers.

/// A method that has a name of its own.
pub struct NamedMethod {
    /// Name on the command line and in tables.
    pub name: &'static str,
    /// Its axes spelled out; empty for the full cache.
    pub spelled: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Source, with section or equation; "house definition" where there is none.
    pub paper: &'static str,
    /// What it does otherwise than the source, in a line; "as published" where nothing.
    pub differs: &'static str,
}

/// Methods with names; every other combination is spelled `STRATEGY+SCORER+SPLIT+RESIDENCY+cache(TYPE)`.
pub const METHODS: &[NamedMethod] = &[
    NamedMethod {
        name: "full",
        spelled: "",
        about: "the full cache",
        paper: "house definition",
        differs: "nothing was published to differ from",
    },
    NamedMethod {
        name: "snapkv",
        spelled: "uniform+snapkv",
        about: "SnapKV: the same budget for every layer",
        paper: "arXiv:2404.14469 (SnapKV), section 4",
        differs: "scores are reduced over the group and sinks always stay; max pooling by default, as its code has it",
    },
    NamedMethod {
        name: "ada-kv",
        spelled: "uniform+snapkv+pooled",
        about: "Ada-KV: heads compete for their layer's budget",
        paper: "arXiv:2407.11550 (Ada-KV), algorithm 1",
        differs: "the total is exact",
    },
    NamedMethod {
        name: "pyramid",
        spelled: "pyramid+snapkv",
        about: "PyramidKV: less with depth",
        paper: "arXiv:2406.02069 (PyramidKV)",
        differs: "the total is exact, and no budget becomes another method",
    },
    NamedMethod {
        name: "proportional",
        spelled: "proportional+snapkv",
        about: "the layer's share of LMBA",
        paper: "arXiv:2412.09036 (ZigZagKV), the rule before its lower bound",
        differs: "a layer that would fall below sinks and window gets those",
    },
    NamedMethod {
        name: "zigzag",
        spelled: "zigzag+snapkv",
        about: "ZigZagKV: a lower bound and the layer's share of LMBA",
        paper: "arXiv:2412.09036 (ZigZagKV), Eq. 4-6",
        differs: "the lower bound is not published: a fifth of the budget, but more than sinks and window",
    },
    NamedMethod {
        name: "zigzag-lmbo",
        spelled: "zigzag-lmbo+snapkv",
        about: "ZigZagKV's rule on LMBO",
        paper: "arXiv:2412.09036 (ZigZagKV), Eq. 4-6",
        differs: "shares come from the output, not from attention",
    },
    NamedMethod {
        name: "mass-optimal",
        spelled: "mass-optimal+snapkv",
        about: "the most attention mass in all",
        paper: "house definition",
        differs: "nothing was published to differ from",
    },
    NamedMethod {
        name: "output-optimal",
        spelled: "output-optimal+snapkv",
        about: "the least change of the layers' outputs",
        paper: "house definition",
        differs: "nothing was published to differ from",
    },
    NamedMethod {
        name: "dynamickv",
        spelled: "dynamickv+snapkv",
        about: "DynamicKV: the layer's share of the best tokens of all layers",
        paper: "arXiv:2412.14838 (DynamicKV), section 3",
        differs: "settled once, after the last layer; window and pooling are those of the run",
    },
    NamedMethod {
        name: "streaming",
        spelled: "uniform+streaming",
        about: "StreamingLLM: sinks and the latest tokens",
        paper: "arXiv:2309.17453 (StreamingLLM), section 3.2",
        differs: "once, on the prompt; positions stay those of the text",
    },
    NamedMethod {
        name: "h2o",
        spelled: "uniform+h2o",
        about: "H2O on the prompt: attention from all rows",
        paper: "arXiv:2306.14048 (H2O), section 4",
        differs: "once, on the prompt; with +evict-h2o while decoding too",
    },
    NamedMethod {
        name: "tova",
        spelled: "uniform+tova",
        about: "TOVA on the prompt: attention of the last row",
        paper: "arXiv:2401.06104 (TOVA), section 3",
        differs: "once, on the prompt; with +evict-tova while decoding too",
    },
    NamedMethod {
        name: "knorm",
        spelled: "uniform+knorm",
        about: "keys of small norm",
        paper: "arXiv:2406.11430 (L2 norm), section 3",
        differs: "in every layer, where the paper skips the first two",
    },
    NamedMethod {
        name: "random",
        spelled: "uniform+random",
        about: "random tokens",
        paper: "house definition",
        differs: "nothing was published to differ from",
    },
    NamedMethod {
        name: "oracle",
        spelled: "uniform+oracle",
        about: "attention really received from the full cache's continuation",
        paper: "house definition",
        differs: "an upper bound that no deployable method has",
    },
    NamedMethod {
        name: "leankv",
        spelled: "full+leankv",
        about: "LeanKV: tokens in 8 and 4 bits, in 4 and 2, or gone; thresholds scaled to the budget's bytes",
        paper: "arXiv:2412.03131 (LeanKV), continued as DiffKV",
        differs: "scores are means over all rows of the prompt; thresholds are scaled to the budget unless fixed",
    },
    NamedMethod {
        name: "clusterkv",
        spelled: "full+clusterkv",
        about: "ClusterKV: all stays, and every step recalls clusters of keys up to the budget",
        paper: "arXiv:2412.03213 (ClusterKV), section 3",
        differs: "by the mean query of the group, not per query head; of the last cluster the earliest tokens are taken",
    },
];
