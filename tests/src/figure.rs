//! What benchmarks print: a figure for people, and for programs.

/// Measured values of one figure.
pub struct Sample(pub Vec<f64>);

impl Sample {
    /// The value below which a share of them lies, 0 to 1.
    ///
    /// # Panics
    /// When there is none.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let at = ((sorted.len() - 1) as f64 * q).round() as usize;
        sorted[at]
    }

    /// The middle one.
    ///
    /// # Panics
    /// When there is none.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Prints one figure for people and one line of JSON for programs.
#[allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub fn figure(name: &str, unit: &str, value: &Sample, raw: Option<f64>, bar: &str) {
    let (median, low, high) = (value.median(), value.quantile(0.1), value.quantile(0.9));
    let raw_text = raw.map_or_else(|| "-".to_owned(), |raw| format!("{raw:.2}"));
    println!(
        "{name:<34} {median:>10.2} {unit:<8} raw {raw_text:>9}  spread {low:.2} to {high:.2}  bar {bar}"
    );
    let line = serde_json::json!({
        "figure": name,
        "value": median,
        "unit": unit,
        "raw": raw,
        "ratio": raw.map(|raw| median / raw),
        "runs": value.0.len(),
        "spread": [low, high],
    });
    println!("{line}");
}
