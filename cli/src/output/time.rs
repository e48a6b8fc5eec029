//! Times and durations as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How long ago, in one unit: `3s`, `12m`, `5h`, `9d`; `-` where there is no time.
pub(crate) fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| seconds(now.as_second() - at.as_second()),
    )
}

/// A span of seconds in one unit; a clock that is behind counts as no time at all.
pub(crate) fn seconds(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// The time of day here, with milliseconds.
pub(crate) fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S%.3f")
        .to_string()
}

/// Date and time here.
pub(crate) fn full(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

/// Date and time in a zone; in UTC where this machine does not know it.
pub(crate) fn in_zone(at: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    at.to_zoned(zone)
        .strftime("%Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_one_unit() {
        let shown: Vec<String> = [-5, 0, 119, 120, 7_199, 7_200, 200_000]
            .map(seconds)
            .into_iter()
            .collect();
        assert_eq!(shown, ["0s", "0s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn no_time_is_a_dash() {
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "-");
    }
}
