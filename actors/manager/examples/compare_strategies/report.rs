//! What the strategies came to, as a table and a plot.

use std::fmt::Write;

use loom_schemas::words::Strategy;

/// What a strategy came to.
pub(crate) struct Outcome {
    pub(crate) strategy: Strategy,
    /// Shares of cpu and memory reserved when the first task found no node.
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
    /// The share that was free then and of no use, for want of the other resource.
    pub(crate) stranded: f64,
    /// The tasks placed by then.
    pub(crate) placed: usize,
    /// The worst slowdown of the whole trace, and that which one of a hundred exceeds.
    pub(crate) worst: f64,
    pub(crate) p99: f64,
    /// The tasks that had to wait.
    pub(crate) waited: usize,
    /// The share of nodes whose cores were in use beyond what they have, over time.
    pub(crate) overloaded: Vec<f64>,
}

/// The line of a strategy.
pub(crate) fn row(outcome: &Outcome) -> String {
    let Outcome {
        strategy,
        cpu,
        memory,
        stranded,
        placed,
        worst,
        p99,
        waited,
        overloaded,
    } = outcome;
    let mean = overloaded.iter().sum::<f64>() / overloaded.len() as f64;
    format!(
        "| `{strategy}` | {placed} | {:.1} % | {:.1} % | {:.1} % | {waited} | {p99:.2} | {worst:.1} | {:.1} % |",
        cpu * 100.0,
        memory * 100.0,
        stranded * 100.0,
        mean * 100.0,
    )
}

/// The table, a line a strategy.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| strategy | tasks placed before the first refusal | cpu reserved then | memory reserved \
         then | stranded then | tasks that waited | slowdown, 99 of 100 | worst slowdown | nodes \
         overloaded |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        text += &row(outcome);
        text.push('\n');
    }
    text
}

/// The share of overloaded nodes over time, a line a strategy.
pub(crate) fn plot(outcomes: &[Outcome]) -> String {
    const COLOURS: [&str; 5] = ["#0b6e4f", "#c1121f", "#3a5a9b", "#e09f3e", "#6d597a"];
    let (width, height) = (720.0, 300.0);
    let most = outcomes.iter().flat_map(|outcome| &outcome.overloaded);
    let most = most.copied().fold(0.01, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"50\" y=\"18\">nodes whose tasks use more cores than it has, in \
         %, over the trace</text>\n",
        width + 200.0,
        height + 60.0
    );
    for step in 0..=4 {
        let share = most * f64::from(step) / 4.0;
        let y = 30.0 + height * (1.0 - f64::from(step) / 4.0);
        let _ = writeln!(
            svg,
            "<line x1=\"50\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text \
             x=\"44\" y=\"{:.1}\" text-anchor=\"end\">{:.1}</text>",
            50.0 + width,
            y + 4.0,
            share * 100.0
        );
    }
    for (at, outcome) in outcomes.iter().enumerate() {
        let last = (outcome.overloaded.len() - 1).max(1) as f64;
        let points = outcome.overloaded.iter().enumerate().map(|(at, share)| {
            let x = 50.0 + width * at as f64 / last;
            let y = 30.0 + height * (1.0 - share / most);
            format!("{x:.1},{y:.1}")
        });
        let points: Vec<String> = points.collect();
        let (colour, y) = (COLOURS[at % COLOURS.len()], 50.0 + 22.0 * at as f64);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n\
             <line x1=\"{:.0}\" x2=\"{:.0}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" \
             stroke-width=\"3\"/><text x=\"{:.0}\" y=\"{:.1}\">{}</text>",
            points.join(" "),
            width + 65.0,
            width + 90.0,
            width + 98.0,
            y + 4.5,
            outcome.strategy
        );
    }
    svg.push_str("</svg>\n");
    svg
}
