//! Slots at two levels of precision, and lists that follow them.

/// The slots of a KV head that are kept at either level, each ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelSlots {
    /// Those at the low level, which come first.
    pub low: Vec<u32>,
    /// Those at the high level.
    pub high: Vec<u32>,
}

/// Takes a slot out of a list with an entry for every slot, `low` of them at the low level, as [`super::KvCache::let_go`] does:
/// the last one of its level takes its place.
pub fn leave<T>(of: &mut Vec<T>, slot: usize, low: usize) {
    if slot < low {
        of.swap(slot, low - 1);
        of.remove(low - 1);
    } else {
        of.swap_remove(slot);
    }
}

/// Moves a slot of such a list from the high level to the end of the low one, as [`super::KvCache::demote`] does.
pub fn move_down<T>(of: &mut Vec<T>, slot: usize, low: usize) {
    let moved = of.swap_remove(slot);
    of.insert(low, moved);
}
