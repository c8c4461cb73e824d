//! How many tokens of a prompt the KV heads of each layer can use.

use super::geometry::Geometry;

/// What a layer can use of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LayerRoom {
    /// The most tokens that a KV head can use.
    most: usize,
    /// Whether its tokens are part of the budget; otherwise it keeps all that it can use.
    takes_part: bool,
}

/// What every layer of a model can use of a prompt.
///
/// Paper: none: house definition. Units: tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    tokens: usize,
    /// One per layer; none where every layer takes part and can use all of the prompt.
    layers: Vec<LayerRoom>,
}

impl From<usize> for Room {
    /// A prompt of so many tokens, all of which every layer can use.
    fn from(tokens: usize) -> Self {
        Self {
            tokens,
            layers: Vec::new(),
        }
    }
}

impl Geometry {
    /// What every layer can use of a prompt of `tokens`; layers with a window take part unless they are kept whole.
    pub fn room(&self, whole_windows: bool, tokens: usize) -> Room {
        Room::of(self, whole_windows, tokens)
    }
}

impl Room {
    /// The room of a model for a prompt of `tokens`; layers with a window take part unless they are kept whole.
    pub fn of(geometry: &Geometry, whole_windows: bool, tokens: usize) -> Self {
        let layer = |window: &Option<usize>| LayerRoom {
            most: window.map_or(tokens, |window| window.min(tokens)),
            takes_part: window.is_none() || !whole_windows,
        };
        Self {
            tokens,
            layers: geometry.windows.iter().map(layer).collect(),
        }
    }

    /// T.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    fn layer(&self, layer: usize) -> LayerRoom {
        let everything = LayerRoom {
            most: self.tokens,
            takes_part: true,
        };
        self.layers.get(layer).copied().unwrap_or(everything)
    }

    /// The most tokens that a KV head of a layer can use.
    pub fn most(&self, layer: usize) -> usize {
        self.layer(layer).most
    }

    /// Whether the tokens of a layer are part of the budget.
    pub fn takes_part(&self, layer: usize) -> bool {
        self.layer(layer).takes_part
    }

    /// KV heads whose tokens are part of the budget, and the most tokens that they can use together.
    pub fn of_parts(&self, layers: usize, kv_heads: usize) -> (usize, usize) {
        let parts = (0..layers).filter(|&layer| self.takes_part(layer));
        let (count, most) = parts.fold((0, 0usize), |(count, most), layer| {
            (count + 1, most.saturating_add(self.most(layer)))
        });
        (count * kv_heads, most.saturating_mul(kv_heads))
    }
}
