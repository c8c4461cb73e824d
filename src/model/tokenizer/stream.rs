//! Text of a generation while it is being generated.

use crate::error::Result;

use super::Tokenizer;

/// Turns ids into text as they arrive, holding back a character until its last byte is there.
///
/// Differs: from [`Tokenizer::decode`], a leading space is kept, since the text continues a prompt.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    shows_special: bool,
    /// The first bytes of a character that is not complete.
    pending: Vec<u8>,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, shows_special: bool) -> Self {
        Self {
            tokenizer,
            shows_special,
            pending: Vec::new(),
        }
    }

    /// Takes the next id and returns the text that is complete by now, often nothing.
    ///
    /// Bytes that can never become a character are written as U+FFFD.
    /// Errors: [`Error::Invalid`](crate::error::Error::Invalid) for an id outside the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.tokenizer
            .append(id, self.shows_special, &mut self.pending)?;
        let incomplete = incomplete_tail(&self.pending);
        let rest = self.pending.split_off(self.pending.len() - incomplete);
        let complete = std::mem::replace(&mut self.pending, rest);
        Ok(String::from_utf8_lossy(&complete).into_owned())
    }

    /// Ends the stream; a character that was never completed becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// How many bytes at the end are the beginning of a character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so an incomplete one begins in the last three.
    (1..=3.min(bytes.len()))
        .find(|&n| {
            let tail = &bytes[bytes.len() - n..];
            tail[0] >= 0xc0
                && std::str::from_utf8(tail)
                    .is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::incomplete_tail;

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        for (bytes, tail) in [
            (&b"abc"[..], 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            (b"\xf0\x9f\x98", 3),
            ("é".as_bytes(), 0),
            ("😀".as_bytes(), 0),
            (b"\x80\x80", 0),
            (b"\xff", 0),
            (b"\xc3\xc3", 1),
            // 0xed 0xa0 would begin a surrogate, which no character can.
            (b"\xed\xa0", 0),
            (b"", 0),
        ] {
            assert_eq!(incomplete_tail(bytes), tail, "{bytes:?}");
        }
    }
}
