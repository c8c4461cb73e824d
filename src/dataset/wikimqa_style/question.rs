//! The four types of question, each with the facts it rests on and its one answer.

use super::data::{Comparison, Kind, Kinship, Wins};
use super::making::Wanted;
use super::world::{Fact, Id, World};
use crate::dataset::dice::Dice;

/// Types of question, named as 2WikiMultihopQA names them; they take turns.
const TYPES: [&str; 4] = [
    "compositional",
    "comparison",
    "bridge_comparison",
    "inference",
];

/// A question and what answers it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// One of the four types.
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) answer: String,
    /// Each fact the answer rests on, with the thing whose passage says it, in order of reasoning.
    pub(super) gold: Vec<(Id, Fact)>,
    /// Whether the answer is the subject of a gold sentence.
    pub(super) answer_is_subject: bool,
    /// The kinship that it asks for.
    kinship: Option<Kinship>,
}

impl Question {
    /// The things whose passages hold the gold facts, each once.
    pub(super) fn things(&self) -> Vec<Id> {
        let mut things = Vec::new();
        for (thing, _) in &self.gold {
            if !things.contains(thing) {
                things.push(*thing);
            }
        }
        things
    }

    /// Whether the finished world still has exactly the answer there was.
    pub(super) fn has_one_answer(&self, world: &World) -> bool {
        // Every relation but kinship is a function, of things whose names are unique.
        let (Some(kinship), Some((person, _))) = (self.kinship, self.gold.first()) else {
            return self.kinship.is_none();
        };
        matches!(kinship.of(world, *person)[..], [only] if world.title(only) == self.answer)
    }
}

/// Hands out the variants of every type in turn, in an order of its own for each seed.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    compositional: Vec<[&'static str; 2]>,
    comparison: Vec<&'static Comparison>,
    bridge: Vec<&'static Comparison>,
    kin: Vec<Kinship>,
}

impl Turns {
    pub(super) fn new(data: &'static super::Data, seed: u64) -> Self {
        let mut dice = Dice::new(seed, u64::MAX);
        let mut turns = Self {
            compositional: data.compositional.clone(),
            comparison: data.comparison.iter().collect(),
            bridge: data.bridge_comparison.iter().collect(),
            kin: data.inference.clone(),
        };
        dice.shuffle(&mut turns.compositional);
        dice.shuffle(&mut turns.comparison);
        dice.shuffle(&mut turns.bridge);
        dice.shuffle(&mut turns.kin);
        turns
    }

    /// Question number `index` in a new world; `None` where chance made it ambiguous.
    pub(super) fn question(
        &self,
        world: &mut World,
        dice: &mut Dice,
        index: usize,
    ) -> Option<Question> {
        let turn = index / TYPES.len();
        let question = match index % TYPES.len() {
            0 => compositional(world, dice, nth(&self.compositional, turn)?),
            1 => compare(world, dice, nth(&self.comparison, turn)?, false),
            2 => compare(world, dice, nth(&self.bridge, turn)?, true),
            _ => inference(world, dice, nth(&self.kin, turn)?),
        }?;
        let kind = TYPES[index % TYPES.len()];
        Some(Question { kind, ..question })
    }
}

fn nth<T: Copy>(list: &[T], turn: usize) -> Option<T> {
    list.iter().cycle().nth(turn % list.len().max(1)).copied()
}

/// A maker of works, with relatives and a school, so that many things could be asked.
pub(super) fn maker(world: &mut World, dice: &mut Dice, kind: Kind, country: Option<usize>) -> Id {
    let born = Some(dice.between(1886, 1916));
    let trade = Some(world.data.of(kind).trade);
    let wanted = Wanted {
        country,
        trade,
        born,
        ..Wanted::default()
    };
    let person = world.person(dice, wanted);
    world.give_parents(dice, person);
    world.give_spouse(dice, person);
    world.give_school(dice, person);
    if dice.chance(40) {
        let female = dice.chance(50);
        world.give_sibling(dice, person, female);
    }
    person
}

/// A kind of work, at random.
pub(super) fn some_kind(dice: &mut Dice) -> Kind {
    let kinds = [Kind::Film, Kind::Film, Kind::Book, Kind::Song];
    dice.pick(&kinds).unwrap_or(Kind::Film)
}

fn some_country(world: &World, dice: &mut Dice) -> usize {
    dice.below(world.countries.len())
}

/// A question over two steps: from a thing to another, and to a fact of that one.
fn compositional(
    world: &mut World,
    dice: &mut Dice,
    [by, what]: [&'static str; 2],
) -> Option<Question> {
    let first = match by {
        "mouth" => {
            let country = some_country(world, dice);
            world.river(dice, country, true)
        }
        "maker" if dice.chance(20) => {
            let country = some_country(world, dice);
            let firm = world.firm(dice, country, None);
            let founder = world.link(firm, by)?;
            equip(world, dice, founder, what);
            firm
        }
        _ => {
            let kind = some_kind(dice);
            let person = maker(world, dice, kind, None);
            if by == "school" {
                person
            } else {
                world.work(dice, kind, person, None)
            }
        }
    };
    let second = world.link(first, by)?;
    let prose = |thing: Id| world.data.of(world.things[thing].kind);
    let between = prose(first).bridges.get(by)?;
    let between = between.replace('#', &world.called(first));
    let questions = prose(second).questions.get(what)?;
    Some(Question {
        kind: "",
        text: dice.word(questions).replace('#', &between),
        answer: world.text(second, what)?,
        gold: vec![
            (first, world.fact(first, by)?),
            (second, world.fact(second, what)?),
        ],
        answer_is_subject: false,
        kinship: None,
    })
}

/// Makes sure that a relation of a person exists, as far as it can be arranged.
pub(super) fn equip(world: &mut World, dice: &mut Dice, person: Id, what: &str) {
    match what {
        "father" | "mother" => {
            world.give_parents(dice, person);
        }
        "spouse" => {
            world.give_spouse(dice, person);
        }
        "sibling" => {
            let female = dice.chance(50);
            world.give_sibling(dice, person, female);
        }
        "school" if world.born(person) > 1890 => world.give_school(dice, person),
        _ => {}
    }
}

/// Two countries, the same half of the time.
fn two_countries(world: &World, dice: &mut Dice) -> [usize; 2] {
    let count = world.countries.len();
    let one = dice.below(count);
    let other = (one + 1 + dice.below(count - 1)) % count;
    [one, if dice.chance(50) { one } else { other }]
}

/// A question that compares two things by a fact of each, or two works by a fact of their makers where
/// `bridge` is set.
fn compare(world: &mut World, dice: &mut Dice, by: &Comparison, bridge: bool) -> Option<Question> {
    let countries = two_countries(world, dice);
    let kind = some_kind(dice);
    let (asked, measured) = if bridge {
        let makers = countries.map(|country| maker(world, dice, kind, Some(country)));
        (
            makers.map(|maker| world.work(dice, kind, maker, None)),
            makers,
        )
    } else {
        let trade = some_kind(dice);
        let of = by.of.unwrap_or(kind);
        let things = countries.map(|country| compared(world, dice, (of, trade), country));
        (things, things)
    };
    let several = by.ask.len() > 1;
    let first = !several || dice.chance(if bridge { 50 } else { 60 });
    let (wins, pattern) = by.ask.get(usize::from(!first))?;
    let [a, b] = asked.map(|thing| world.called(thing));
    let prose = world.data.of(kind);
    let text = pattern
        .replace("{kind}", prose.noun)
        .replace("{who}", prose.maker);
    let facts = |thing: Id, what| Some((thing, world.fact(thing, what)?));
    let mut gold = Vec::new();
    for (asked, measured) in asked.into_iter().zip(measured) {
        if bridge {
            gold.push(facts(asked, "maker")?);
        }
        gold.push(facts(measured, by.what)?);
    }
    Some(Question {
        kind: "",
        text: text.replace("{a}", &a).replace("{b}", &b),
        answer: decide(world, by.what, *wins, measured, asked)?,
        gold,
        answer_is_subject: *wins != Wins::Same,
        kinship: None,
    })
}

/// A thing to compare with another of its kind; a person has the trade of those who make a kind of work.
fn compared(world: &mut World, dice: &mut Dice, (kind, trade): (Kind, Kind), country: usize) -> Id {
    match kind {
        Kind::Film | Kind::Book | Kind::Song => {
            let person = maker(world, dice, kind, Some(country));
            world.work(dice, kind, person, None)
        }
        Kind::Person => maker(world, dice, trade, Some(country)),
        Kind::Firm => world.firm(dice, country, None),
        Kind::School => world.school(dice, country, None),
        Kind::Town => world.town(dice, country),
        Kind::River => {
            let tributary = dice.chance(50);
            world.river(dice, country, tributary)
        }
    }
}

/// The one of `asked` whose counterpart in `measured` wins, or whether both are from the same country.
fn decide(
    world: &World,
    what: &str,
    wins: Wins,
    measured: [Id; 2],
    asked: [Id; 2],
) -> Option<String> {
    if wins == Wins::Same {
        let [a, b] = measured.map(|thing| world.things[thing].country);
        return Some(if a == b { "yes" } else { "no" }.to_owned());
    }
    let [a, b] = measured.map(|thing| world.number(thing, what));
    let (a, b) = (a?, b?);
    // A near tie would be a question about arithmetic, not about the passages.
    let apart = if what == "population" { 1000 } else { 2 };
    let second = (a < b) == (wins == Wins::Most);
    (a.abs_diff(b) >= apart).then(|| world.title(asked[usize::from(second)]))
}

impl Kinship {
    /// Everybody in the world who is this to `person`, by blood or by marriage.
    fn of(self, world: &World, person: Id) -> Vec<Id> {
        let Self(_, first, second) = self;
        let between = world.link(person, first);
        if matches!(second, "father" | "mother") {
            return between
                .and_then(|id| world.link(id, second))
                .into_iter()
                .collect();
        }
        let mut found = between.map_or(vec![], |id| world.siblings(id));
        let in_law = if first == "spouse" {
            world.siblings(person)
        } else {
            found.clone()
        };
        found.extend(in_law.into_iter().filter_map(|id| world.link(id, "spouse")));
        found.retain(|&id| world.is_female(id) == (second == "sister"));
        found
    }

    /// The two facts from which this follows, with the people whose passages say them, and the answer.
    fn steps(self, world: &World, person: Id) -> Option<([(Id, Fact); 2], Id)> {
        let Self(_, first, second) = self;
        let between = world.link(person, first)?;
        let (fact, answer) = if matches!(second, "father" | "mother") {
            (world.fact(between, second)?, world.link(between, second)?)
        } else {
            let mut siblings = world.siblings(between).into_iter();
            let other = siblings.find(|&id| world.is_female(id) == (second == "sister"))?;
            (Fact::kinship(between, other), other)
        };
        Some((
            [(person, world.fact(person, first)?), (between, fact)],
            answer,
        ))
    }
}

/// A question for a kinship that no passage states.
fn inference(world: &mut World, dice: &mut Dice, kinship: Kinship) -> Option<Question> {
    let Kinship(word, first, second) = kinship;
    let wanted = Wanted {
        born: Some(dice.between(1898, 1950)),
        ..Wanted::default()
    };
    let person = world.person(dice, wanted);
    world.give_school(dice, person);
    world.give_parents(dice, person);
    world.give_spouse(dice, person);
    let between = world.link(person, first)?;
    if matches!(second, "father" | "mother") {
        world.give_parents(dice, between);
    } else {
        world.give_sibling(dice, between, second == "sister");
        if first != "spouse" && dice.chance(50) {
            world.give_sibling(dice, between, second != "sister");
        }
    }
    let (gold, answer) = kinship.steps(world, person)?;
    let name = world.title(person);
    let text = if dice.chance(50) {
        format!("Who is {name}'s {word}?")
    } else {
        format!("Who is the {word} of {name}?")
    };
    Some(Question {
        kind: "",
        text,
        answer: world.title(answer),
        gold: gold.to_vec(),
        answer_is_subject: false,
        kinship: Some(kinship),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::wikimqa_style::Data;

    #[test]
    fn every_kinship_is_found_in_a_family() {
        let mut dice = Dice::new(5, 0);
        let data = Data::load().unwrap();
        let mut world = World::new(data, &mut dice);
        let child = world.person(&mut dice, Wanted::default());
        let spouse = world.give_spouse(&mut dice, child);
        let spouses_parents = world.give_parents(&mut dice, spouse);
        let sister_in_law = world.give_sibling(&mut dice, spouse, true);
        let (father, mother) = world.give_parents(&mut dice, child);
        let grandparents = world.give_parents(&mut dice, mother);
        let uncle = world.give_sibling(&mut dice, father, false);
        let aunt = world.give_spouse(&mut dice, uncle);

        let kinship = |word: &str| *data.inference.iter().find(|kin| kin.0 == word).unwrap();
        let of = |word: &str| kinship(word).of(&world, child);
        assert_eq!(of("mother-in-law"), [spouses_parents.1]);
        assert_eq!(of("sister-in-law"), [sister_in_law]);
        assert!(of("brother-in-law").is_empty());
        assert_eq!(of("maternal grandfather"), [grandparents.0]);
        assert_eq!(of("paternal uncle"), [uncle]);
        assert_eq!(of("paternal aunt"), [aunt]);
        assert!(of("maternal uncle").is_empty());

        let (steps, answer) = kinship("paternal uncle").steps(&world, child).unwrap();
        assert_eq!(answer, uncle);
        assert_eq!(steps[0], (child, Fact::new(child, "father")));
        assert_eq!(steps[1], (father, Fact::kinship(uncle, father)));
    }
}
