//! Reading a prompt again behind its full cache, for scorers that watch it.

use std::time::Instant;

use super::asked::Asked;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::cache::KvCache;
use crate::model::chat::Message;
use crate::model::decoder::PREFILL_RUN;
use crate::select::{ReplayNeeds, ReplayProbe};

/// What asks for a prompt's first part, or its only one.
const FIRST: &str = "\n\nRepeat the previous context exactly.";
/// What asks for a later part, whose beginning follows.
const LATER: &str = "\n\nRepeat the part of the previous context exactly, starting with";
/// Tokens of the part before that a later part is asked for with.
const BEGINNING: usize = 8;
/// What stands for a context while a chat template is taken apart, and where it ends.
const CONTEXT: &str = "dummy context";
const END: &str = "\n#############";

/// The tokens around what is read again.
struct Around {
    /// First tokens of the prompt that are the template's, and not read again.
    prefix: usize,
    first: Vec<u32>,
    later: Vec<u32>,
    /// From the request to the answer.
    suffix: Vec<u32>,
}

impl Around {
    /// Those of a prompt: with the chat template where the prompt begins as the template does.
    fn of(model: &Model, ids: &[u32]) -> Result<Self> {
        let encode = |text: &str| model.tokenizer.encode(text);
        let mut around = Self {
            prefix: 0,
            first: encode(FIRST)?,
            later: encode(LATER)?,
            suffix: encode("\n")?,
        };
        if let Some(chat) = &model.chat {
            let message = Message::new("user", format!("{CONTEXT}{END}"));
            let text = chat.render(&[message], true)?;
            if let Some((before, after)) = text.split_once(END) {
                let before = before.strip_suffix(CONTEXT).unwrap_or(before);
                let prefix = model.tokenizer.encode_with_bos(before)?;
                if ids.starts_with(&prefix) {
                    around.prefix = prefix.len();
                    around.suffix = encode(after)?;
                }
            }
        }
        Ok(around)
    }
}

/// Reads a prompt again for one scorer, and takes the passes back.
///
/// Errors: those of the decoder and of the scorer; [`Error::Unsupported`] anywhere but on the CPU; [`Error::Invalid`] for a cache
/// that cannot be rewound, and for a prompt that is all template.
pub(super) fn read_again(
    model: &Model,
    ids: &[u32],
    cache: &mut KvCache,
    asked: &mut Asked<'_>,
    needs: ReplayNeeds,
    window: usize,
) -> Result<()> {
    let decoder = &model.decoder;
    if !decoder.device().is_cpu() {
        return Err(Error::Unsupported {
            what: "reading a prompt again for its scores on",
            found: format!("{:?}", decoder.device().location()),
            supported: "--device cpu, or another scorer".into(),
        });
    }
    let clock = Instant::now();
    let around = Around::of(model, ids)?;
    let mut probe = ReplayProbe::new(ids.len(), needs);
    let chunks = needs.chunks(around.prefix, ids.len());
    if chunks.is_empty() {
        let bound = "a prompt that is more than its chat template is needed to be read again";
        return Err(Error::invalid("prompt length in tokens", ids.len(), bound));
    }
    for (place, chunk) in chunks.iter().enumerate() {
        let request = match place.checked_sub(1) {
            None => around.first.clone(),
            Some(before) => {
                let before = &ids[chunks[before].clone()];
                let beginning = &before[before.len().saturating_sub(BEGINNING)..];
                [&around.later, beginning].concat()
            }
        };
        let again = [&request, &around.suffix, &ids[chunk.clone()]].concat();
        let needed = ids.len() + again.len();
        let context = decoder.config().context_of(needed);
        if needed > context {
            let bound = format!(
                "the context is {context}: read less of it at a time, as kvzip(chunk={}), or shorten the prompt",
                context.saturating_sub(needed - chunk.len()).max(1)
            );
            let what = "tokens of a prompt and of its repetition";
            return Err(Error::invalid(what, needed, bound));
        }
        probe.begin(chunk.clone());
        decoder.prefill(&again, cache, PREFILL_RUN, &mut probe)?;
        cache.rewind(ids.len())?;
    }
    asked.scores = probe.score(asked.scorer, window)?;
    asked.seconds = clock.elapsed().as_secs_f64();
    Ok(())
}
