//! Thresholds as column names carry them.

/// A threshold as column names carry it: a percentage, `_` for the decimal point.
///
/// ```
/// assert_eq!(kvprof::profile::threshold_name(0.9), "90");
/// assert_eq!(kvprof::profile::threshold_name(0.999), "99_9");
/// ```
pub fn threshold_name(threshold: f64) -> String {
    let mut text = format!("{:.6}", threshold * 100.0);
    while text.ends_with('0') {
        text.pop();
    }
    text.trim_end_matches('.').replace('.', "_")
}
