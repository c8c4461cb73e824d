//! Bytes, or time per token, while a long text is written: what each method holds, and whether it gets slower.

use super::chart::Chart;
use super::figure::{Axis, Description, Entry, Key, Look, Marks, OTHERS, Pen, Point, REFERENCE};
use super::figure::{Series, Shape, Sharing, Words, figure_width, from_zero_or_log, number};
use super::figure::{heading_room, label_count, spread_ends};
use super::options::{ChartOption as Opt, ChartOptions};
use super::outcomes::{FULL, budget_words, shown_methods};
use super::over_length::threads;
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::eval::trace::{MethodTrace, Step, Trace};

/// What [`ChartOptions::metric`] may be.
const METRICS: [&str; 2] = ["bytes", "ms"];

/// Lines of bytes, and bands of times, that can lie over each other; more methods have a panel each.
const TOGETHER: [usize; 2] = [7, 3];

/// Height of a panel of all methods, and of one of several, in points.
const HEIGHTS: [f64; 2] = [135.0, 64.0];
const LEAST_PANEL: f64 = 84.0;

/// Room that a label needs along the horizontal axis, in points.
const LABEL: f64 = 26.0;

/// Points of a line of bytes: enough to show every rise and fall.
const FINE: usize = 500;

/// Windows of steps whose times become a median each.
const WINDOWS: usize = 30;

/// The full cache's line.
const FULL_CACHE: &str = "full cache";

/// What is resident at every step, and what is offloaded where anything is (broken lines, hollow markers), beside the
/// full cache; or with [`ChartOptions::metric`] `ms` the median time per token of each of thirty windows of steps, over
/// all repeats, with its quartiles.
///
/// Methods that hold the same bytes at every step share a line. More than seven lines, or three bands, have a panel each,
/// in front of the others in grey.
/// Units: MB (10^6 bytes) or milliseconds, from 0, or logarithmic where they span a decade or [`ChartOptions::log`] asks
/// for it; tokens written behind the prompt.
/// Errors: [`Error::UnknownName`] for another metric than `bytes` and `ms`, or a method that is not there;
/// [`Error::Invalid`] for no method besides the full cache.
pub(super) const CHART: Chart = Chart {
    name: "residency",
    about: "bytes of every method's cache while a long text is written, or its time per token",
    needs: "1 trace of kvprof trace with 1 to 24 methods besides full",
    reads: &[Opt::Metric, Opt::Methods, Opt::Log],
    takes: SourceKind::Traces,
    describe,
};

/// What is drawn under one name.
struct Drawn {
    name: Words,
    /// Resident bytes, or times.
    main: Vec<Point>,
    /// Offloaded bytes; nothing where nothing is.
    aside: Vec<Point>,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let trace: &Trace = CHART.only(all)?;
    let times = match options.metric.as_deref().unwrap_or(METRICS[0]) {
        "bytes" => false,
        "ms" => true,
        other => return Err(Error::unknown("metric of residency", other, METRICS)),
    };
    let names = trace.methods.iter().map(|method| &*method.name);
    let names = shown_methods(CHART.name, names, options.methods.as_deref())?;
    let of_name = |name: &&str| trace.methods.iter().find(|method| method.name == **name);
    let methods: Vec<&MethodTrace> = names.iter().filter_map(of_name).collect();
    let (points, drawn): (fn(&MethodTrace) -> Vec<Point>, _) = if times {
        (over_windows, methods.into_iter().map(timed).collect())
    } else {
        (resident, by_bytes(&methods))
    };
    let full = of_name(&FULL).map(points).unwrap_or_default();
    let width = figure_width(options.width)?;
    let most = TOGETHER[usize::from(times)];
    let sharing = Sharing::of(drawn.len(), most, HEIGHTS, width, LEAST_PANEL);
    let lines = Lines::of(&drawn, full, sharing);
    let ends = spread_ends(lines.all().chain([&lines.full]));
    let log = options.log || Axis::needs_log(ends.0, ends.1);
    let y = from_zero_or_log(ends, log, sharing.height)?;
    let y = y.called(match (times, sharing.together) {
        (true, true) => "Time per token (ms)",
        (true, false) => "ms per token",
        (false, _) => "KV cache (MB)",
    });
    let room = heading_room(width) / sharing.columns as i32;
    let written = trace.meta.settings.new_tokens as f64;
    let x = Axis::from_zero(written, label_count(room, LABEL).min(6)).called("Tokens written");
    let named: Vec<Words> = drawn.iter().map(|drawn| drawn.name.clone()).collect();
    let panels = sharing.panels((&x, &y), &named, |own| lines.shapes(own));
    let about = if times {
        "Time per token while a text is written"
    } else {
        "KV cache while a text is written"
    };
    let mut entries = lines.entries(&named, sharing);
    entries.extend(times.then(|| lines.band_entry(trace)));
    Ok(Description {
        facts: facts(trace, times),
        entries,
        panels,
        columns: sharing.columns,
        ..Description::new(about, width)
    })
}

/// Model and prompt; of times also where they were taken.
fn facts(trace: &Trace, times: bool) -> Vec<Words> {
    let (model, settings) = (&trace.meta.model, &trace.meta.settings);
    let mut facts = vec![format!("{}, {}", model.name, trace.meta.data.name)];
    let tokens = number(settings.prompt_tokens as f64);
    let mut prompt = format!("prompt of T = {tokens} tokens");
    if let Some(budget) = &settings.budget {
        prompt = format!("{prompt}, {}", budget_words(budget));
    }
    facts.push(prompt);
    if times {
        let device = model.device.to_lowercase();
        facts.push(format!(
            "{} on {device}, {}",
            model.dtype,
            threads(settings.threads)
        ));
    }
    facts.into_iter().map(Words::from).collect()
}

/// The points of a line over steps: so many that every rise and fall shows, the last among them; values of 0 are left out.
fn over_steps(steps: &[Step], bytes: fn(&Step) -> usize) -> Vec<Point> {
    let (apart, last) = (
        steps.len().div_ceil(FINE).max(1),
        steps.len().saturating_sub(1),
    );
    let chosen = steps.iter().enumerate();
    let chosen = chosen.filter(|(s, step)| (s % apart == 0 || *s == last) && bytes(step) > 0);
    let point = |(s, step): (usize, &Step)| Point::alone((s + 1) as f64, bytes(step) as f64 / 1e6);
    chosen.map(point).collect()
}

fn resident(method: &MethodTrace) -> Vec<Point> {
    over_steps(&method.steps, |step| step.bytes.resident)
}

fn over_windows(method: &MethodTrace) -> Vec<Point> {
    let windows = method.time_windows(WINDOWS).into_iter();
    let point = |w: crate::eval::trace::TimeWindow| {
        Point::between(w.middle + 1.0, w.median, (w.lower, w.upper))
    };
    windows.map(point).collect()
}

fn timed(method: &MethodTrace) -> Drawn {
    Drawn {
        name: Words::from(&method.name),
        main: over_windows(method),
        aside: Vec::new(),
    }
}

/// A line for all methods that hold the same bytes at every step.
fn by_bytes(methods: &[&MethodTrace]) -> Vec<Drawn> {
    let same = |a: &MethodTrace, b: &MethodTrace| {
        let bytes = |method: &MethodTrace| method.steps.iter().map(|s| s.bytes).collect::<Vec<_>>();
        bytes(a) == bytes(b)
    };
    let mut groups: Vec<Vec<&MethodTrace>> = Vec::new();
    for method in methods {
        match groups.iter_mut().find(|group| same(group[0], method)) {
            Some(group) => group.push(method),
            None => groups.push(vec![method]),
        }
    }
    let drawn = |group: Vec<&MethodTrace>| Drawn {
        name: joined(&group.iter().map(|method| &*method.name).collect::<Vec<_>>()),
        main: resident(group[0]),
        aside: over_steps(&group[0].steps, |step| step.bytes.offloaded),
    };
    groups.into_iter().map(drawn).collect()
}

/// Several names as one: all of them, what tells them apart behind what they begin with, or the first and how many more.
fn joined(names: &[&str]) -> Words {
    let [first, others @ ..] = names else {
        return Words::default();
    };
    if others.is_empty() {
        return Words::from(first);
    }
    let common = others.iter().fold(first.len(), |common, other| {
        let same = first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
        common.min(same.count())
    });
    let cut = first[..first.floor_char_boundary(common)].rfind(['+', '-', '(']);
    let start = cut.map_or(0, |cut| cut + 1);
    let ends: Vec<&str> = names.iter().map(|name| &name[start..]).collect();
    Words::of([
        names.join(", "),
        format!("{}{{{}}}", &first[..start], ends.join(", ")),
        format!("{first} and {} more", others.len()),
    ])
}

/// The series of all methods, each with its pen.
struct Lines {
    full: Series,
    main: Vec<Series>,
    aside: Vec<Series>,
}

impl Lines {
    fn of(drawn: &[Drawn], full: Vec<Point>, sharing: Sharing) -> Self {
        let pen = |index: usize| sharing.pen(index).filled().solid();
        let all = || drawn.iter().enumerate();
        let hollow = |points: &[Point]| points.iter().map(|p| p.looking(Look::Hollow)).collect();
        Self {
            full: Series::banded(REFERENCE, full),
            main: all()
                .map(|(index, own)| Series::banded(pen(index), own.main.clone()))
                .collect(),
            aside: all()
                .map(|(index, own)| Series::banded(pen(index).broken(), hollow(&own.aside)))
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Series> {
        self.main.iter().chain(&self.aside)
    }

    /// What a panel shows: one method in front of the others in grey, or all.
    fn shapes(&self, own: Option<usize>) -> Vec<Shape> {
        let path = |series: &Series| series.points.iter().map(|p| (p.x, p.middle)).collect();
        let mut shapes = Vec::new();
        if let Some(own) = own {
            let others = (0..self.main.len()).filter(|other| *other != own);
            let others = others.map(|other| &self.main[other]);
            shapes.extend(others.map(|other| Shape::line(Pen::plain(OTHERS, 0.5), path(other))));
        }
        shapes.push(Shape::line(REFERENCE, path(&self.full)));
        let (shown, marks) = match own {
            None => (self.all().cloned().collect(), Marks::InTurn),
            Some(own) => (
                vec![self.main[own].clone(), self.aside[own].clone()],
                Marks::InTurn,
            ),
        };
        let shown: Vec<Series> = shown;
        let shown = shown.into_iter().filter(|series| !series.points.is_empty());
        shapes.push(Shape::Series(shown.collect(), marks));
        shapes
    }

    /// The legend: every line by its name, or what one of several panels holds.
    fn entries(&self, named: &[Words], sharing: Sharing) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        if !self.full.points.is_empty() {
            entries.push((Key::Line(REFERENCE), FULL_CACHE.into()));
        }
        let offloaded = |series: &Series| Key::Hollow(series.pen);
        if !sharing.together {
            entries.push((Key::Series(self.main[0].pen), "the method named".into()));
            let first = self.aside.iter().find(|series| !series.points.is_empty());
            entries.extend(first.map(|series| (offloaded(series), "offloaded".into())));
            entries.push((Key::Line(Pen::plain(OTHERS, 0.6)), "the others".into()));
            return entries;
        }
        for (index, name) in named.iter().enumerate() {
            entries.push((Key::Series(self.main[index].pen), name.clone()));
            let aside = &self.aside[index];
            if !aside.points.is_empty() {
                let words = name.clone().before(", offloaded".to_owned());
                entries.push((offloaded(aside), words));
            }
        }
        entries
    }

    /// The legend's entry for medians with their quartiles.
    fn band_entry(&self, trace: &Trace) -> Entry {
        let settings = &trace.meta.settings;
        let steps = number(settings.new_tokens.div_ceil(WINDOWS) as f64);
        let of = match settings.repeats {
            1 => format!("{steps} steps"),
            repeats => format!("{steps} steps in {} repeats", number(repeats as f64)),
        };
        let words = Words::of([
            format!("medians and quartiles of {of}"),
            format!("quartiles of {of}"),
        ]);
        match self.main.iter().find(|series| series.is_spread()) {
            Some(series) => (Key::bands(std::slice::from_ref(series)), words),
            None => (Key::Note, words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::figure::points;

    #[test]
    fn names_of_one_line_are_joined_as_room_allows() {
        let names = ["snapkv+evict-h2o", "snapkv+evict-tova"];
        let within = |room: f64| joined(&names).within(points(room));
        assert_eq!(within(400.0), "snapkv+evict-h2o, snapkv+evict-tova");
        assert_eq!(within(110.0), "snapkv+evict-{h2o, tova}");
        assert_eq!(
            joined(&["full+cache(q4)"]).within(points(400.0)),
            "full+cache(q4)"
        );
        assert_eq!(joined(&["h2o", "tova"]).within(points(400.0)), "h2o, tova");
    }
}
