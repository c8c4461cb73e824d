//! The KV cache: every KV head holds its own keys, values and positions.

mod elements;
mod head;
mod layer;
mod level_slots;
mod levels;
mod moved_rows;
mod packed;
mod representation;
mod representations;
mod rows;
mod side;

use candle_core::{Device, Tensor};

pub use elements::{Elements, Grouped, Levels, TokenBits};
pub use head::HeadCache;
pub use layer::{LayerCache, PackedHeads};
pub use level_slots::{LevelSlots, leave, move_down};
pub(super) use packed::PackedRows;
pub use representation::Representation;
pub use representations::Representations;
pub use side::Side;

use super::config::ModelConfig;
use crate::compute::memory;
use crate::error::{Error, Result};

/// The cache of a whole model.
///
/// Paper: none: house definition. Differs: lengths belong to heads, positions to tokens; the next
/// position is never derived from a length.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    next_position: usize,
    /// Tokens of the text that the first run belonged to.
    begun_for: usize,
    most_allocated: usize,
    /// The next position when a token last left.
    evicted_at: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens in every head.
    ///
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn new(
        config: &ModelConfig,
        capacity: usize,
        representation: Representation,
        device: &Device,
    ) -> Result<Self> {
        let heads = [config.num_key_value_heads, config.head_dim];
        let layers = config.layers.iter();
        let layers = layers
            .map(|kind| LayerCache::alike(heads, kind.window, capacity, representation, device));
        Ok(Self::of_layers(layers.collect::<Result<_>>()?, 0))
    }

    /// An empty cache of one layer of the model, at place 0, with room for `capacity` tokens in every head.
    ///
    /// Errors: as [`KvCache::new`].
    pub(super) fn of_layer(
        config: &ModelConfig,
        layer: usize,
        capacity: usize,
        representation: Representation,
        device: &Device,
    ) -> Result<Self> {
        let heads = [config.num_key_value_heads, config.head_dim];
        let window = config.layers[layer].window;
        let layer = LayerCache::alike(heads, window, capacity, representation, device)?;
        Ok(Self::of_layers(vec![layer], 0))
    }

    fn of_layers(layers: Vec<LayerCache>, next_position: usize) -> Self {
        let mut cache = Self {
            layers,
            next_position,
            begun_for: 0,
            most_allocated: 0,
            evicted_at: 0,
        };
        cache.most_allocated = cache.allocated_bytes();
        cache
    }

    /// A cache of one layer that holds tokens from position 0 on, keys and values `(H_kv, n, D)`.
    #[cfg(test)]
    pub(crate) fn filled(config: &ModelConfig, keys: &Tensor, values: &Tensor) -> Result<Self> {
        let tokens = keys.dim(1)?;
        let mut cache = Self::new(config, tokens, Representation::FLOAT32, &Device::Cpu)?;
        cache.append(0, keys, values)?;
        cache.advance(tokens)?;
        Ok(cache)
    }

    /// Adds tokens to the only layer without moving on, as a decoder does before attention.
    #[cfg(test)]
    pub(crate) fn come(&mut self, keys: &Tensor, values: &Tensor) -> Result<()> {
        self.append(0, keys, values)
    }

    /// Moves on by one token, as a decoder does after all layers.
    #[cfg(test)]
    pub(crate) fn pass(&mut self) -> Result<()> {
        self.advance(1)
    }

    /// The cache of layer `layer`.
    pub fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// The position in the text that the next token will have.
    pub fn next_position(&self) -> usize {
        self.next_position
    }

    /// Tokens of the prompt that it was begun with; some models rotate all of a long text by other frequencies.
    pub fn begun_for(&self) -> usize {
        self.begun_for
    }

    /// Sets the length of the prompt whose first tokens are about to come.
    pub(super) fn begin(&mut self, prompt_tokens: usize) {
        self.begun_for = prompt_tokens;
    }

    /// Keeps the listed slots of every KV head and frees the memory of the rest, layer by layer.
    ///
    /// Positions stay what they were; so does the next position.
    /// Shapes: `kept` `[layer][kv_head][slot]`, ascending. `room` is for tokens to come.
    /// Errors: [`Error::Invalid`] for other numbers of layers or heads, or slots that are not there;
    /// layers before the one at fault are then cut already.
    pub fn retain(&mut self, kept: &[Vec<Vec<u32>>], room: usize) -> Result<()> {
        self.retain_as(kept, room, &self.representations())
    }

    /// [`KvCache::retain`] with keys and values rounded or coded otherwise.
    ///
    /// Shapes and errors: as there.
    pub fn retain_as(
        &mut self,
        kept: &[Vec<Vec<u32>>],
        room: usize,
        held_as: &Representations,
    ) -> Result<()> {
        self.check_lists(kept)?;
        for (layer, kept) in kept.iter().enumerate() {
            let held_as = held_as.of_layer(layer, kept.len())?;
            let smaller = self.layers[layer].cut(kept, room, &held_as)?;
            self.replace(layer, smaller);
        }
        memory::return_freed();
        Ok(())
    }

    /// A cache of the listed slots only, in memory of its own; this one stays whole.
    ///
    /// Shapes and errors: as [`KvCache::retain`].
    pub fn cut(&self, kept: &[Vec<Vec<u32>>], room: usize) -> Result<Self> {
        self.cut_as(kept, room, &self.representations())
    }

    /// [`KvCache::cut`] with keys and values rounded or coded otherwise.
    ///
    /// Shapes and errors: as [`KvCache::retain`].
    pub fn cut_as(
        &self,
        kept: &[Vec<Vec<u32>>],
        room: usize,
        held_as: &Representations,
    ) -> Result<Self> {
        self.check_lists(kept)?;
        let layers = self.layers.iter().zip(kept).enumerate();
        let layers = layers
            .map(|(l, (layer, kept))| layer.cut(kept, room, &held_as.of_layer(l, kept.len())?));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self {
            begun_for: self.begun_for,
            evicted_at: self.evicted_at,
            ..Self::of_layers(layers, self.next_position)
        })
    }

    /// Lets the listed slots of a layer go, in place; the last tokens of a head take their places.
    ///
    /// Positions stay true, buffers stay as large as they are. There is no way back before this point.
    /// Shapes: `leaving` `[kv_head][slot]`, ascending.
    /// Errors: [`Error::Invalid`] for another number of heads, or slots that are not there; [`Error::Candle`] on
    /// devices other than the CPU.
    pub fn evict(&mut self, layer: usize, leaving: &[Vec<u32>]) -> Result<()> {
        let own = &mut self.layers[layer];
        if own.heads.len() != leaving.len() {
            let bound = format!("one per KV head is needed: {}", own.heads.len());
            return Err(Error::invalid("lists of slots", leaving.len(), bound));
        }
        if leaving.iter().any(|slots| !slots.is_empty()) {
            own.evict(leaving)?;
            self.evicted_at = self.next_position;
        }
        Ok(())
    }

    /// A whole copy in memory of its own, with room for `room` more tokens.
    ///
    /// Differs: there is no `Clone`, since tensors share their memory and caches must not.
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn copy(&self, room: usize) -> Result<Self> {
        self.cut(&self.slots(), room)
    }

    /// Frees all room but that of the tokens that are held and of `room` more, layer by layer.
    ///
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn compact(&mut self, room: usize) -> Result<()> {
        self.retain(&self.slots(), room)
    }

    /// Every slot that is held, `[layer][kv_head][slot]`.
    pub fn slots(&self) -> Vec<Vec<Vec<u32>>> {
        let head = |head: &HeadCache| (0..head.len() as u32).collect();
        let layer = |layer: &LayerCache| layer.heads.iter().map(head).collect();
        self.layers.iter().map(layer).collect()
    }

    /// Every slot that later tokens may see, `[layer][kv_head][slot]`: in layers with a window, those of its last
    /// tokens.
    pub fn slots_in_sight(&self) -> Vec<Vec<Vec<u32>>> {
        let layer = |layer: &LayerCache| {
            let head = |head| {
                let slots = layer.in_sight(head, self.next_position);
                (slots.start as u32..slots.end as u32).collect()
            };
            (0..layer.heads.len()).map(head).collect()
        };
        self.layers.iter().map(layer).collect()
    }

    /// The first slot in sight of every layer of a cache whose heads all hold the same tokens.
    pub fn firsts_in_sight(&self) -> Vec<usize> {
        let first = |layer: &LayerCache| layer.in_sight(0, self.next_position).start;
        self.layers.iter().map(first).collect()
    }

    /// Whether it holds tokens that no later one sees.
    pub fn hides(&self) -> bool {
        let mut layers = self.layers.iter();
        // The own key of the last token is not hidden from it.
        layers.any(|layer| layer.hides_from(self.next_position.saturating_sub(1)))
    }

    /// Forgets every token from `position` on, so that a text can be continued in another way.
    ///
    /// Room that the forgotten tokens took stays; the next position becomes `position`.
    /// Errors: [`Error::Invalid`] for a position that lies ahead, or before one at which a token left.
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        if position < self.evicted_at {
            let bound = format!(
                "tokens left the cache at {} and cannot be brought back",
                self.evicted_at
            );
            return Err(Error::invalid("position to go back to", position, bound));
        }
        if position > self.next_position {
            let bound = format!("the cache has only come to {}", self.next_position);
            return Err(Error::invalid("position to go back to", position, bound));
        }
        let heads = || self.layers.iter().flat_map(|l| &l.heads);
        if position < self.next_position && !heads().all(|head| head.can_forget_from(position)) {
            let bound = "tokens from there on are coded together with earlier ones and cannot be taken apart";
            return Err(Error::invalid("position to go back to", position, bound));
        }
        for head in self.layers.iter_mut().flat_map(|l| &mut l.heads) {
            head.forget_from(position);
        }
        self.next_position = position;
        Ok(())
    }

    fn check_lists<List>(&self, kept: &[Vec<List>]) -> Result<()> {
        let heads = self.layers.first().map_or(0, |l| l.heads.len());
        if kept.len() == self.layers.len() && kept.iter().all(|layer| layer.len() == heads) {
            return Ok(());
        }
        let bound = format!(
            "one per KV head is needed: {} layers of {heads}",
            self.layers.len()
        );
        Err(Error::invalid("lists of slots", kept.len(), bound))
    }

    /// In which elements every KV head holds keys and values.
    pub fn representations(&self) -> Representations {
        let layers = self.layers.iter().map(LayerCache::representations);
        Representations::of_heads(layers.collect())
    }

    /// Whether a position can be gone back to from any later one: no tokens are coded together.
    pub fn holds_tokens_alone(&self) -> bool {
        let mut heads = self.layers.iter().flat_map(|l| &l.heads);
        heads.all(|head| head.representation().holds_tokens_alone())
    }

    /// Tokens that may come in one pass and find the cache as if they came one by one.
    pub fn at_once(&self) -> usize {
        let heads = self.layers.iter().flat_map(|l| &l.heads);
        heads
            .map(HeadCache::until_coded)
            .min()
            .unwrap_or(usize::MAX)
    }

    /// KV heads of all layers.
    pub fn heads(&self) -> usize {
        self.layers.iter().map(|layer| layer.heads.len()).sum()
    }

    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Tokens held that later ones may see, `[layer][kv_head]`.
    pub fn lengths(&self) -> Vec<Vec<usize>> {
        let layer = |layer: &LayerCache| {
            let head = |head| layer.in_sight(head, self.next_position).len();
            (0..layer.heads.len()).map(head).collect()
        };
        self.layers.iter().map(layer).collect()
    }

    /// Tokens that the last of `steps` more tokens will see, itself among them, if nothing leaves until then,
    /// `[layer][kv_head]`.
    pub fn lengths_after(&self, steps: usize) -> Vec<Vec<usize>> {
        let then = self.next_position + steps;
        let layer = |layer: &LayerCache| {
            let coming = layer.window().map_or(steps, |window| window.min(steps));
            let head = |head| layer.in_sight(head, then).len() + coming;
            (0..layer.heads.len()).map(head).collect()
        };
        self.layers.iter().map(layer).collect()
    }

    /// Adds the keys and values `(H_kv, n, D)` of the next n tokens to one layer.
    pub(super) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        if let Some(larger) = self.layers[layer].grown(keys.dim(1)?)? {
            let larger = self.layers[layer].moved_into(larger)?;
            self.replace(layer, larger);
        }
        self.layers[layer].append(keys, values, self.next_position)
    }

    /// Puts a layer in the place of another one, which is there until then.
    fn replace(&mut self, layer: usize, other: LayerCache) {
        let both = self.allocated_bytes() + other.allocated_bytes();
        self.most_allocated = self.most_allocated.max(both);
        self.layers[layer] = other;
    }

    /// Moves on by `tokens` positions once every layer has them, and codes what is no longer among the newest.
    ///
    /// Errors: [`Error::NotFinite`] for numbers that have no code.
    pub(super) fn advance(&mut self, tokens: usize) -> Result<()> {
        self.next_position += tokens;
        // What waits in float16 is there until it is coded.
        self.most_allocated = self.most_allocated.max(self.allocated_bytes());
        self.layers.iter_mut().try_for_each(LayerCache::settle)
    }

    /// Bytes of the keys and values of all held tokens that later ones may see.
    ///
    /// Units: bytes; room kept for tokens to come is not counted, nor are tokens that a window has passed and that are
    /// never read again, see [`KvCache::allocated_bytes`].
    pub fn bytes(&self) -> usize {
        let of_layer = |layer: &LayerCache| -> usize {
            let heads = layer.heads.iter().enumerate();
            let held = |h| layer.in_sight(h, self.next_position).len();
            heads.map(|(h, head)| head.bytes_of_last(held(h))).sum()
        };
        self.layers.iter().map(of_layer).sum()
    }

    /// Bytes of the keys and values of `tokens` in every head of an empty cache; those of one are what a new token takes.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        let heads = self.layers.iter().flat_map(|l| &l.heads);
        heads.map(|head| head.bytes(tokens)).sum()
    }

    /// Bytes of the buffers, room for tokens to come included.
    pub fn allocated_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::allocated_bytes).sum()
    }

    /// The most bytes that its buffers ever took, a layer's old and new ones together while it was cut or grew.
    pub fn most_allocated_bytes(&self) -> usize {
        self.most_allocated
    }
}
