//! Tables: upper-case heads, no lines, columns as wide as they must be.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use loom_schemas::record::{Health, Score};
use loom_schemas::wire::Standing;
use loom_schemas::words::{HealthStatus, JobStatus, RunState};

/// A table with these heads.
pub(crate) fn new(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    table
}

/// The table as text, a line a row, without blanks at the ends.
pub(crate) fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A label and a value on a line, aligned: the head of a detailed view.
pub(crate) fn field(text: &mut String, label: &str, value: &str) {
    if !value.is_empty() {
        let label = format!("{label}:");
        *text = format!("{text}{label:<11}{value}\n");
    }
}

/// A score with four digits behind the point, or what would not show so in short.
pub(crate) fn score(Score(score): Score) -> String {
    if score == 0.0 || (1e-3..1e9).contains(&score.abs()) {
        format!("{score:.4}")
    } else {
        format!("{score:.2e}")
    }
}

/// How something stands that others wait for.
pub(crate) fn standing(standing: Standing) -> String {
    let colour = match standing {
        Standing::Running | Standing::Healthy | Standing::Completed => AnsiColor::Green,
        Standing::Failed => AnsiColor::Red,
        Standing::Waiting | Standing::Pending | Standing::Unknown => AnsiColor::Yellow,
        Standing::Never => AnsiColor::BrightBlack,
    };
    painted(standing.as_str(), colour)
}

/// A word in the colour of how well things stand.
pub(crate) fn run_state(state: RunState, paused: bool, unknown: bool) -> String {
    let word = match (paused, unknown) {
        (_, true) if state == RunState::Running => "unknown".to_owned(),
        (true, _) if state == RunState::Running => "paused".to_owned(),
        _ => state.to_string(),
    };
    let colour = match state {
        RunState::Running if paused || unknown => AnsiColor::Yellow,
        RunState::Running | RunState::Completed => AnsiColor::Green,
        RunState::Failed | RunState::Lost | RunState::Rejected => AnsiColor::Red,
        RunState::Pending
        | RunState::Scheduled
        | RunState::Preparing
        | RunState::Starting
        | RunState::Unknown => AnsiColor::Yellow,
        RunState::Killed => AnsiColor::BrightBlack,
    };
    painted(&word, colour)
}

/// What a run's health checks say, in its colour; `-` where it has none.
pub(crate) fn health(health: Option<&Health>) -> String {
    let Some(health) = health else {
        return "-".to_owned();
    };
    let colour = match health.status {
        HealthStatus::Healthy => AnsiColor::Green,
        HealthStatus::Unhealthy => AnsiColor::Red,
        HealthStatus::Pending | HealthStatus::Unknown => AnsiColor::Yellow,
    };
    painted(health.status.as_str(), colour)
}

/// A job's status in its colour.
pub(crate) fn job_status(status: JobStatus) -> String {
    let colour = match status {
        JobStatus::Running | JobStatus::Completed => AnsiColor::Green,
        JobStatus::Failed => AnsiColor::Red,
        JobStatus::Pending | JobStatus::Unknown => AnsiColor::Yellow,
        JobStatus::Killed => AnsiColor::BrightBlack,
    };
    painted(status.as_str(), colour)
}

/// A text in a colour; the printer takes it off where nobody wants it.
pub(crate) fn painted(text: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_does_not_shift_columns() {
        let mut table = new(&["job", "status", "age"]);
        table.add_row([
            "a".to_owned(),
            job_status(JobStatus::Running),
            "1s".to_owned(),
        ]);
        table.add_row(["b".to_owned(), "failed".to_owned(), "2s".to_owned()]);
        let plain = anstream::adapter::strip_str(&render(table)).to_string();
        assert_eq!(
            plain,
            "JOB  STATUS   AGE\na    running  1s\nb    failed   2s\n"
        );
    }
}
