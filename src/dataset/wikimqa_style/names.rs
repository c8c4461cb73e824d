//! Invented names from syllables, none of which anybody can know.

use std::collections::HashSet;

use crate::dataset::dice::Dice;

/// The sound of one country's names.
struct Sound {
    starts: &'static [&'static str],
    vowels: &'static [&'static str],
    links: &'static [&'static str],
    men: &'static [&'static str],
    women: &'static [&'static str],
    families: &'static [&'static str],
    towns: &'static [&'static str],
    rivers: &'static [&'static str],
}

const SOUNDS: [Sound; 5] = [
    Sound {
        starts: &[
            "B", "D", "Fr", "G", "H", "K", "Kv", "M", "N", "Sk", "St", "Sv", "T", "Tr", "V",
        ],
        vowels: &["a", "e", "i", "o", "u", "y"],
        links: &[
            "ld", "lm", "nd", "ng", "rk", "rv", "sk", "st", "lv", "gn", "rd", "mb",
        ],
        men: &["ar", "en", "ik", "ulf", "or", "im"],
        women: &["a", "ine", "ild", "ey", "une"],
        families: &["sund", "gard", "vik", "holt", "ersk", "um", "mark"],
        towns: &["heim", "vik", "sund", "havn", "stad", "foss"],
        rivers: &["a", "elv", "en", "une"],
    },
    Sound {
        starts: &[
            "B", "C", "Ch", "D", "F", "L", "M", "P", "Qu", "R", "S", "T", "V", "Z",
        ],
        vowels: &["a", "e", "i", "o", "ia", "eo"],
        links: &[
            "l", "r", "n", "v", "d", "ss", "lt", "nz", "rc", "m", "t", "sp",
        ],
        men: &["ondo", "elo", "aro", "ino", "eo", "isco"],
        women: &["ella", "ira", "essa", "ona", "iane"],
        families: &["occi", "anza", "eroni", "atti", "uccio", "elmo", "ardi"],
        towns: &["azzo", "ente", "ona", "escia", "orra", "illo"],
        rivers: &["aro", "eno", "ovia", "esso"],
    },
    Sound {
        starts: &[
            "B", "Br", "Ch", "D", "Dr", "G", "K", "Kr", "L", "M", "P", "R", "S", "V", "Z",
        ],
        vowels: &["a", "e", "i", "o", "u"],
        links: &[
            "b", "d", "l", "lk", "m", "n", "rn", "st", "v", "z", "sh", "rz",
        ],
        men: &["omir", "an", "ek", "islav", "ur", "osh"],
        women: &["ana", "ika", "ova", "mila", "eva"],
        families: &["enko", "ovic", "arsky", "ulin", "ochek", "avin", "iczek"],
        towns: &["ograd", "itsa", "ovo", "nik", "atch", "ensk"],
        rivers: &["ava", "itsa", "ur", "ezna"],
    },
    Sound {
        starts: &[
            "A", "E", "H", "I", "J", "K", "L", "M", "N", "O", "R", "S", "T", "Y",
        ],
        vowels: &["a", "e", "i", "o", "u"],
        links: &[
            "k", "l", "m", "n", "r", "sh", "t", "y", "z", "h", "mr", "zr",
        ],
        men: &["amir", "esh", "im", "uran", "az", "oul"],
        women: &["ieh", "ara", "een", "isha", "umi"],
        families: &["adani", "ezari", "oush", "imani", "uvari", "aghan", "eddin"],
        towns: &["abad", "oura", "esht", "ukan", "amar", "iya"],
        rivers: &["oud", "ari", "esh", "una"],
    },
    Sound {
        starts: &[
            "B", "C", "D", "Dr", "F", "G", "H", "L", "M", "P", "R", "T", "Th", "W",
        ],
        vowels: &["a", "e", "o", "u", "ae", "oa"],
        links: &[
            "dd", "ll", "lb", "nn", "nt", "rl", "rth", "sp", "th", "ws", "ck", "mm",
        ],
        men: &["ic", "ard", "on", "wyn", "ell", "us"],
        women: &["eth", "wen", "ily", "ora", "anne"],
        families: &["low", "combe", "idge", "erby", "well", "over", "stead"],
        towns: &["ham", "bury", "wick", "mouth", "ley", "cester"],
        rivers: &["er", "ow", "ent", "yd"],
    },
];

/// Real names that syllables could give by chance, in lower case.
const REAL: &[&str] = &[
    "adana",
    "alan",
    "albania",
    "allen",
    "anna",
    "annan",
    "arizona",
    "asia",
    "barcelona",
    "barry",
    "bella",
    "belgrad",
    "bergen",
    "berlin",
    "bernard",
    "beth",
    "bolivia",
    "bologna",
    "bosnia",
    "boston",
    "brazil",
    "brenda",
    "burma",
    "canada",
    "carina",
    "carl",
    "carmela",
    "carolina",
    "catalonia",
    "celia",
    "chelsea",
    "china",
    "colin",
    "colombia",
    "corona",
    "corsica",
    "crimea",
    "croatia",
    "cuba",
    "dakota",
    "dallas",
    "daniela",
    "danube",
    "darwin",
    "delhi",
    "denmark",
    "derby",
    "donna",
    "dover",
    "drava",
    "dresden",
    "dublin",
    "edmund",
    "elena",
    "emily",
    "estonia",
    "ethan",
    "eva",
    "fiona",
    "florida",
    "frank",
    "galicia",
    "gambia",
    "geneva",
    "genoa",
    "georgia",
    "ghana",
    "gloria",
    "harold",
    "havana",
    "helen",
    "hessen",
    "holland",
    "hungary",
    "iran",
    "iraq",
    "irena",
    "isabella",
    "israel",
    "italia",
    "ivan",
    "jamaica",
    "java",
    "joan",
    "jordan",
    "judith",
    "julia",
    "karachi",
    "karen",
    "kenya",
    "kiev",
    "korea",
    "kosovo",
    "lancaster",
    "laos",
    "latvia",
    "laura",
    "lebanon",
    "lena",
    "leonardo",
    "lewes",
    "liberia",
    "libya",
    "lima",
    "linda",
    "london",
    "lorena",
    "ludmila",
    "macedonia",
    "madeira",
    "madrid",
    "malawi",
    "malaysia",
    "malta",
    "marcello",
    "marcelo",
    "marian",
    "mario",
    "marina",
    "marta",
    "martin",
    "melissa",
    "mexico",
    "milan",
    "miranda",
    "molina",
    "monaco",
    "mongolia",
    "monica",
    "morava",
    "morocco",
    "moscow",
    "namibia",
    "naomi",
    "nepal",
    "nigeria",
    "norway",
    "norwich",
    "olga",
    "oman",
    "omar",
    "oslo",
    "ottawa",
    "oxford",
    "panama",
    "paris",
    "parma",
    "pamela",
    "persia",
    "philadelphia",
    "poland",
    "polonia",
    "portland",
    "prussia",
    "quito",
    "ramona",
    "ravenna",
    "renata",
    "rhone",
    "roland",
    "roma",
    "romania",
    "ronda",
    "rosario",
    "rosella",
    "russia",
    "rwanda",
    "sahara",
    "samara",
    "samoa",
    "sandra",
    "sara",
    "sarah",
    "saxony",
    "scania",
    "selena",
    "senegal",
    "serbia",
    "severn",
    "sicily",
    "silesia",
    "silvia",
    "simon",
    "slovenia",
    "sofia",
    "somalia",
    "sonia",
    "stella",
    "stockholm",
    "sudan",
    "svanhild",
    "sweden",
    "sydney",
    "syria",
    "tamara",
    "tanzania",
    "tatiana",
    "teheran",
    "thames",
    "theresa",
    "tobago",
    "tokyo",
    "toledo",
    "torino",
    "trent",
    "trieste",
    "tunisia",
    "turin",
    "valencia",
    "valeria",
    "vanessa",
    "venezia",
    "venice",
    "verona",
    "victor",
    "vienna",
    "vietnam",
    "virginia",
    "vistula",
    "vitoria",
    "volga",
    "walter",
    "warwick",
    "wessex",
    "wick",
    "winona",
    "yemen",
    "yukon",
    "zambia",
    "zara",
];

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameOf {
    Man,
    Woman,
    Family,
    Town,
    River,
    Country,
}

/// Hands out names, each only once.
#[derive(Debug, Default)]
pub(super) struct Names {
    used: HashSet<String>,
}

impl Names {
    /// A new name with the sound of country number `sound`.
    pub(super) fn fresh(&mut self, dice: &mut Dice, of: NameOf, sound: usize) -> String {
        for attempt in 0.. {
            let sound = &SOUNDS[sound % SOUNDS.len()];
            let mut name = dice.word(sound.starts).to_owned();
            // After many hits on used names the namespace is getting full: lengthen the name.
            for _ in 0..=attempt / 20 {
                name += dice.word(sound.vowels);
                name += dice.word(sound.links);
            }
            name += match of {
                NameOf::Man => dice.word(sound.men),
                NameOf::Woman => dice.word(sound.women),
                NameOf::Family => dice.word(sound.families),
                NameOf::Town => dice.word(sound.towns),
                NameOf::River => dice.word(sound.rivers),
                NameOf::Country => dice.word(&["ia", "ania", "ova", "ea"]),
            };
            if reads_well(&name) && self.take(&name) {
                return name;
            }
        }
        String::new()
    }

    /// Marks `name` as used; false if it already was, or is real.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let lower = name.to_lowercase();
        !REAL.contains(&lower.as_str()) && self.used.insert(lower)
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
        let (mut names, mut dice) = (Names::default(), Dice::new(3, 0));
        let mut seen = HashSet::new();
        for round in 0..4000 {
            for of in [
                NameOf::Man,
                NameOf::Woman,
                NameOf::Family,
                NameOf::Town,
                NameOf::River,
            ] {
                let name = names.fresh(&mut dice, of, round);
                assert!(name.len() >= 5 && name.is_ascii(), "{name}");
                assert!(!REAL.contains(&name.to_lowercase().as_str()), "{name}");
                assert!(seen.insert(name.to_lowercase()), "{name}");
            }
        }
    }

    #[test]
    fn real_names_are_refused() {
        let mut names = Names::default();
        assert!(!names.take("Verona") && !names.take("MARINA"));
        assert!(names.take("Velkograd") && !names.take("velkograd"));
    }
}
