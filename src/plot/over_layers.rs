//! The layers of several models along one axis.

use super::figure::{Axis, Entry, Key, Look, Point, Series};
use super::layer_windows::{Windows, sentence, shown, words};
use super::options::Depth;
use crate::profile::Profile;
use crate::run::ModelRecord;

/// Models whose layers share an axis.
#[derive(Debug)]
pub(super) struct OverLayers<'m> {
    models: Vec<&'m ModelRecord>,
    depth: Depth,
}

impl<'m> OverLayers<'m> {
    /// The models of `profiles`, at the depth `asked` for; else by index where all have as many layers.
    pub(super) fn of(profiles: &[&'m Profile], asked: Option<Depth>) -> Self {
        let models: Vec<&ModelRecord> = profiles.iter().map(|p| &p.meta.model).collect();
        let mut pairs = models.windows(2);
        let alike = pairs.all(|pair| pair[0].num_layers == pair[1].num_layers);
        let usual = if alike { Depth::Index } else { Depth::Relative };
        Self {
            models,
            depth: asked.unwrap_or(usual),
        }
    }

    fn windows(&self) -> impl Iterator<Item = &'m Windows> {
        self.models.iter().map(|model| &model.windows[..])
    }

    /// Series of a value for every layer of a model, each with its index, the next pen, and its points where their layers
    /// lie; hollow markers are kept for layers with a window where there are any.
    pub(super) fn series(&self, all: impl IntoIterator<Item = (usize, Vec<Point>)>) -> Vec<Series> {
        let any = self.windows().flatten().any(Option::is_some);
        let placed = all.into_iter().map(|(index, points)| {
            let model = self.models.get(index);
            let windows = model.map_or(&[][..], |model| &model.windows);
            self.placed(shown(points, windows, Look::Hollow))
        });
        let mut series = Series::each(placed);
        for own in series.iter_mut().filter(|_| any) {
            own.pen = own.pen.filled();
        }
        series
    }

    /// The points of a model's layers where they lie; a lone layer lies at the beginning.
    fn placed(&self, mut points: Vec<Point>) -> Vec<Point> {
        let last = points.len().saturating_sub(1).max(1) as f64;
        if self.depth == Depth::Relative {
            points.iter_mut().for_each(|point| point.x /= last);
        }
        points
    }

    /// The horizontal axis of `series` in a figure `width` units wide with so many columns of panels.
    pub(super) fn axis(&self, series: &[Series], width: i32, columns: usize) -> Axis {
        match self.depth {
            Depth::Index => Axis::layers(Series::longest(series), width, columns, 0.0),
            Depth::Relative => Axis::relative_depth(width, columns, 0.0),
        }
    }

    /// The legend's entry for layers with a window, with the pen of the first of `series` that has some.
    pub(super) fn entry<'s>(&self, series: impl IntoIterator<Item = &'s Series>) -> Option<Entry> {
        let hollow = |series: &&Series| series.points.iter().any(|p| p.look == Look::Hollow);
        let first = series.into_iter().find(hollow)?;
        Some((Key::Hollow(first.pen), words("hollow", self.windows())?))
    }

    /// For screen readers: `what` is shown, of which models where there are several, how deep layers are where that is not
    /// their index, and which have a window.
    pub(super) fn about(&self, what: &str) -> String {
        let depth = match self.depth {
            Depth::Index => "",
            Depth::Relative => " against relative depth",
        };
        format!(
            "{what}{depth}{}",
            about_models(&self.models, "hollow markers")
        )
    }
}

/// The names of `models` where there are several, and which of their layers, told by looking `how`, have a window.
pub(super) fn about_models(models: &[&ModelRecord], how: &str) -> String {
    let names: Vec<&str> = models.iter().map(|model| &*model.name).collect();
    let named = match names.split_last() {
        Some((last, others)) if !others.is_empty() => {
            format!(" of {} and {last}", others.join(", "))
        }
        _ => String::new(),
    };
    let windows = models.iter();
    let windows = windows.map(|model| sentence(how, &model.name, &model.windows));
    named + &windows.collect::<String>()
}
