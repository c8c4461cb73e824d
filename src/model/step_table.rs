//! Where a layer's heads lie, as a decoding kernel reads it, kept on the device between steps.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;

use super::ragged_heads::{RaggedHead, RaggedHeads};
use crate::error::Result;

/// Steps that a table is made for, if the cache has room for them.
const STEPS: usize = 64;

/// A table that is made when it is first needed, and again when heads have moved or outgrown it.
#[derive(Default)]
pub(super) struct StepTable(Mutex<Option<Made>>);

struct Made {
    heads: Vec<RaggedHead>,
    room: usize,
    table: Arc<RaggedHeads>,
}

impl StepTable {
    /// The table of `heads`, and how many tokens came to each since it was made; `room` is how many more the
    /// buffers could hold.
    ///
    /// Errors: those of bringing a table to the device.
    pub(super) fn of(
        &self,
        heads: Vec<RaggedHead>,
        room: usize,
        device: &Device,
    ) -> Result<(Arc<RaggedHeads>, usize)> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && let Some(appended) = made.appended(&heads)
        {
            return Ok((made.table.clone(), appended));
        }
        let room = room.min(STEPS);
        let table = Arc::new(RaggedHeads::new(&heads, room, device)?);
        *made = Some(Made {
            heads,
            room,
            table: table.clone(),
        });
        Ok((table, 0))
    }
}

impl Made {
    /// Tokens that came to every head since, if all lie where they lay and none has outgrown the table.
    fn appended(&self, heads: &[RaggedHead]) -> Option<usize> {
        let first = heads.first()?.length;
        let appended = first.checked_sub(self.heads.first()?.length)?;
        let same = |(now, then): (&RaggedHead, &RaggedHead)| {
            now.start == then.start && now.length == then.length + appended
        };
        let alike = heads.len() == self.heads.len() && heads.iter().zip(&self.heads).all(same);
        (alike && appended <= self.room).then_some(appended)
    }
}

impl std::fmt::Debug for StepTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StepTable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(lengths: [usize; 2]) -> Vec<RaggedHead> {
        let head = |(start, length)| RaggedHead { start, length };
        [0, 100].into_iter().zip(lengths).map(head).collect()
    }

    #[test]
    fn a_table_serves_until_heads_move_or_outgrow_it() {
        let table = StepTable::default();
        let appended = |lengths| table.of(heads(lengths), 3, &Device::Cpu).unwrap().1;
        assert_eq!(appended([10, 20]), 0);
        assert_eq!(appended([11, 21]), 1);
        assert_eq!(appended([13, 23]), 3);
        assert_eq!(appended([14, 24]), 0, "outgrown: made anew");
        assert_eq!(appended([15, 25]), 1);
        assert_eq!(appended([12, 22]), 0, "rewound");
        assert_eq!(appended([13, 22]), 0, "another shape");
    }
}
