//! What else the context speaks of: twins of the gold things, their neighbours, and strangers of
//! the same kinds, so that no question can be answered by its shape alone.

use std::collections::HashMap;

use super::data::Kind;
use super::making::Wanted;
use super::question::Question;
use super::world::{Fact, Id, World};

/// A thing that gets a passage, and what its passage must say to be a good distractor.
type Distractor = (Id, Vec<Fact>);

/// Hands out distractors for one question, the hardest first.
#[derive(Debug)]
pub(super) struct Distractors {
    /// Taken from the end.
    queue: Vec<Distractor>,
    taken: Vec<Id>,
    gold: Vec<Id>,
}

impl Distractors {
    /// Makes twins of the gold things and finds their neighbours.
    pub(super) fn new(world: &mut World, question: &Question) -> Self {
        let gold = question.things();
        let mut queue = twins(world, question);
        let near = |thing: &Id| {
            let prose = world.prose(*thing);
            let relations = prose.near.iter();
            relations
                .flat_map(|what| world.related(*thing, what))
                .collect::<Vec<_>>()
        };
        let mut neighbours: Vec<_> = gold.iter().flat_map(near).collect();
        world.dice.shuffle(&mut neighbours);
        queue.extend(neighbours.into_iter().map(|thing| (thing, vec![])));
        queue.reverse();
        Self {
            queue,
            taken: gold.clone(),
            gold,
        }
    }

    /// The next distractor; there is always another.
    pub(super) fn next(&mut self, world: &mut World) -> Distractor {
        loop {
            // Twins and neighbours thin out in favour of strangers, or all would be one family.
            let stranger = self.queue.is_empty() || (self.taken.len() > 6 && world.dice.chance(50));
            if stranger {
                let cluster = strangers(world, &self.gold);
                self.queue
                    .extend(cluster.into_iter().rev().map(|thing| (thing, vec![])));
            }
            if let Some(next) = self.queue.pop()
                && !self.taken.contains(&next.0)
            {
                self.taken.push(next.0);
                return next;
            }
        }
    }
}

/// For every gold fact a twin of its thing that has a fact of the same kind.
fn twins(world: &mut World, question: &Question) -> Vec<Distractor> {
    let mut twins: HashMap<Id, Id> = HashMap::new();
    let mut made = Vec::new();
    // People first, so that a work's twin can be by its maker's twin.
    for people in [true, false] {
        for (thing, fact) in &question.gold {
            let kind = world.things[*thing].kind;
            if (kind == Kind::Person) != people {
                continue;
            }
            let twin = match twins.get(thing) {
                Some(twin) => *twin,
                None => twin(world, *thing, &twins),
            };
            if people {
                world.equip(twin, fact.what);
            }
            twins.insert(*thing, twin);
            let says = world.fact(twin, fact.what).into_iter().collect();
            made.push((twin, says));
        }
    }
    made
}

/// A new thing that is easily confused with another.
fn twin(world: &mut World, id: Id, twins: &HashMap<Id, Id>) -> Id {
    let of = &world.things[id];
    let (country, key) = (of.country, of.key.clone());
    match of.kind {
        Kind::Person => twin_person(world, id),
        kind @ (Kind::Film | Kind::Book | Kind::Song) => {
            let same_frame = world.dice.chance(50);
            let by = world.link(id, "maker").and_then(|by| twins.get(&by));
            let by = match by {
                Some(twin) => *twin,
                None => world.maker(kind, Some(country)),
            };
            world.work(kind, by, Some((id, same_frame)))
        }
        Kind::School => world.school(country, Some(key)),
        Kind::Firm => {
            let business = world.word(id, "business");
            let mut kinds = Kind::WORKS.into_iter();
            let produced = kinds.find(|kind| world.data.of(*kind).producer.1 == business);
            world.firm(country, produced.map(|kind| (kind, 1935)))
        }
        Kind::Town => world.town(country),
        Kind::River => {
            let tributary = world.link(id, "mouth").is_some();
            world.river(country, tributary)
        }
    }
}

/// Somebody of the same trade and country who shares a name with `id`.
fn twin_person(world: &mut World, id: Id) -> Id {
    let of = &world.things[id];
    let share_family = world.dice.chance(60);
    let born = (world.born(id) + world.dice.between(-12, 12)).clamp(1840, 1950);
    let wanted = Wanted {
        trade: Some(world.word(id, "trade")),
        born: Some(born),
        family: share_family.then(|| of.key.clone()),
        frame: (!share_family).then(|| of.frame.clone()),
        female: (!share_family).then(|| world.is_female(id)),
        ..Wanted::of(of.country)
    };
    let twin = world.person(wanted);
    world.give_parents(twin);
    if world.dice.chance(60) {
        world.give_spouse(twin);
    }
    twin
}

/// New things that have nothing to do with the question, mostly of the kinds it is about.
fn strangers(world: &mut World, gold: &[Id]) -> Vec<Id> {
    let country = world.some_country();
    let alike = world.dice.chance(65);
    let like = if alike { world.dice.pick(gold) } else { None };
    let other = world.dice.below(6);
    let kind = match (like, other) {
        (Some(id), _) => world.things[id].kind,
        (None, 0) => Kind::River,
        (None, 1) => Kind::Town,
        (None, 2) => Kind::Firm,
        (None, 3) => Kind::Person,
        (None, _) => world.some_kind(),
    };
    let (thing, leads) = match kind {
        Kind::Film | Kind::Book | Kind::Song => return work_and_maker(world, kind),
        Kind::Person => {
            let trade = like.map(|id| world.word(id, "trade"));
            return related_people(world, trade);
        }
        Kind::River => (world.river(country, true), "mouth"),
        Kind::Town => return vec![world.town(country)],
        Kind::School => return vec![world.school(country, None)],
        Kind::Firm => (world.firm(country, None), "maker"),
    };
    [thing]
        .into_iter()
        .chain(world.link(thing, leads))
        .collect()
}

fn work_and_maker(world: &mut World, kind: Kind) -> Vec<Id> {
    let person = world.maker(kind, None);
    vec![world.work(kind, person, None), person]
}

/// Two related people; works make it natural to be a director, so that trade brings a work along.
fn related_people(world: &mut World, trade: Option<&'static str>) -> Vec<Id> {
    let mut kinds = Kind::WORKS.into_iter();
    if let Some(kind) = kinds.find(|kind| trade == Some(world.data.of(*kind).trade)) {
        let mut things = work_and_maker(world, kind);
        things.reverse();
        return things;
    }
    let person = world.person(Wanted {
        trade,
        ..Wanted::default()
    });
    let (father, mother) = world.give_parents(person);
    let spouse = world.give_spouse(person);
    if world.dice.chance(50) {
        world.give_school(person);
    }
    let other = world.dice.pick(&[father, mother, spouse]).unwrap_or(spouse);
    vec![person, other]
}
