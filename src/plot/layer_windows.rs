//! Layers that see a window of the prompt only: how figures over layers show them, and what they say of them.

use super::figure::{Look, Point, Words, number};

/// The keys that a query of each layer sees, `None` for all; empty where every layer sees all.
pub(super) type Windows = [Option<usize>];

/// `points`, one per layer, of which those of layers with a window look as `look` says.
pub(super) fn shown(points: Vec<Point>, windows: &Windows, look: Look) -> Vec<Point> {
    let points = points.into_iter().enumerate();
    let shown = points.map(|(layer, point)| {
        if has_window(windows, layer) {
            point.looking(look)
        } else {
            point
        }
    });
    shown.collect()
}

/// Whether a query of `layer` sees a window only.
pub(super) fn has_window(windows: &Windows, layer: usize) -> bool {
    windows.get(layer).is_some_and(Option::is_some)
}

/// First and last layer of every run of layers with a window.
pub(super) fn runs(windows: &Windows) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for layer in (0..windows.len()).filter(|&layer| has_window(windows, layer)) {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == layer => run.1 = layer,
            _ => runs.push((layer, layer)),
        }
    }
    runs
}

/// The windows of all `models` in words: "a window of 512 keys"; `None` where no layer has one.
pub(super) fn sizes<'w>(models: impl IntoIterator<Item = &'w Windows>) -> Option<String> {
    let layers = models.into_iter().flatten();
    let sizes: Vec<usize> = layers.copied().flatten().collect();
    let (least, most) = (*sizes.iter().min()?, *sizes.iter().max()?);
    let [shown, widest] = [least, most].map(|keys| number(keys as f64));
    Some(match (least, most) {
        (1, 1) => "a window of 1 key".to_owned(),
        _ if least == most => format!("a window of {shown} keys"),
        _ => format!("windows of {shown} to {widest} keys"),
    })
}

/// What a legend says of layers with a window, which are told by looking `how`.
pub(super) fn words<'w>(how: &str, models: impl IntoIterator<Item = &'w Windows>) -> Option<Words> {
    let sizes = sizes(models)?;
    let short = sizes.strip_prefix("a ").unwrap_or(&sizes);
    Some(Words::of([
        format!("{how}: layers that see {sizes}"),
        format!("{how}: {short}"),
        format!("{how}: windowed"),
    ]))
}

/// For screen readers: the layers with a window of the model called `name`, which look `how`; "" where there are none.
pub(super) fn sentence(how: &str, name: &str, windows: &Windows) -> String {
    let Some(sizes) = sizes([windows]) else {
        return String::new();
    };
    let layers = runs(windows).into_iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}\u{2013}{last}")
        }
    });
    let layers = layers.collect::<Vec<_>>().join(", ");
    format!("; {how}: layers {layers} of {name}, which see {sizes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every third layer sees all.
    const LOCAL: [Option<usize>; 7] = [
        Some(512),
        Some(512),
        None,
        Some(512),
        Some(512),
        None,
        Some(512),
    ];

    #[test]
    fn layers_with_a_window_look_otherwise() {
        let points: Vec<Point> = (0..8).map(|l| Point::alone(f64::from(l), 1.0)).collect();
        let shown = shown(points.clone(), &LOCAL, Look::Hollow);
        let hollow = |p: &Point| p.look == Look::Hollow;
        let places: Vec<usize> = (0..8).filter(|&l| hollow(&shown[l])).collect();
        assert_eq!(places, [0, 1, 3, 4, 6]);
        assert_eq!(super::shown(points.clone(), &[], Look::Hollow), points);
    }

    #[test]
    fn runs_end_at_layers_that_see_all() {
        assert_eq!(runs(&LOCAL), [(0, 1), (3, 4), (6, 6)]);
        assert_eq!(runs(&[Some(4); 3]), [(0, 2)]);
        assert!(runs(&[None; 3]).is_empty() && runs(&[]).is_empty());
    }

    #[test]
    fn words_name_the_windows_of_all_models() {
        let all = |models: &[&Windows]| sizes(models.iter().copied());
        assert_eq!(all(&[&LOCAL]).unwrap(), "a window of 512 keys");
        let two = all(&[&LOCAL, &[], &[Some(4096)]]).unwrap();
        assert_eq!(two, "windows of 512 to 4,096 keys");
        assert_eq!(all(&[&[Some(1)]]).unwrap(), "a window of 1 key");
        assert_eq!(all(&[&[], &[None, None]]), None);
        let words = words("hollow", [&LOCAL[..]]).unwrap();
        let long = "hollow: layers that see a window of 512 keys";
        assert_eq!(words.within(9999), long);
        let less = super::super::figure::text_width(long) - 1;
        assert_eq!(words.within(less), "hollow: window of 512 keys");
        assert_eq!(
            sentence("hollow", "a-1b", &LOCAL),
            "; hollow: layers 0\u{2013}1, 3\u{2013}4, 6 of a-1b, which see a window of 512 keys"
        );
        assert_eq!(sentence("hollow", "a-1b", &[]), "");
    }
}
