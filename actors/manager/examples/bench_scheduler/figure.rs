//! What was measured, as a line of a table and as one of JSON.

use std::time::Duration;

use serde_json::json;

pub(crate) fn p99(mut took: Vec<Duration>) -> f64 {
    took.sort();
    millis(took[took.len() * 99 / 100])
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

pub(crate) fn figure(name: &str, unit: &str, values: &[f64], raw: Option<f64>, bar: &str) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (value, low, high) = (median(values), sorted[0], sorted[sorted.len() - 1]);
    let digits = if value < 1000.0 { 3 } else { 0 };
    let raw_text = raw.map_or_else(|| "-".to_owned(), |raw| format!("{raw:.0}"));
    println!(
        "{name:<30} {value:>14.digits$} {unit:<6} raw {raw_text:>8}  spread {low:.digits$} to \
         {high:.digits$}  bar {bar}"
    );
    println!(
        "{}",
        json!({
            "figure": name,
            "value": value,
            "unit": unit,
            "raw": raw,
            "ratio": raw.map(|raw| value / raw),
            "runs": values.len(),
            "spread": [low, high],
        })
    );
}
