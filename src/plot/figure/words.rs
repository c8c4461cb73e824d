//! Words that a figure finds room for: the longest wording that fits, cut in its middle if none does.

use super::text::{fitted, printable, width};

/// One thing to say, in one or several wordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// From the longest to the shortest.
    wordings: Vec<String>,
    /// What follows them and is never cut.
    after: String,
    /// What tells them from others that look alike once cut; "" where nothing does.
    number: String,
}

impl<S: AsRef<str>> From<S> for Words {
    fn from(text: S) -> Self {
        Self::of([text])
    }
}

impl Words {
    /// The first of `wordings` that there will be room for, or the last, cut.
    pub fn of<S: AsRef<str>>(wordings: impl IntoIterator<Item = S>) -> Self {
        let wordings = wordings.into_iter();
        Self {
            wordings: wordings.map(|text| printable(text.as_ref())).collect(),
            ..Self::default()
        }
    }

    /// The same words before `after`, which is never cut.
    pub fn before(self, after: String) -> Self {
        Self { after, ..self }
    }

    /// The same words, with `number` after them where others look alike.
    pub fn or_number(self, number: String) -> Self {
        Self { number, ..self }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        let mut all = self.wordings.iter().chain([&self.after, &self.number]);
        all.all(String::is_empty)
    }

    /// The words that `room` units hold.
    pub fn within(&self, room: i32) -> String {
        let left = room - width(&self.after);
        let fits = self.wordings.iter().find(|text| width(text) <= left);
        let words = fits.cloned().unwrap_or_else(|| {
            let last = self.wordings.last();
            last.map_or(String::new(), |text| fitted(text, left))
        });
        words + &self.after
    }

    /// All of `those` within `room` units, numbered where they would look alike.
    pub fn told_apart(those: &[Self], room: i32) -> Vec<String> {
        let short: Vec<String> = those.iter().map(|words| words.within(room)).collect();
        let alike = |own: &String| short.iter().filter(|other| *other == own).count() > 1;
        let told = |(words, own): (&Self, &String)| {
            if words.number.is_empty() || !alike(own) {
                return own.clone();
            }
            let numbered = words.clone().before(format!(", {}", words.number));
            match numbered.within(room).strip_suffix(&numbered.after) {
                Some("" | "…") | None => words.number.clone(),
                Some(name) => format!("{name}{}", numbered.after),
            }
        };
        those.iter().zip(&short).map(told).collect()
    }
}
