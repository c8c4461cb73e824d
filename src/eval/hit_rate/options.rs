//! How many windows vote, for how many keys, and what counts as important.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a measurement of hit rates looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitRateOptions {
    /// Windows at the end of the prompt that vote.
    pub windows: usize,
    /// Rows of every window, of the prompt and of the generated text alike.
    pub window: usize,
    /// Windows of generated text; as many tokens are generated as they hold.
    pub generated_windows: usize,
    /// Share p of the prefix that a window names.
    pub top: f64,
    /// Attention θ above which a key is important to a step.
    pub theta: f64,
}

impl Default for HitRateOptions {
    /// Those of SnapKV's figures.
    fn default() -> Self {
        Self {
            windows: 20,
            window: 128,
            generated_windows: 4,
            top: 0.05,
            theta: 0.05,
        }
    }
}

impl HitRateOptions {
    /// Refuses what cannot be measured.
    ///
    /// Errors: [`Error::Invalid`] for no window, an empty one, a share outside (0, 1) or a θ outside [0, 1).
    pub fn check(&self) -> Result<()> {
        for (what, count) in [
            ("--windows", self.windows),
            ("--window", self.window),
            ("--generated-windows", self.generated_windows),
        ] {
            if count == 0 {
                return Err(Error::invalid(what, 0, "at least 1 is needed"));
            }
            if count > 1 << 20 {
                let bound = "no model's context is that long; at most 1048576 are taken";
                return Err(Error::invalid(what, count, bound));
            }
        }
        if !(self.top > 0.0 && self.top < 1.0) {
            let bound = "the share of the prefix that votes name lies above 0 and below 1";
            return Err(Error::invalid("--top", self.top, bound));
        }
        if !(0.0..1.0).contains(&self.theta) {
            let bound = "an attention threshold lies at 0 or above, and below 1";
            return Err(Error::invalid("--theta", self.theta, bound));
        }
        Ok(())
    }

    /// Rows of all windows of the prompt.
    pub fn window_rows(&self) -> usize {
        self.windows * self.window
    }

    /// Tokens that are generated.
    pub fn generated_tokens(&self) -> usize {
        self.generated_windows * self.window
    }

    /// Keys before the windows, in a prompt of `tokens`.
    pub fn prefix(&self, tokens: usize) -> usize {
        tokens.saturating_sub(self.window_rows())
    }

    /// K, the keys that a window names of a prefix: ⌊p·L_prefix⌋.
    pub fn named_keys(&self, prefix: usize) -> usize {
        // 0.29 · 100 is 28.999999999999996: what was meant as a whole number is one.
        (self.top * prefix as f64 * (1.0 + 1e-12)).floor() as usize
    }

    /// The shortest prompt whose prefix has a key to name.
    pub fn least_tokens(&self) -> usize {
        let mut prefix = ((1.0 / self.top).floor() as usize).max(1);
        while self.named_keys(prefix) == 0 {
            prefix += 1;
        }
        self.window_rows() + prefix
    }

    /// Refuses a prompt without a prefix to vote on, or without room for what is generated.
    ///
    /// Errors: [`Error::Invalid`] with the length needed; [`Error::PromptTooLong`].
    pub fn check_prompt(&self, id: &str, tokens: usize, context: usize) -> Result<()> {
        let (least, generated) = (self.least_tokens(), self.generated_tokens());
        let room = context.saturating_sub(generated);
        let bound = if tokens < least {
            format!(
                "at least {least} are needed: {} windows of {} and a prefix of {} before them; take longer \
                 prompts, or lower --windows or --window",
                self.windows,
                self.window,
                least - self.window_rows()
            )
        } else if tokens > room {
            format!(
                "with {generated} tokens to generate the model's context of {context} leaves room for {room}; \
                 cut long prompts in the middle with --max-prompt-tokens {room}"
            )
        } else {
            return Ok(());
        };
        let what = format!("length of prompt {id}");
        Err(Error::invalid(what, format!("{tokens} tokens"), bound))
    }

    /// Refuses what no prompt can satisfy in a model's context, or under a limit of prompt lengths.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check_context(&self, context: usize, limit: Option<usize>) -> Result<()> {
        let least = self.least_tokens();
        if let Some(limit) = limit.filter(|l| *l < least) {
            let bound = format!(
                "{} windows of {} need prompts of at least {least} tokens; allow more, or lower \
                 --windows or --window",
                self.windows, self.window
            );
            return Err(Error::invalid("--max-prompt-tokens", limit, bound));
        }
        let all = least + self.generated_tokens();
        if all > context {
            let bound = format!(
                "the model's context ends at {context}; lower --windows, --window or \
                 --generated-windows"
            );
            return Err(Error::invalid("prompt and generated tokens", all, bound));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_by_hand() {
        let options = HitRateOptions::default();
        options.check().unwrap();
        assert_eq!(
            (options.window_rows(), options.generated_tokens()),
            (2560, 512)
        );
        assert_eq!(options.prefix(4081), 1521);
        assert_eq!(options.named_keys(1521), 76);
        assert_eq!(options.named_keys(19), 0);
        assert_eq!(options.least_tokens(), 2580);
        let third = HitRateOptions {
            top: 0.29,
            ..options.clone()
        };
        assert_eq!(third.named_keys(100), 29);
        assert_eq!(third.least_tokens(), 2564);
        let short = options.check_prompt("p", 2579, 8192).unwrap_err();
        assert!(short.to_string().contains("at least 2580"), "{short}");
        options.check_prompt("p", 2580, 8192).unwrap();
        options.check_prompt("p", 7680, 8192).unwrap();
        let long = options.check_prompt("p", 7681, 8192).unwrap_err();
        assert!(
            long.to_string().contains("--max-prompt-tokens 7680"),
            "{long}"
        );
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        let with = |change: fn(&mut HitRateOptions)| {
            let mut options = HitRateOptions::default();
            change(&mut options);
            options.check()
        };
        assert!(with(|o| o.windows = 0).is_err());
        assert!(with(|o| o.window = usize::MAX).is_err());
        assert!(with(|o| o.generated_windows = 0).is_err());
        for bad in [0.0, 1.0, -0.1, f64::NAN] {
            let options = HitRateOptions {
                top: bad,
                ..HitRateOptions::default()
            };
            assert!(options.check().is_err(), "{bad}");
        }
        assert!(with(|o| o.theta = 1.0).is_err());
        assert!(with(|o| o.theta = f64::NAN).is_err());
        assert!(with(|o| o.theta = 0.0).is_ok());
        let tight = HitRateOptions::default();
        assert!(tight.check_context(3092, None).is_ok());
        assert!(tight.check_context(3091, None).is_err());
        assert!(tight.check_context(8192, Some(2579)).is_err());
    }
}
