//! `loomctl stats`: what tasks use, from the tasks themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_schemas::ids::RunId;
use loom_schemas::wire::{Stats, TaskCommand};

use super::signal::{Target, judge};
use crate::address::Address;
use crate::cli::Global;
use crate::exit::Failure;
use crate::fanout::{self, Outcome, Row};
use crate::output::{self, table};

/// Show what tasks use: processors, memory, processes, disk traffic.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl stats web
  loomctl stats -l tier=front -o json")]
pub(crate) struct StatsVerb {
    #[command(flatten)]
    target: Target,
    /// Over how long the use of processors is measured
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration, value_name = "TIME")]
    over: Duration,
}

impl StatsVerb {
    /// Looks twice and prints a row a task.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let many = &self.target.many;
        let address = Address::of(self.target.address.as_deref(), &many.labels)?;
        let bus = global.bus.connect().await?;
        let command = TaskCommand::default();
        let look = || fanout::command(&bus, &address, "stats", &command, many.timeout);
        let mut before = BTreeMap::new();
        if global.output.is_for_people() {
            before = figures(&look().await?);
            tokio::time::sleep(self.over).await;
        }
        let outcome = look().await?;
        output::list(
            global.output,
            &outcome.rows,
            |row| row.slot().to_string(),
            |_| rows(&outcome, &before),
        )?;
        judge(&outcome, many.min_ok)
    }
}

/// What each run said of itself.
fn figures(outcome: &Outcome) -> BTreeMap<RunId, Stats> {
    let answers = outcome.rows.iter().filter_map(|row| match row {
        Row::Answer(answer) => Some((answer.run, stats(row)?)),
        Row::Silent { .. } => None,
    });
    answers.collect()
}

fn stats(row: &Row) -> Option<Stats> {
    let Row::Answer(answer) = row else {
        return None;
    };
    serde_json::from_value(answer.value.clone()?).ok()
}

fn rows(outcome: &Outcome, before: &BTreeMap<RunId, Stats>) -> String {
    let mut table = table::new(&[
        "task", "node", "cpu", "memory", "limit", "pids", "read", "written",
    ]);
    for row in &outcome.rows {
        let mut cells = vec![row.slot().to_string()];
        if let (Row::Answer(answer), Some(now)) = (row, stats(row)) {
            let before = before.get(&answer.run);
            cells.extend([
                answer.node.to_string(),
                before
                    .and_then(|before| percent(before, &now))
                    .unwrap_or_else(none),
                size(now.memory),
                size(now.memory_limit),
                now.pids.map_or_else(none, |pids| pids.to_string()),
                size(now.read),
                size(now.written),
            ]);
        } else {
            let error = row.error().map(|error| error.message.clone());
            cells.extend([none(), error.unwrap_or_else(none)]);
        }
        table.add_row(cells);
    }
    table::render(table)
}

fn none() -> String {
    "-".to_owned()
}

/// Processor time between two looks, in hundredths of a core.
fn percent(before: &Stats, now: &Stats) -> Option<String> {
    let used = now.cpu_us?.saturating_sub(before.cpu_us?);
    let elapsed = now.at.duration_since(before.at).as_micros();
    let elapsed = u64::try_from(elapsed).ok().filter(|elapsed| *elapsed > 0)?;
    let tenths = used.saturating_mul(1000) / elapsed;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

/// Bytes as people read them.
fn size(bytes: Option<u64>) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let Some(bytes) = bytes else {
        return none();
    };
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let power = (bytes.ilog2() / 10).clamp(1, 4);
    let tenths = bytes.saturating_mul(10) >> (10 * power);
    let unit = UNITS[power as usize - 1];
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (128 << 20, "128.0MiB"),
            (5 << 40, "5.0TiB"),
        ] {
            assert_eq!(size(Some(bytes)), expected);
        }
        assert_eq!(size(None), "-");
    }

    #[test]
    fn the_use_of_processors_is_that_between_two_looks() {
        let at = |us: i64, cpu_us| Stats {
            at: jiff::Timestamp::from_microsecond(us).unwrap(),
            cpu_us,
            memory: None,
            memory_limit: None,
            pids: None,
            read: None,
            written: None,
        };
        let before = at(0, Some(1_000));
        let used = percent(&before, &at(1_000_000, Some(501_000)));
        assert_eq!(used.as_deref(), Some("50.0%"));
        assert_eq!(percent(&before, &at(0, Some(2_000))), None);
        assert_eq!(percent(&before, &at(1, None)), None);
    }
}
