//! The four types of question, each with the facts it rests on and its one answer.

use super::compare::{Compared, bridge_comparison, comparison};
use super::kin::Kin;
use super::people::Wanted;
use super::things::maker_trade;
use super::world::{Fact, Id, Relation, Thing, WorkKind, World};
use crate::dataset::dice::Dice;

/// Types of question, named as 2WikiMultihopQA names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Compositional,
    Comparison,
    BridgeComparison,
    Inference,
}

impl Type {
    pub(super) const ALL: [Self; 4] = [
        Self::Compositional,
        Self::Comparison,
        Self::BridgeComparison,
        Self::Inference,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Compositional => "compositional",
            Self::Comparison => "comparison",
            Self::BridgeComparison => "bridge_comparison",
            Self::Inference => "inference",
        }
    }
}

/// A question and what answers it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) kind: Type,
    pub(super) text: String,
    pub(super) answer: String,
    /// Each fact the answer rests on, with the thing whose passage says it, in order of reasoning.
    pub(super) gold: Vec<(Thing, Fact)>,
    /// Whether the answer is the subject of a gold sentence.
    pub(super) answer_is_subject: bool,
}

impl Question {
    /// The things whose passages hold the gold facts, each once.
    pub(super) fn things(&self) -> Vec<Thing> {
        let mut things = Vec::new();
        for (thing, _) in &self.gold {
            if !things.contains(thing) {
                things.push(*thing);
            }
        }
        things
    }
}

/// Hands out the variants of every type in turn, in an order of its own for each seed.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    compositional: Vec<Step>,
    comparison: Vec<Compared>,
    bridge: Vec<Compared>,
    kin: Vec<Kin>,
}

impl Turns {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, u64::MAX);
        let mut turns = Self {
            compositional: Step::ALL.to_vec(),
            comparison: Compared::ALL.to_vec(),
            bridge: Compared::BRIDGED.to_vec(),
            kin: Kin::ALL.to_vec(),
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
        let (kind, turn) = (Type::ALL[index % Type::ALL.len()], index / Type::ALL.len());
        match kind {
            Type::Compositional => compositional(
                world,
                dice,
                *self.compositional.get(turn % self.compositional.len())?,
            ),
            Type::Comparison => comparison(
                world,
                dice,
                *self.comparison.get(turn % self.comparison.len())?,
            ),
            Type::BridgeComparison => {
                bridge_comparison(world, dice, *self.bridge.get(turn % self.bridge.len())?)
            }
            Type::Inference => inference(world, dice, *self.kin.get(turn % self.kin.len())?),
        }
    }
}

/// The second step of a compositional question.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// From a work or firm over its maker to something about that person.
    Maker(Relation),
    /// From a work over its producer.
    Producer(Relation),
    /// From a person over their school.
    School(Relation),
    /// From a tributary over the river it joins.
    Mouth,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Maker(Relation::Father),
        Self::Maker(Relation::Mother),
        Self::Maker(Relation::Spouse),
        Self::Maker(Relation::Born),
        Self::Maker(Relation::Birthplace),
        Self::Maker(Relation::Died),
        Self::Maker(Relation::DeathPlace),
        Self::Maker(Relation::School),
        Self::Producer(Relation::Seat),
        Self::Producer(Relation::Founder),
        Self::School(Relation::Seat),
        Self::School(Relation::Year),
        Self::Mouth,
    ];
}

/// A maker of works, with relatives and a school, so that many things could be asked.
pub(super) fn maker(world: &mut World, dice: &mut Dice, kind: WorkKind, wanted: Wanted) -> Id {
    let born = wanted.born.or_else(|| Some(dice.between(1886, 1916)));
    let person = world.person(
        dice,
        Wanted {
            trade: Some(maker_trade(kind)),
            born,
            ..wanted
        },
    );
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
pub(super) fn some_kind(dice: &mut Dice) -> WorkKind {
    dice.pick(&[
        WorkKind::Film,
        WorkKind::Film,
        WorkKind::Book,
        WorkKind::Song,
    ])
    .unwrap_or(WorkKind::Film)
}

/// "the film X", "the song "X"".
fn the_work(world: &World, work: Id) -> String {
    let work = &world.works[work];
    let text = super::prose_works::in_text(work);
    match work.kind {
        WorkKind::Film => format!("the film {text}"),
        WorkKind::Book => format!("the book {text}"),
        WorkKind::Song => format!("the song {text}"),
    }
}

/// What the maker of a kind of work is called.
pub(super) fn maker_word(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Film => "director",
        WorkKind::Book => "author",
        WorkKind::Song => "singer",
    }
}

fn compositional(world: &mut World, dice: &mut Dice, step: Step) -> Option<Question> {
    let (first, first_what, second, second_what, between) = match step {
        Step::Maker(what) if dice.chance(20) => {
            let country = dice.below(world.countries.len());
            let firm = world.firm(dice, country, None);
            let founder = world.houses[firm].founder;
            equip(world, dice, founder, what);
            let between = format!("the founder of {}", world.houses[firm].name);
            (
                Thing::House(firm),
                Relation::Founder,
                Thing::Person(founder),
                what,
                between,
            )
        }
        Step::Maker(what) => {
            let kind = some_kind(dice);
            let person = maker(world, dice, kind, Wanted::default());
            let work = world.work(dice, kind, person, None);
            let between = format!("the {} of {}", maker_word(kind), the_work(world, work));
            (
                Thing::Work(work),
                Relation::Maker,
                Thing::Person(person),
                what,
                between,
            )
        }
        Step::Producer(what) => {
            let kind = some_kind(dice);
            let person = maker(world, dice, kind, Wanted::default());
            let work = world.work(dice, kind, person, None);
            let house = world.works[work].producer;
            let did = match kind {
                WorkKind::Film => "produced",
                WorkKind::Book => "published",
                WorkKind::Song => "released",
            };
            let between = format!("the company that {did} {}", the_work(world, work));
            (
                Thing::Work(work),
                Relation::Producer,
                Thing::House(house),
                what,
                between,
            )
        }
        Step::School(what) => {
            let kind = some_kind(dice);
            let person = maker(world, dice, kind, Wanted::default());
            let school = world.give_school(dice, person);
            let between = format!("the school that {} attended", world.name(person));
            (
                Thing::Person(person),
                Relation::School,
                Thing::House(school),
                what,
                between,
            )
        }
        Step::Mouth => {
            let country = dice.below(world.countries.len());
            let river = world.river(dice, country, true);
            let mouth = world.rivers[river].mouth?;
            let title = world.title(Thing::River(river));
            let between = format!("the river into which the {title} flows");
            (
                Thing::River(river),
                Relation::Mouth,
                Thing::River(mouth),
                Relation::Length,
                between,
            )
        }
    };
    let gold = vec![
        (first, world.fact(first, first_what)?),
        (second, world.fact(second, second_what)?),
    ];
    Some(Question {
        kind: Type::Compositional,
        text: ask(dice, second_what, second, &between),
        answer: value(world, second, second_what)?,
        gold,
        answer_is_subject: false,
    })
}

/// Makes sure that a relation of a person exists, as far as it can be arranged.
pub(super) fn equip(world: &mut World, dice: &mut Dice, person: Id, what: Relation) {
    match what {
        Relation::Father | Relation::Mother => {
            world.give_parents(dice, person);
        }
        Relation::Spouse => {
            world.give_spouse(dice, person);
        }
        Relation::Sibling(_) => {
            let female = dice.chance(50);
            world.give_sibling(dice, person, female);
        }
        Relation::School if world.people[person].born.year > 1890 => {
            world.give_school(dice, person);
        }
        _ => {}
    }
}

/// The question for one more fact about `between`.
fn ask(dice: &mut Dice, what: Relation, of: Thing, between: &str) -> String {
    let patterns: &[&'static str] = match what {
        Relation::Father => &["Who is the father of #?", "Who was the father of #?"],
        Relation::Mother => &["Who is the mother of #?", "Who was the mother of #?"],
        Relation::Spouse => &["Who is the spouse of #?", "Who was # married to?"],
        Relation::Born => &["When was # born?", "What is the date of birth of #?"],
        Relation::Birthplace => &["Where was # born?", "What is the place of birth of #?"],
        Relation::Died => &["When did # die?", "What is the date of death of #?"],
        Relation::DeathPlace => &["Where did # die?", "What is the place of death of #?"],
        Relation::School => &["Which school did # attend?", "Where did # go to school?"],
        Relation::Seat if matches!(of, Thing::House(_)) => {
            &["In which town is #?", "Where is # based?"]
        }
        Relation::Founder => &["Who founded #?", "Who is the founder of #?"],
        Relation::Year => &["In which year was # founded?", "When was # founded?"],
        _ => &["How long is #?", "What is the length of #?"],
    };
    dice.word(patterns).replace('#', between)
}

/// A fact's value as passages write it.
fn value(world: &World, thing: Thing, what: Relation) -> Option<String> {
    let town = |id: Id| world.towns[id].name.clone();
    Some(match thing {
        Thing::Person(id) => {
            let person = &world.people[id];
            match what {
                Relation::Father => world.name(person.parents?.0),
                Relation::Mother => world.name(person.parents?.1),
                Relation::Spouse => world.name(person.spouse?.0),
                Relation::Born => person.born.to_string(),
                Relation::Birthplace => town(person.birthplace),
                Relation::Died => person.died?.0.to_string(),
                Relation::DeathPlace => town(person.died?.1),
                Relation::School => world.houses[person.school?].name.clone(),
                _ => return None,
            }
        }
        Thing::House(id) => match what {
            Relation::Seat => town(world.houses[id].seat),
            Relation::Year => world.houses[id].year.to_string(),
            Relation::Founder => world.name(world.houses[id].founder),
            _ => return None,
        },
        Thing::River(id) => format!("{} kilometres", world.rivers[id].kilometres),
        _ => return None,
    })
}

fn inference(world: &mut World, dice: &mut Dice, kin: Kin) -> Option<Question> {
    let born = Some(dice.between(1898, 1950));
    let person = world.person(
        dice,
        Wanted {
            born,
            ..Wanted::default()
        },
    );
    world.give_school(dice, person);
    let (father, mother) = world.give_parents(dice, person);
    match kin {
        Kin::Grandparent { father_side, .. } => {
            world.give_spouse(dice, person);
            world.give_parents(dice, if father_side { father } else { mother });
        }
        Kin::ParentInLaw { .. } => {
            let spouse = world.give_spouse(dice, person);
            world.give_parents(dice, spouse);
        }
        Kin::SiblingInLaw { female } => {
            let spouse = world.give_spouse(dice, person);
            world.give_sibling(dice, spouse, female);
        }
        Kin::ParentsSibling {
            father_side,
            female,
        } => {
            world.give_spouse(dice, person);
            let parent = if father_side { father } else { mother };
            world.give_sibling(dice, parent, female);
            if dice.chance(50) {
                world.give_sibling(dice, parent, !female);
            }
        }
    }
    let (facts, between, answer) = kin.steps(world, person)?;
    let name = world.name(person);
    let text = if dice.chance(50) {
        format!("Who is {name}'s {}?", kin.word())
    } else {
        format!("Who is the {} of {name}?", kin.word())
    };
    Some(Question {
        kind: Type::Inference,
        text,
        answer: world.name(answer),
        gold: vec![
            (Thing::Person(person), facts[0]),
            (Thing::Person(between), facts[1]),
        ],
        answer_is_subject: false,
    })
}

/// Whether a kinship question of the finished world still has exactly the answer it had.
pub(super) fn has_one_answer(world: &World, question: &Question) -> bool {
    if question.kind != Type::Inference {
        // Every other relation asked for is a function, of things whose names are unique.
        return true;
    }
    let Some((Thing::Person(person), _)) = question.gold.first() else {
        return false;
    };
    Kin::ALL
        .iter()
        .filter(|kin| question.text.contains(kin.word()))
        .any(|kin| {
            let everybody = kin.of(world, *person);
            everybody.len() == 1 && world.name(everybody[0]) == question.answer
        })
}
