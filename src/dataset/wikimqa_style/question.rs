//! The four types of question, each with the facts it rests on and its one answer.

use super::data::{Comparison, Data, Kind, Kinship, Wins};
use super::world::{Fact, Facts, Id, Value, World};
use crate::dataset::dice::Dice;

/// Types of question, named as 2WikiMultihopQA names them; they take turns.
const TYPES: [&str; 4] = [
    "compositional",
    "comparison",
    "bridge_comparison",
    "inference",
];

/// A question and what answers it.
#[derive(Clone, Debug, Default)]
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
    data: &'static Data,
    orders: [Vec<usize>; TYPES.len()],
}

impl Turns {
    pub(super) fn new(data: &'static Data, seed: u64) -> Self {
        let mut dice = Dice::new(seed, u64::MAX);
        let variants = [
            data.compositional.len(),
            data.comparison.len(),
            data.bridge_comparison.len(),
            data.inference.len(),
        ];
        let orders = variants.map(|count| {
            let mut order: Vec<usize> = (0..count).collect();
            dice.shuffle(&mut order);
            order
        });
        Self { data, orders }
    }

    /// Question number `index` in a new world; `None` where chance made it ambiguous.
    pub(super) fn question(&self, world: &mut World, index: usize) -> Option<Question> {
        let (turn, kind) = (index / TYPES.len(), index % TYPES.len());
        let order = &self.orders[kind];
        let variant = *order.get(turn % order.len().max(1))?;
        let question = match kind {
            0 => compositional(world, self.data.compositional.get(variant)?),
            1 => compare(world, self.data.comparison.get(variant)?, false),
            2 => compare(world, self.data.bridge_comparison.get(variant)?, true),
            _ => inference(world, *self.data.inference.get(variant)?),
        };
        let kind = TYPES[kind];
        question.map(|question| Question { kind, ..question })
    }
}

/// A question over two steps: from a thing to another, and to a fact of that one.
fn compositional(
    world: &mut World,
    (kind, by, what): &(Kind, &'static str, &'static str),
) -> Option<Question> {
    let first = world.make(*kind, Facts::new());
    let second = world.link(first, by)?;
    world.equip(second, what);
    let between = world.prose(first).bridges.get(by)?;
    let between = between.replace('#', &world.called(first));
    let questions = world.prose(second).questions.get(what)?;
    Some(Question {
        text: world.dice.word(questions).replace('#', &between),
        answer: world.text(second, what)?,
        gold: vec![
            (first, world.fact(first, by)?),
            (second, world.fact(second, what)?),
        ],
        ..Question::default()
    })
}

/// A question that compares two things by a fact of each, or two works by a fact of their makers where
/// `bridge` is set.
fn compare(world: &mut World, by: &Comparison, bridge: bool) -> Option<Question> {
    let count = world.countries.len();
    let one = world.dice.below(count);
    let other = (one + 1 + world.dice.below(count - 1)) % count;
    let countries = [one, if world.dice.chance(50) { one } else { other }];
    let kind = world.some_kind(Kind::Work);
    let recipe = world.data.recipe(kind);
    let maker = recipe.by?;
    let of = if bridge {
        maker
    } else {
        world.dice.pick(&by.of).unwrap_or(kind)
    };
    let from = |country| Facts::from([("country", Value::Country(country))]);
    let measured = countries.map(|country| world.make(of, from(country)));
    let asked = if bridge {
        measured.map(|maker| world.make(kind, Facts::from([("maker", Value::Thing(maker))])))
    } else {
        measured
    };
    let first = by.ask.len() == 1 || world.dice.chance(if bridge { 50 } else { 60 });
    let (wins, pattern) = by.ask.get(usize::from(!first))?;
    let text = pattern
        .replace("{kind}", recipe.noun)
        .replace("{who}", world.data.recipe(maker).noun)
        .replace("{a}", &world.called(asked[0]))
        .replace("{b}", &world.called(asked[1]));
    let mut gold = Vec::new();
    for (asked, measured) in asked.into_iter().zip(measured) {
        if bridge {
            gold.push((asked, world.fact(asked, "maker")?));
        }
        gold.push((measured, world.fact(measured, by.what)?));
    }
    Some(Question {
        text,
        answer: decide(world, by, *wins, measured, asked)?,
        gold,
        answer_is_subject: *wins != Wins::Same,
        ..Question::default()
    })
}

/// The one of `asked` whose counterpart in `measured` wins, or whether both are from the same country.
fn decide(
    world: &World,
    by: &Comparison,
    wins: Wins,
    measured: [Id; 2],
    asked: [Id; 2],
) -> Option<String> {
    if wins == Wins::Same {
        let [a, b] = measured.map(|thing| world.country(thing));
        return Some(if a == b { "yes" } else { "no" }.to_owned());
    }
    let [a, b] = measured.map(|thing| world.number(thing, by.what));
    let (a, b) = (a?, b?);
    let second = (a < b) == (wins == Wins::Most);
    (a.abs_diff(b) >= by.apart).then(|| world.title(asked[usize::from(second)]))
}

impl Kinship {
    /// Everybody in the world who is this to `person`, by blood or by marriage.
    fn of(self, world: &World, person: Id) -> Vec<Id> {
        let Self([_, first, second]) = self;
        let Some(between) = world.link(person, first) else {
            return vec![];
        };
        let mut found = world.related(between, second);
        if matches!(second, "brother" | "sister") {
            let spouse = first == "spouse";
            let siblings = world.siblings(if spouse { person } else { between });
            let in_laws = siblings
                .into_iter()
                .filter_map(|id| world.link(id, "spouse"));
            found.extend(in_laws.filter(|&id| world.is_female(id) == (second == "sister")));
        }
        found
    }

    /// The two facts from which this follows, with the people whose passages say them, and the answer.
    fn steps(self, world: &World, person: Id) -> Option<([(Id, Fact); 2], Id)> {
        let Self([_, first, second]) = self;
        let between = world.link(person, first)?;
        let answer = *world.related(between, second).first()?;
        let steps = [(person, first, between), (between, second, answer)];
        let fact = |(of, what, other)| (of, world.relation(of, what, other));
        Some((steps.map(fact), answer))
    }
}

/// A question for a kinship that no passage states.
fn inference(world: &mut World, kinship: Kinship) -> Option<Question> {
    let Kinship([word, first, second]) = kinship;
    let person = world.make(Kind::Relation, Facts::new());
    let between = world.link(person, first)?;
    if matches!(second, "father" | "mother") {
        world.give_parents(between);
    } else {
        world.give_sibling(between, second == "sister");
        if first != "spouse" && world.dice.chance(50) {
            world.give_sibling(between, second != "sister");
        }
    }
    let (gold, answer) = kinship.steps(world, person)?;
    let name = world.title(person);
    let text = if world.dice.chance(50) {
        format!("Who is {name}'s {word}?")
    } else {
        format!("Who is the {word} of {name}?")
    };
    Some(Question {
        text,
        answer: world.title(answer),
        gold: gold.to_vec(),
        kinship: Some(kinship),
        ..Question::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kinship_is_found_in_a_family() {
        let data = Data::load().unwrap();
        let mut world = World::new(data, Dice::new(5, 0));
        let child = world.make(Kind::Person, Facts::new());
        let spouse = world.give_spouse(child);
        let spouses_parents = world.give_parents(spouse);
        let sister_in_law = world.give_sibling(spouse, true);
        let (father, mother) = world.give_parents(child);
        let grandparents = world.give_parents(mother);
        let uncle = world.give_sibling(father, false);
        let aunt = world.give_spouse(uncle);

        let kinship = |word: &str| *data.inference.iter().find(|kin| kin.0[0] == word).unwrap();
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
        assert_eq!(steps[1], (father, Fact::between(uncle, "sibling", father)));
    }
}
