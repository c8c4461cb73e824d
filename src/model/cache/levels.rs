//! Caches whose tokens are held at two levels of precision.

use rayon::prelude::*;

use super::head::HeadCache;
use super::layer::LayerCache;
use super::level_slots::{LevelSlots, leave, move_down};
use super::representation::Representation;
use super::{KvCache, memory};
use crate::error::{Error, Result};

impl HeadCache {
    /// Tokens at the low level, which are the first that it holds.
    pub fn low_tokens(&self) -> usize {
        self.keys.packed().map_or(0, |keys| keys.low_rows())
    }

    fn take_levels(&mut self, source: &Self, slots: &LevelSlots) -> Result<()> {
        source.check_slots(&slots.low)?;
        source.check_slots(&slots.high)?;
        self.keys.take_levels(&source.keys, slots)?;
        self.values.take_levels(&source.values, slots)?;
        let kept = slots.low.iter().chain(&slots.high);
        self.positions = kept.map(|&slot| source.positions[slot as usize]).collect();
        Ok(())
    }

    fn let_go(&mut self, slot: usize) {
        let low = self.low_tokens();
        leave(&mut self.positions, slot, low);
        self.packed_sides().for_each(|rows| rows.swap_remove(slot));
    }

    fn demote(&mut self, slot: usize) -> Result<()> {
        let low = self.low_tokens();
        move_down(&mut self.positions, slot, low);
        self.packed_sides().try_for_each(|rows| rows.demote(slot))
    }
}

impl LayerCache {
    /// The listed slots at either level, each coded once from what is held.
    fn cut_levels(&self, kept: &[LevelSlots], held_as: Representation) -> Result<Self> {
        let held_as = vec![held_as; self.heads.len()];
        let mut smaller = self.empty(&vec![0; self.heads.len()], &held_as)?;
        let mut all: Vec<_> = smaller
            .heads
            .iter_mut()
            .zip(&self.heads)
            .zip(kept)
            .collect();
        all.par_iter_mut()
            .try_for_each(|((to, from), slots)| to.take_levels(from, slots))?;
        Ok(smaller)
    }
}

impl KvCache {
    /// A cache of the listed slots at two levels of precision; this one stays whole.
    ///
    /// Shapes: `kept` `[layer][kv_head]`. Errors: [`Error::Invalid`] for other numbers of layers or heads, slots that are
    /// not there, or elements without levels; [`Error::Unsupported`] for layers with a window; [`Error::NotFinite`] for numbers without a code.
    pub fn cut_levels(&self, kept: &[Vec<LevelSlots>], held_as: Representation) -> Result<Self> {
        self.check_levels(kept, held_as)?;
        let layers = self.layers.iter().zip(kept);
        let layers = layers.map(|(layer, kept)| layer.cut_levels(kept, held_as));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self {
            begun_for: self.begun_for,
            evicted_at: self.next_position,
            ..Self::of_layers(layers, self.next_position)
        })
    }

    /// [`KvCache::cut_levels`] in place, which frees the rest layer by layer.
    ///
    /// Errors: as there.
    pub fn retain_levels(
        &mut self,
        kept: &[Vec<LevelSlots>],
        held_as: Representation,
    ) -> Result<()> {
        self.check_levels(kept, held_as)?;
        for (layer, kept) in kept.iter().enumerate() {
            let smaller = self.layers[layer].cut_levels(kept, held_as)?;
            self.replace(layer, smaller);
        }
        self.evicted_at = self.next_position;
        memory::return_freed();
        Ok(())
    }

    fn check_levels(&self, kept: &[Vec<LevelSlots>], held_as: Representation) -> Result<()> {
        if !held_as.has_levels() {
            let bound = "keys and values need two levels of precision";
            return Err(Error::invalid("type of the cache", held_as, bound));
        }
        // A window finds its keys by positions that ascend, and tokens that change their level do not.
        if let Some(layer) = self
            .layers
            .iter()
            .position(|layer| layer.window().is_some())
        {
            return Err(Error::Unsupported {
                what: "two levels of precision for",
                found: format!("layer {layer}, which sees a window"),
                supported: "models whose layers all see the whole prompt".into(),
            });
        }
        self.check_lists(kept)
    }

    /// Lets one token of a KV head go whose tokens are held at two levels; [`leave`] does the same to a list.
    ///
    /// Errors: [`Error::Invalid`] for a slot that is not held, or a cache without levels.
    pub fn let_go(&mut self, layer: usize, kv_head: usize, slot: usize) -> Result<()> {
        self.with_level(layer, kv_head, slot)?.let_go(slot);
        self.evicted_at = self.next_position;
        Ok(())
    }

    /// Codes one token of a KV head at the low level; [`move_down`] does the same to a list.
    ///
    /// Errors: [`Error::Invalid`] for a slot that is not held at the high level.
    pub fn demote(&mut self, layer: usize, kv_head: usize, slot: usize) -> Result<()> {
        let head = self.with_level(layer, kv_head, slot)?;
        if slot < head.low_tokens() {
            let bound = format!(
                "slots from {} on are held at the high level",
                head.low_tokens()
            );
            return Err(Error::invalid("slot to be held in fewer bits", slot, bound));
        }
        head.demote(slot)?;
        self.evicted_at = self.next_position;
        Ok(())
    }

    fn with_level(&mut self, layer: usize, kv_head: usize, slot: usize) -> Result<&mut HeadCache> {
        let layers = self.layers.len();
        let bound =
            || format!("the cache has {layers} layers, and a slot for every token of a KV head");
        let head = self
            .layers
            .get_mut(layer)
            .and_then(|layer| layer.heads.get_mut(kv_head));
        match head {
            Some(head) if slot < head.len() && head.representation().has_levels() => Ok(head),
            _ => Err(Error::invalid(
                "slot of a KV head with levels",
                slot,
                bound(),
            )),
        }
    }
}
