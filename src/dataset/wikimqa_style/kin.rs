//! Kinship that no passage states, to be inferred from two that do.

use super::world::{Fact, Id, Relation, Thing, World};

/// A relation between two people that takes two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// A parent of a parent: `father_side` names the child's parent, `female` the answer.
    Grandparent { father_side: bool, female: bool },
    /// A parent of the spouse.
    ParentInLaw { female: bool },
    /// A sibling of the spouse, or the spouse of a sibling.
    SiblingInLaw { female: bool },
    /// A sibling of a parent, or the spouse of one.
    ParentsSibling { father_side: bool, female: bool },
}

impl Kin {
    /// Every kinship that is asked for.
    pub(super) const ALL: [Self; 12] = [
        Self::Grandparent {
            father_side: true,
            female: false,
        },
        Self::ParentInLaw { female: false },
        Self::ParentsSibling {
            father_side: false,
            female: false,
        },
        Self::Grandparent {
            father_side: false,
            female: true,
        },
        Self::SiblingInLaw { female: true },
        Self::Grandparent {
            father_side: true,
            female: true,
        },
        Self::ParentsSibling {
            father_side: true,
            female: true,
        },
        Self::ParentInLaw { female: true },
        Self::Grandparent {
            father_side: false,
            female: false,
        },
        Self::SiblingInLaw { female: false },
        Self::ParentsSibling {
            father_side: false,
            female: true,
        },
        Self::ParentsSibling {
            father_side: true,
            female: false,
        },
    ];

    /// The English word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Grandparent {
                father_side: true,
                female: false,
            } => "paternal grandfather",
            Self::Grandparent {
                father_side: true,
                female: true,
            } => "paternal grandmother",
            Self::Grandparent {
                father_side: false,
                female: false,
            } => "maternal grandfather",
            Self::Grandparent {
                father_side: false,
                female: true,
            } => "maternal grandmother",
            Self::ParentInLaw { female: false } => "father-in-law",
            Self::ParentInLaw { female: true } => "mother-in-law",
            Self::SiblingInLaw { female: false } => "brother-in-law",
            Self::SiblingInLaw { female: true } => "sister-in-law",
            Self::ParentsSibling {
                father_side: true,
                female: false,
            } => "paternal uncle",
            Self::ParentsSibling {
                father_side: true,
                female: true,
            } => "paternal aunt",
            Self::ParentsSibling {
                father_side: false,
                female: false,
            } => "maternal uncle",
            Self::ParentsSibling {
                father_side: false,
                female: true,
            } => "maternal aunt",
        }
    }

    /// Everybody in the world who is this to `person`.
    pub(super) fn of(self, world: &World, person: Id) -> Vec<Id> {
        let parents = |id: Id| world.people[id].parents;
        let spouse = |id: Id| world.people[id].spouse.map(|(spouse, _)| spouse);
        let side = |father_side: bool, (father, mother): (Id, Id)| {
            if father_side { father } else { mother }
        };
        let (found, female): (Vec<Id>, bool) = match self {
            Self::Grandparent {
                father_side,
                female,
            } => {
                let parent = parents(person).map(|both| side(father_side, both));
                let both = parent.and_then(parents);
                (
                    both.map(|(father, mother)| vec![father, mother])
                        .unwrap_or_default(),
                    female,
                )
            }
            Self::ParentInLaw { female } => {
                let both = spouse(person).and_then(parents);
                (
                    both.map(|(father, mother)| vec![father, mother])
                        .unwrap_or_default(),
                    female,
                )
            }
            Self::SiblingInLaw { female } => {
                let mut found = spouse(person)
                    .map(|s| world.siblings(s))
                    .unwrap_or_default();
                found.extend(world.siblings(person).into_iter().filter_map(spouse));
                (found, female)
            }
            Self::ParentsSibling {
                father_side,
                female,
            } => {
                let parent = parents(person).map(|both| side(father_side, both));
                let blood = parent.map(|p| world.siblings(p)).unwrap_or_default();
                let married: Vec<_> = blood.iter().filter_map(|&s| spouse(s)).collect();
                ([blood, married].concat(), female)
            }
        };
        found
            .into_iter()
            .filter(|&id| world.people[id].female == female)
            .collect()
    }

    /// The two facts from which this follows, the person between, and the answer.
    pub(super) fn steps(self, world: &World, person: Id) -> Option<([Fact; 2], Id, Id)> {
        let parent = |id: Id, female: bool| {
            let (father, mother) = world.people[id].parents?;
            let what = if female {
                Relation::Mother
            } else {
                Relation::Father
            };
            Some((
                if female { mother } else { father },
                Fact {
                    of: Thing::Person(id),
                    what,
                },
            ))
        };
        let spouse = |id: Id| {
            let (other, _) = world.people[id].spouse?;
            Some((other, world.marriage(id, other)))
        };
        let sibling = |id: Id, female: bool| {
            let other = world
                .siblings(id)
                .into_iter()
                .find(|&s| world.people[s].female == female)?;
            Some((other, world.kinship(id, other)))
        };
        let ((between, first), (answer, second)) = match self {
            Self::Grandparent {
                father_side,
                female,
            } => {
                let step = parent(person, !father_side)?;
                (step, parent(step.0, female)?)
            }
            Self::ParentInLaw { female } => {
                let step = spouse(person)?;
                (step, parent(step.0, female)?)
            }
            Self::SiblingInLaw { female } => {
                let step = spouse(person)?;
                (step, sibling(step.0, female)?)
            }
            Self::ParentsSibling {
                father_side,
                female,
            } => {
                let step = parent(person, !father_side)?;
                (step, sibling(step.0, female)?)
            }
        };
        Some(([first, second], between, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::Wanted;
    use super::*;
    use crate::dataset::dice::Dice;

    #[test]
    fn every_kinship_is_found_in_a_family() {
        let mut dice = Dice::new(5, 0);
        let mut world = World::new(&mut dice);
        let child = world.person(&mut dice, Wanted::default());
        let spouse = world.give_spouse(&mut dice, child);
        let spouses_parents = world.give_parents(&mut dice, spouse);
        let sister_in_law = world.give_sibling(&mut dice, spouse, true);
        let (father, mother) = world.give_parents(&mut dice, child);
        let grandparents = world.give_parents(&mut dice, mother);
        let uncle = world.give_sibling(&mut dice, father, false);
        let aunt = world.give_spouse(&mut dice, uncle);

        let of = |kin: Kin| kin.of(&world, child);
        assert_eq!(of(Kin::ParentInLaw { female: true }), [spouses_parents.1]);
        assert_eq!(of(Kin::SiblingInLaw { female: true }), [sister_in_law]);
        assert!(of(Kin::SiblingInLaw { female: false }).is_empty());
        assert_eq!(
            of(Kin::Grandparent {
                father_side: false,
                female: false
            }),
            [grandparents.0]
        );
        assert_eq!(
            of(Kin::ParentsSibling {
                father_side: true,
                female: false
            }),
            [uncle]
        );
        assert_eq!(
            of(Kin::ParentsSibling {
                father_side: true,
                female: true
            }),
            [aunt]
        );
        let none = of(Kin::ParentsSibling {
            father_side: false,
            female: false,
        });
        assert!(none.is_empty());

        let (facts, between, answer) = Kin::ParentsSibling {
            father_side: true,
            female: false,
        }
        .steps(&world, child)
        .unwrap();
        assert_eq!((between, answer), (father, uncle));
        assert_eq!(
            facts[0],
            Fact {
                of: Thing::Person(child),
                what: Relation::Father
            }
        );
        assert_eq!(facts[1], world.kinship(uncle, father));
    }
}
