//! Invented names from syllables, none of which anybody can know.

use std::collections::HashSet;

use super::data::{Data, Sound};
use crate::dataset::dice::Dice;

/// Hands out names, each only once.
#[derive(Debug)]
pub(super) struct Names {
    real: &'static [&'static str],
    used: HashSet<String>,
}

impl Names {
    pub(super) fn new(data: &'static Data) -> Self {
        Self {
            real: &data.real_names,
            used: HashSet::new(),
        }
    }

    /// A new name of one `sound` with one of some `ends`.
    pub(super) fn fresh(
        &mut self,
        dice: &mut Dice,
        sound: &Sound,
        ends: &[&'static str],
    ) -> String {
        for attempt in 0.. {
            let mut name = dice.word(&sound.starts).to_owned();
            // After many hits on used names the namespace is getting full: lengthen the name.
            for _ in 0..=attempt / 20 {
                name += dice.word(&sound.vowels);
                name += dice.word(&sound.links);
            }
            name += dice.word(ends);
            if reads_well(&name) && self.take(&name) {
                return name;
            }
        }
        String::new()
    }

    /// Whether a name is neither used nor real.
    pub(super) fn is_free(&self, name: &str) -> bool {
        let lower = name.to_lowercase();
        !self.real.contains(&lower.as_str()) && !self.used.contains(&lower)
    }

    /// Marks `name` as used; false if it already was, or is real.
    pub(super) fn take(&mut self, name: &str) -> bool {
        self.is_free(name) && self.used.insert(name.to_lowercase())
    }
}
/// Whether a name has a plain length and no run of three equal letters or four consonants or vowels.
fn reads_well(name: &str) -> bool {
    let letters: Vec<char> = name.to_lowercase().chars().collect();
    let vowel = |c: &char| "aeiouy".contains(*c);
    let run = |length: usize, same: &dyn Fn(&[char]) -> bool| letters.windows(length).any(same);
    let consonants = |w: &[char]| !w.iter().any(vowel);
    letters.len() >= 5
        && !letters.iter().take(2).all(vowel)
        && !run(3, &|w| consonants(w) && (w[0] == w[1] || w[1] == w[2]))
        && !run(3, &|w| w.iter().all(|c| *c == w[0]))
        && !run(5, &consonants)
        && !run(3, &|w| w.iter().all(vowel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_names_without_a_real_or_a_second_one() {
        let data = Data::load().unwrap();
        let (mut names, mut dice) = (Names::new(data), Dice::new(3, 0));
        let mut seen = HashSet::new();
        for round in 0..4000 {
            let sound = &data.sounds[round % data.sounds.len()];
            for ends in sound.ends.values() {
                let name = names.fresh(&mut dice, sound, ends);
                assert!(name.len() >= 5 && name.is_ascii(), "{name}");
                assert!(
                    !data.real_names.contains(&name.to_lowercase().as_str()),
                    "{name}"
                );
                assert!(seen.insert(name.to_lowercase()), "{name}");
            }
        }
    }

    #[test]
    fn real_names_are_refused() {
        let mut names = Names::new(Data::load().unwrap());
        assert!(!names.take("Verona") && !names.take("MARINA"));
        assert!(names.take("Velkograd") && !names.take("velkograd"));
    }
}
