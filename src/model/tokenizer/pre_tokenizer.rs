//! How a byte-level vocabulary splits text into words before merging: one row per rule.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

/// A rule and the names by which `tokenizer.ggml.pre` calls it.
pub(super) struct PreTokenizer {
    names: &'static str,
    /// Applied one after another; matches and what lies between them become words.
    splits: &'static [&'static str],
    /// A word that is a token stays whole, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether these models start with a beginning-of-text id unless the metadata says otherwise.
    pub(super) adds_bos: bool,
}

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Letters of scripts with upper and lower case, as DeepSeek's first tokenizer lists them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}",
    r"\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}",
    r"\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}",
    r"\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}",
    r"\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}",
    r"\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}",
    r"\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}",
    r"\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}",
    r"\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}",
    r"\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}",
    r"\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    r"]+",
);
const DEEPSEEK_3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// The name that stands for an absent `tokenizer.ggml.pre`.
const DEFAULT: &str = "default";

/// What rules are unless they say otherwise.
const PLAIN: PreTokenizer = PreTokenizer {
    names: "",
    splits: &[],
    whole_words: false,
    adds_bos: false,
};

/// Every rule that is known.
///
/// Where llama.cpp spells a rule differently because of its regex engine, the pattern here is that of the
/// model's own `tokenizer.json`.
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: DEFAULT,
        splits: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            GPT_2,
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum",
        splits: &[GPT_2],
        ..PLAIN
    },
    PreTokenizer {
        names: "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        splits: &[r"\p{N}", GPT_2],
        ..PLAIN
    },
    PreTokenizer {
        names: "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        splits: &[LLAMA_3],
        whole_words: true,
        adds_bos: true,
    },
    PreTokenizer {
        names: "smaug-bpe dbrx chatglm-bpe",
        splits: &[LLAMA_3],
        ..PLAIN
    },
    PreTokenizer {
        names: "glm4 glm5",
        splits: &[LLAMA_3],
        whole_words: true,
        ..PLAIN
    },
    PreTokenizer {
        names: "qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez kormo solar-open grok-2",
        splits: &[QWEN_2],
        ..PLAIN
    },
    PreTokenizer {
        names: "qwen35",
        splits: &[QWEN_3_5],
        ..PLAIN
    },
    PreTokenizer {
        names: "tekken",
        splits: &[TEKKEN],
        whole_words: true,
        adds_bos: true,
    },
    PreTokenizer {
        names: "gpt-4o llama4 kanana2 minimax-m2",
        splits: &[GPT_4O],
        ..PLAIN
    },
    PreTokenizer {
        names: "deepseek-llm",
        splits: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+",
            r"\p{N}+",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: "deepseek-coder",
        splits: &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+",
            r"\p{N}",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: "deepseek-v3 hunyuan-dense joyai-llm",
        splits: &[
            r"\p{N}{1,3}",
            r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
            DEEPSEEK_3,
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: "falcon",
        splits: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, r"[0-9][0-9][0-9]"],
        ..PLAIN
    },
];

/// The rule that a GGUF file names.
///
/// Errors: [`Error::UnknownName`] with the names in the table; a guess would give plausible wrong ids.
pub(super) fn of_gguf(gguf: &Gguf) -> Result<&'static PreTokenizer> {
    const KEY: &str = "tokenizer.ggml.pre";
    let name = match (gguf.value(KEY), gguf.text_opt(KEY)) {
        (None, _) => DEFAULT,
        (Some(_), Some(name)) => name,
        (Some(other), None) => {
            return Err(gguf.wrong(format!("{KEY} is {other:?}, not a string")));
        }
    };
    let names = |rule: &'static PreTokenizer| rule.names.split(' ');
    let mut rules = PRE_TOKENIZERS.iter();
    let found = rules.find(|&rule| names(rule).any(|known| known == name));
    found.ok_or_else(|| {
        let known = PRE_TOKENIZERS.iter().flat_map(names);
        Error::unknown("pre-tokenizer", name, known)
    })
}

impl PreTokenizer {
    /// The rule as the `tokenizers` crate runs it.
    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, tokenizers::Error> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in self.splits {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
        }
        // Only the spelling of bytes is left to it; its own split rule and prefix space are off.
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps).into())
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let rule = PRE_TOKENIZERS
            .iter()
            .find(|rule| rule.names.split(' ').any(|known| known == name))
            .unwrap();
        let mut string = PreTokenizedString::from(text);
        rule.build().unwrap().pre_tokenize(&mut string).unwrap();
        let splits = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits
            .into_iter()
            .map(|(word, _, _)| word.replace('Ġ', " "))
            .collect()
    }

    #[test]
    fn every_rule_compiles_and_every_name_occurs_once() {
        let mut names = std::collections::HashSet::new();
        for rule in PRE_TOKENIZERS {
            rule.build().unwrap();
            assert!(rule.names.split(' ').all(|name| names.insert(name)));
        }
    }

    #[test]
    fn rules_differ_where_they_should() {
        let text = "In 1984, it's a_b";
        assert_eq!(
            words("smollm", text),
            [
                "In", " ", "1", "9", "8", "4", ",", " it", "'s", " a", "_", "b"
            ]
        );
        assert_eq!(
            words("gpt-2", text),
            ["In", " 1984", ",", " it", "'s", " a", "_", "b"]
        );
        assert_eq!(
            words("llama-bpe", text),
            ["In", " ", "198", "4", ",", " it", "'s", " a", "_b"]
        );
        assert_eq!(
            words("qwen2", text),
            ["In", " ", "1", "9", "8", "4", ",", " it", "'s", " a", "_b"]
        );
        assert_eq!(
            words("default", text),
            ["In", " ", "198", "4", ",", " it", "'", "s", " a", "_", "b"]
        );
        assert_eq!(words("tekken", "camelCase"), ["camel", "Case"]);
        assert_eq!(words("gpt-4o", "DON'T 1234"), ["DON'T", " ", "123", "4"]);
    }
}
