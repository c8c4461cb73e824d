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
    let mut names: Vec<&str> = Vec::new();
    let mut windows = String::new();
    // A model may have several profiles.
    for model in models {
        if !names.contains(&&*model.name) {
            names.push(&model.name);
            windows += &sentence(how, &model.name, &model.windows);
        }
    }
    let named = match names.split_last() {
        Some((last, others)) if !others.is_empty() => {
            format!(" of {} and {last}", others.join(", "))
        }
        _ => String::new(),
    };
    named + &windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::figure::PENS;
    use crate::plot::tests::sample::Sample;

    fn profile(layers: usize, windows: Vec<Option<usize>>) -> Profile {
        let sample = Sample {
            tokens: vec![64],
            layers,
            windows,
            ..Sample::default()
        };
        sample.profile()
    }

    fn points(layers: usize) -> Vec<Point> {
        let layers = 0..layers;
        layers
            .map(|layer| Point::alone(layer as f64, 7.0))
            .collect()
    }

    #[test]
    fn layers_lie_at_their_index_or_between_0_and_1() {
        let (five, three) = (profile(5, Vec::new()), profile(3, Vec::new()));
        let lone = profile(1, Vec::new());
        let places = |profiles: &[&Profile], asked| {
            let layers = OverLayers::of(profiles, asked);
            let of = |profile: &&Profile| points(profile.meta.model.num_layers);
            let series = layers.series(profiles.iter().map(of).enumerate());
            let xs = |series: &Series| series.points.iter().map(|p| p.x).collect::<Vec<_>>();
            series.iter().map(xs).collect::<Vec<_>>()
        };
        let alike = places(&[&three, &three], None);
        assert_eq!(alike, [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]);
        let differing = places(&[&five, &three, &lone], None);
        assert_eq!(differing[0], [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(differing[1], [0.0, 0.5, 1.0]);
        assert_eq!(differing[2], [0.0], "not NaN");
        let index = places(&[&five, &three], Some(Depth::Index));
        assert_eq!(index[0][4], 4.0);
        assert_eq!(places(&[&three], Some(Depth::Relative)), [[0.0, 0.5, 1.0]]);
    }

    #[test]
    fn hollow_markers_have_one_meaning() {
        let global = profile(3, Vec::new());
        let local = profile(3, vec![Some(8), None, Some(8)]);
        let seven = |first| {
            let profiles = [[first].as_slice(), &[&global; 6]].concat();
            let layers = OverLayers::of(&profiles, None);
            let series = layers.series((0..7).map(|index| (index, points(3))));
            let entry = layers.entry(&series);
            (series, entry)
        };
        let pens = |series: &[Series]| series.iter().map(|s| s.pen).collect::<Vec<_>>();
        let (series, entry) = seven(&global);
        assert!(pens(&series) == PENS && entry.is_none());
        let (series, entry) = seven(&local);
        assert_eq!(pens(&series), PENS.map(|pen| pen.filled()));
        let looks = series[0].points.iter().map(|p| p.look);
        let looks: Vec<Look> = looks.collect();
        assert_eq!(looks, [Look::Hollow, Look::Filled, Look::Hollow]);
        assert_eq!(entry.unwrap().0, Key::Hollow(PENS[0]));
        assert!(series[6].points.iter().all(|p| p.look == Look::Filled));
    }
}
