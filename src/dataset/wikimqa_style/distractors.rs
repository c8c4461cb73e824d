//! What else the context speaks of: twins of the gold things, their neighbours, and strangers of
//! the same kinds, so that no question can be answered by its shape alone.

use super::data::Kind;
use super::question::Question;
use super::world::{Fact, Facts, Id, World};

/// A thing that gets a passage, and what its passage must say to be a good distractor.
type Distractor = (Id, Option<Fact>);

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
        let mut neighbours = Vec::new();
        for thing in &gold {
            for what in &world.prose(*thing).near {
                neighbours.extend(world.related(*thing, what));
            }
        }
        world.dice.shuffle(&mut neighbours);
        queue.extend(neighbours.into_iter().map(|thing| (thing, None)));
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
            if self.queue.is_empty() || (self.taken.len() > 6 && world.dice.chance(50)) {
                let things = strangers(world, &self.gold).into_iter().rev();
                self.queue.extend(things.map(|thing| (thing, None)));
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
    let mut made = Vec::new();
    // People first, so that a work's twin can be by its maker's twin.
    for people in [true, false] {
        for (thing, fact) in &question.gold {
            if people == (world.prose(*thing).noun == "person") {
                let twin = world.twin(*thing);
                world.equip(twin, fact.what);
                made.push((twin, world.fact(twin, fact.what)));
            }
        }
    }
    made
}

/// New things that have nothing to do with the question, mostly of the kinds it is about.
fn strangers(world: &mut World, gold: &[Id]) -> Vec<Id> {
    let country = Facts::from([("country", world.some_country())]);
    let alike = world.dice.chance(65);
    let like = if alike { world.dice.pick(gold) } else { None };
    let other = world.dice.pick(&world.data.strangers);
    let kind = match like {
        Some(id) => world.things[id].kind,
        None => world.some_kind(other.unwrap_or(Kind::Person)),
    };
    let mut recipes = world.data.recipes(kind);
    let Some(rule) = recipes.find_map(|recipe| recipe.stranger.as_ref()) else {
        return vec![];
    };
    let given = if rule.here { country } else { Facts::new() };
    let with = if like.is_some() { &rule.with[..] } else { &[] };
    let thing = world.make_with(rule.kind, given, with, like.unwrap_or(0));
    let beside = world.dice.word(&rule.beside);
    let mut things = vec![thing];
    things.extend(world.link(thing, beside));
    if rule.beside_first {
        things.reverse();
    }
    things
}
