//! What else the context speaks of: twins of the gold things, their neighbours, and strangers of
//! the same kinds, so that no question can be answered by its shape alone.

use std::collections::HashMap;

use super::people::Wanted;
use super::question::{Question, equip, maker, some_kind};
use super::things::{Like, maker_trade};
use super::world::{Fact, HouseKind, Id, Relation, Thing, WorkKind, World};
use crate::dataset::dice::Dice;

/// A thing that gets a passage, and what its passage must say to be a good distractor.
#[derive(Clone, Debug)]
pub(super) struct Distractor {
    pub(super) thing: Thing,
    pub(super) says: Vec<Fact>,
}

/// Hands out distractors for one question, the hardest first.
#[derive(Debug)]
pub(super) struct Distractors {
    queue: Vec<Distractor>,
    taken: Vec<Thing>,
    kinds: Vec<Thing>,
}

impl Distractors {
    /// Makes twins of the gold things and finds their neighbours.
    pub(super) fn new(world: &mut World, dice: &mut Dice, question: &Question) -> Self {
        let gold = question.things();
        let mut twins = Twins::default();
        // People first, so that a work's twin can be by its maker's twin.
        for person in [true, false] {
            for (thing, fact) in &question.gold {
                if matches!(thing, Thing::Person(_)) == person {
                    twins.add(world, dice, *thing, fact.what);
                }
            }
        }
        let mut neighbours = Vec::new();
        for thing in &gold {
            neighbours.extend(neighbours_of(world, *thing));
        }
        dice.shuffle(&mut neighbours);
        let mut queue = twins.made;
        queue.extend(neighbours.into_iter().map(|thing| Distractor {
            thing,
            says: vec![],
        }));
        // Taken from the end.
        queue.reverse();
        Self {
            queue,
            taken: gold.clone(),
            kinds: gold,
        }
    }

    /// The next distractor; there is always another.
    pub(super) fn next(&mut self, world: &mut World, dice: &mut Dice) -> Distractor {
        loop {
            // Twins and neighbours thin out in favour of strangers, or all would be one family.
            let stranger = self.queue.is_empty() || (self.taken.len() > 6 && dice.chance(50));
            if stranger {
                let mut cluster = strangers(world, dice, &self.kinds);
                cluster.reverse();
                self.queue.append(&mut cluster);
            }
            if let Some(next) = self.queue.pop()
                && !self.taken.contains(&next.thing)
            {
                self.taken.push(next.thing);
                return next;
            }
        }
    }
}

#[derive(Default)]
struct Twins {
    of: HashMap<Thing, Thing>,
    made: Vec<Distractor>,
}

impl Twins {
    /// Makes a twin of `thing` that has a fact of the same kind.
    fn add(&mut self, world: &mut World, dice: &mut Dice, thing: Thing, what: Relation) {
        let twin = match self.of.get(&thing) {
            Some(twin) => *twin,
            None => match thing {
                Thing::Person(id) => Thing::Person(twin_person(world, dice, id)),
                Thing::Work(id) => Thing::Work(self.twin_work(world, dice, id)),
                Thing::House(id) => Thing::House(twin_house(world, dice, id)),
                Thing::Town(id) => Thing::Town(world.town(dice, world.towns[id].country)),
                Thing::River(id) => {
                    let tributary = world.rivers[id].mouth.is_some();
                    Thing::River(world.river(dice, world.rivers[id].country, tributary))
                }
            },
        };
        if let Thing::Person(id) = twin {
            equip(world, dice, id, what);
        }
        self.of.insert(thing, twin);
        let says = world.fact(twin, what).into_iter().collect();
        self.made.push(Distractor { thing: twin, says });
    }

    fn twin_work(&self, world: &mut World, dice: &mut Dice, id: Id) -> Id {
        let (kind, by) = (world.works[id].kind, world.works[id].maker);
        let like = if dice.chance(50) {
            Like::Frame(world.works[id].frame)
        } else {
            Like::Key(world.works[id].key.clone(), world.works[id].frame)
        };
        let maker = match self.of.get(&Thing::Person(by)) {
            Some(Thing::Person(twin)) => *twin,
            _ => {
                let country = Some(world.people[by].country);
                maker(
                    world,
                    dice,
                    kind,
                    Wanted {
                        country,
                        ..Wanted::default()
                    },
                )
            }
        };
        world.work(dice, kind, maker, Some(like))
    }
}

/// Somebody of the same trade and country who shares a name with `id`.
fn twin_person(world: &mut World, dice: &mut Dice, id: Id) -> Id {
    let of = &world.people[id];
    let share_family = dice.chance(60);
    let mut wanted = Wanted {
        country: Some(of.country),
        trade: Some(of.trade),
        born: Some((of.born.year + dice.between(-12, 12)).clamp(1840, 1950)),
        ..Wanted::default()
    };
    if share_family {
        wanted.family = Some(of.family.clone());
    } else {
        wanted.first = Some(of.first.clone());
        wanted.female = Some(of.female);
    }
    let twin = world.person(dice, wanted);
    world.give_parents(dice, twin);
    if dice.chance(60) {
        world.give_spouse(dice, twin);
    }
    twin
}

fn twin_house(world: &mut World, dice: &mut Dice, id: Id) -> Id {
    let of = &world.houses[id];
    let (kind, key, seat, business) = (of.kind, of.key.clone(), of.seat, of.business);
    let country = world.towns[seat].country;
    match kind {
        HouseKind::School => world.school(dice, country, Some(key)),
        HouseKind::Firm => {
            let for_works = [WorkKind::Film, WorkKind::Book, WorkKind::Song]
                .into_iter()
                .find(|kind| super::things::producer_form(*kind).1 == business)
                .map(|kind| (kind, 1935));
            world.firm(dice, country, for_works)
        }
    }
}

/// What a gold thing's passage may speak of.
fn neighbours_of(world: &World, thing: Thing) -> Vec<Thing> {
    match thing {
        Thing::Person(id) => {
            let person = &world.people[id];
            let mut near = vec![Thing::Town(person.birthplace)];
            near.extend(
                person
                    .parents
                    .into_iter()
                    .flat_map(|(f, m)| [f, m])
                    .map(Thing::Person),
            );
            near.extend(person.spouse.map(|(spouse, _)| Thing::Person(spouse)));
            near.extend(person.school.map(Thing::House));
            near.extend(world.siblings(id).into_iter().map(Thing::Person));
            near
        }
        Thing::Work(id) => {
            let work = &world.works[id];
            let mut near = vec![Thing::House(work.producer), Thing::Person(work.maker)];
            near.extend(work.cast.iter().copied().map(Thing::Person));
            near
        }
        Thing::House(id) => {
            vec![
                Thing::Town(world.houses[id].seat),
                Thing::Person(world.houses[id].founder),
            ]
        }
        Thing::Town(_) => vec![],
        Thing::River(id) => world.rivers[id]
            .mouth
            .map(Thing::River)
            .into_iter()
            .collect(),
    }
}

/// New things that have nothing to do with the question, mostly of the kinds it is about.
fn strangers(world: &mut World, dice: &mut Dice, kinds: &[Thing]) -> Vec<Distractor> {
    let country = dice.below(world.countries.len());
    let like = if dice.chance(65) {
        dice.pick(kinds)
    } else {
        None
    };
    let things = match (like, dice.below(6)) {
        (Some(Thing::Work(id)), _) => {
            let kind = world.works[id].kind;
            work_and_maker(world, dice, kind)
        }
        (Some(Thing::Person(id)), _) => related_people(world, dice, Some(world.people[id].trade)),
        (Some(Thing::River(_)), _) | (None, 0) => {
            let river = world.river(dice, country, true);
            let mouth = world.rivers[river].mouth.map(Thing::River);
            [Some(Thing::River(river)), mouth]
                .into_iter()
                .flatten()
                .collect()
        }
        (Some(Thing::Town(_)), _) | (None, 1) => vec![Thing::Town(world.town(dice, country))],
        (Some(Thing::House(id)), _) if world.houses[id].kind == HouseKind::School => {
            vec![Thing::House(world.school(dice, country, None))]
        }
        (Some(Thing::House(_)), _) | (None, 2) => {
            let firm = world.firm(dice, country, None);
            vec![
                Thing::House(firm),
                Thing::Person(world.houses[firm].founder),
            ]
        }
        (None, 3) => related_people(world, dice, None),
        (None, _) => {
            let kind = some_kind(dice);
            work_and_maker(world, dice, kind)
        }
    };
    things
        .into_iter()
        .map(|thing| Distractor {
            thing,
            says: vec![],
        })
        .collect()
}

fn work_and_maker(world: &mut World, dice: &mut Dice, kind: WorkKind) -> Vec<Thing> {
    let person = maker(world, dice, kind, Wanted::default());
    vec![
        Thing::Work(world.work(dice, kind, person, None)),
        Thing::Person(person),
    ]
}

/// Two related people; works make it natural to be a director, so that trade brings a work along.
fn related_people(world: &mut World, dice: &mut Dice, trade: Option<&'static str>) -> Vec<Thing> {
    for kind in [WorkKind::Film, WorkKind::Book, WorkKind::Song] {
        if trade == Some(maker_trade(kind)) {
            let mut things = work_and_maker(world, dice, kind);
            things.reverse();
            return things;
        }
    }
    let person = world.person(
        dice,
        Wanted {
            trade,
            ..Wanted::default()
        },
    );
    let (father, mother) = world.give_parents(dice, person);
    let spouse = world.give_spouse(dice, person);
    if dice.chance(50) {
        world.give_school(dice, person);
    }
    let other = dice.pick(&[father, mother, spouse]).unwrap_or(spouse);
    vec![Thing::Person(person), Thing::Person(other)]
}
