//! Ranges of numbers in a written place: `part{01..06}.bin` stands for six texts.

/// A text with ranges in it, each for as many numbers as the others.
pub(super) struct Template<'a> {
    pieces: Vec<Piece<'a>>,
    /// How many texts it stands for; `None` without a range.
    pub(super) count: Option<usize>,
}

enum Piece<'a> {
    Text(&'a str),
    /// The number that comes first, and its digits at the least.
    Range {
        first: usize,
        digits: usize,
    },
}

impl<'a> Template<'a> {
    /// Reads `{1..6}`, or `{01..06}` for as many digits each, wherever it stands in the text.
    ///
    /// `None` for a brace without its other half, a range that does not rise, or ranges of unequal lengths.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (mut pieces, mut count, mut rest) = (Vec::new(), None, text);
        while let Some((before, after)) = rest.split_once('{') {
            let (range, after) = after.split_once('}')?;
            let (first, digits, length) = range_of(range)?;
            if *count.get_or_insert(length) != length {
                return None;
            }
            pieces.extend([Piece::Text(before), Piece::Range { first, digits }]);
            rest = after;
        }
        pieces.push(Piece::Text(rest));
        let closed = |piece: &Piece| !matches!(piece, Piece::Text(text) if text.contains('}'));
        (pieces.iter().all(closed)).then_some(Self { pieces, count })
    }

    /// The text number `place`, counted from zero.
    pub(super) fn text(&self, place: usize) -> String {
        let piece = |piece: &Piece| match *piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Range { first, digits } => format!("{:0digits$}", first + place),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// How many ranges there are.
    pub(super) fn ranges(&self) -> usize {
        let is_range = |piece: &&Piece| matches!(piece, Piece::Range { .. });
        self.pieces.iter().filter(is_range).count()
    }
}

/// First number, digits and length of `1..6`.
fn range_of(range: &str) -> Option<(usize, usize, usize)> {
    let (first, last) = range.split_once("..")?;
    let is_number =
        |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return None;
    }
    let (from, to): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let digits = if first.starts_with('0') {
        first.len()
    } else {
        1
    };
    (from < to).then_some((from, digits, to - from + 1))
}
