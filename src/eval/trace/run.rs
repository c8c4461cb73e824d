//! A trace on disk, method by method and repeat by repeat.

use super::super::comparison::FULL;
use super::measure::TracedPrompt;
use super::rows::{steps_table, times_table};
use super::settings::TraceSettings;
use crate::error::Result;
use crate::run::RunFolder;

/// A run that fills a folder, a part per repeat and method.
pub type TraceRun = RunFolder<TraceSettings>;

/// A method's turn in a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index of the method.
    pub method: usize,
    /// Which repeat, from 0.
    pub repeat: usize,
    /// Index of the part that its rows are.
    pub part: usize,
}

/// The turns of all methods in the order in which they are taken: in opposite orders in every other repeat, so that what
/// slows the machine down, or warms it up, hits all alike.
pub fn turns(methods: usize, repeats: usize) -> Vec<Turn> {
    let of_repeat = |repeat: usize| {
        let turn = move |method| Turn {
            method,
            repeat,
            part: repeat * methods + method,
        };
        let mut turns: Vec<Turn> = (0..methods).map(turn).collect();
        if repeat % 2 == 1 {
            turns.reverse();
        }
        turns
    };
    (0..repeats).flat_map(of_repeat).collect()
}

impl RunFolder<TraceSettings> {
    /// Lets a method take its turn and writes the rows of it: what repeats, in the first repeat alone, and its times.
    ///
    /// Errors: as [`TracedPrompt::write`], and those of writing; nothing is kept of the turn then.
    pub fn measure(
        &self,
        turn: Turn,
        prompt: &TracedPrompt<'_>,
        on_step: &mut dyn FnMut(),
    ) -> Result<()> {
        let method = &prompt.methods()[turn.method];
        let budget = prompt.budget_of(method);
        let budget = budget.map_or(FULL.to_owned(), |budget| budget.to_string());
        let written = prompt.write(turn.method, on_step)?;
        let steps = if turn.repeat == 0 {
            &written.steps[..]
        } else {
            &[]
        };
        let tables = [
            steps_table(&method.name, &budget, steps),
            times_table(&method.name, turn.repeat, &written.ms),
        ];
        self.write(turn.part, &tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_take_turns_in_opposite_orders() {
        let all = turns(3, 2);
        let of = |part: fn(&Turn) -> usize| all.iter().map(part).collect::<Vec<_>>();
        assert_eq!(of(|t| t.method), [0, 1, 2, 2, 1, 0]);
        assert_eq!(of(|t| t.repeat), [0, 0, 0, 1, 1, 1]);
        assert_eq!(of(|t| t.part), [0, 1, 2, 5, 4, 3]);
    }
}
