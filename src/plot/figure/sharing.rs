//! What is compared: in one panel where it is little, else with a panel each.

use super::axis::Axis;
use super::description::Panel;
use super::grid::grid_columns;
use super::heading::{Entry, Key, keys};
use super::pen::{PENS, Pen};
use super::shapes::Shape;
use super::words::Words;

/// Whether things that are compared share a panel, and how large panels are.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Whether all lie in one panel.
    pub together: bool,
    /// Height of a panel in points.
    pub height: f64,
    /// Panels in a row.
    pub columns: usize,
}

impl Sharing {
    /// Of `count` things in a figure `width` units wide: up to `most` share a panel of the first height, more have one each
    /// of the second, at least `least` points wide.
    pub fn of(count: usize, most: usize, heights: [f64; 2], width: i32, least: f64) -> Self {
        let together = count <= most;
        Self {
            together,
            height: heights[usize::from(!together)],
            columns: if together {
                1
            } else {
                grid_columns(width, least, count)
            },
        }
    }

    /// The pen of one of them: in a panel of its own that of the first.
    pub fn pen(self, index: usize) -> Pen {
        PENS[if self.together { index } else { 0 }]
    }

    /// The legend: their names, or `named` where those stand above the panels.
    pub fn keys(self, names: &[Words], named: &str) -> Vec<Entry> {
        if self.together {
            keys(names.iter().cloned())
        } else {
            vec![(Key::Series(PENS[0]), named.into())]
        }
    }

    /// The panels; `shapes` draws one of them in its own, or all where it is told none.
    pub fn panels(
        self,
        axes: (&Axis, &Axis),
        names: &[Words],
        shapes: impl Fn(Option<usize>) -> Vec<Shape>,
    ) -> Vec<Panel> {
        if self.together {
            return Panel::alone(axes, self.height, shapes(None));
        }
        let names = names.iter().cloned().enumerate();
        let shown = names.map(|(own, name)| (name, shapes(Some(own))));
        Panel::each(axes, self.height, shown)
    }
}
