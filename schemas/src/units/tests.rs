//! Tests of the quantities.

use proptest::prelude::*;

use super::*;

#[test]
fn sizes_are_read_exactly() {
    for (text, bytes) in [
        ("0B", 0),
        ("1B", 1),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("256MiB", 268_435_456),
        ("1.5GiB", 1_610_612_736),
        ("0.1MB", 100_000),
        ("2TB", 2_000_000_000_000),
        ("16383PiB", 18_445_618_173_802_708_992),
    ] {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
}

#[test]
fn what_is_no_size_says_what_to_write() {
    let example = "a size is a number and a unit, such as `256MiB` or `1.5GiB`";
    for (text, message, help) in [
        ("", "`` is not a size", example),
        ("MiB", "`MiB` is not a size", example),
        ("-1MiB", "`-1MiB` is not a size", example),
        ("1.MiB", "`1.MiB` is not a size", example),
        ("1..5MiB", "`1..5MiB` is not a size", example),
        (
            "256",
            "`256` has no unit",
            "write `256MiB`, or another unit: B, KiB, GiB, TiB",
        ),
        (
            "256M",
            "`256M` has the unknown unit `M`",
            "did you mean `256MiB`?",
        ),
        (
            "1gi",
            "`1gi` has the unknown unit `gi`",
            "did you mean `1GiB`?",
        ),
        (
            "5mb",
            "`5mb` has the unknown unit `mb`",
            "did you mean `5MB`?",
        ),
        (
            "5 MiB",
            "`5 MiB` has the unknown unit ` MiB`",
            "did you mean `5MiB`?",
        ),
        (
            "5 apples",
            "`5 apples` has the unknown unit ` apples`",
            "known units: B, KiB, MiB, GiB, TiB, PiB, kB, MB, GB, TB, PB",
        ),
        ("0.3KiB", "`0.3KiB` is not a whole number of bytes", example),
        (
            "99999PiB",
            "`99999PiB` is too large a size",
            "the most is 16383PiB",
        ),
    ] {
        let error = text.parse::<Bytes>().unwrap_err();
        assert_eq!((&*error.message, &*error.help), (message, help), "{text}");
    }
}

#[test]
fn durations_are_read_exactly() {
    for (text, millis) in [
        ("0s", 0),
        ("500ms", 500),
        ("10s", 10_000),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("2d 1ms", 172_800_001),
    ] {
        assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
    }
}

#[test]
fn what_is_no_duration_says_what_to_write() {
    let example = "a duration is numbers with units, such as `10s`, `500ms` or `1h30m`";
    for (text, message, help) in [
        ("", "`` is not a duration", example),
        ("s", "`s` is not a duration", example),
        ("-1s", "`-1s` is not a duration", example),
        ("1s1h", "`1s1h` has its units out of order", example),
        ("1s1s", "`1s1s` has its units out of order", example),
        ("0.1ms", "`0.1ms` is finer than 1ms", example),
        (
            "10",
            "`10` has no unit",
            "write `10s`, or another unit: ms, m, h, d",
        ),
        (
            "1h30",
            "`1h30` has a number without a unit",
            "write `30s`, or another unit: ms, m, h, d",
        ),
        (
            "5min",
            "`5min` has the unknown unit `min`",
            "did you mean `5m`?",
        ),
        ("5M", "`5M` has the unknown unit `M`", "did you mean `5m`?"),
        (
            "5us",
            "`5us` has the unknown unit `us`",
            "known units: d, h, m, s, ms",
        ),
        (
            "99999999999d",
            "`99999999999d` is too long a duration",
            "the most is 100 years",
        ),
    ] {
        let error = text.parse::<Millis>().unwrap_err();
        assert_eq!((&*error.message, &*error.help), (message, help), "{text}");
    }
}

#[test]
fn cores_are_numbers_of_three_decimals() {
    for (text, cores) in [("0.5", 500), ("2", 2000), ("0.001", 1), ("1.250", 1250)] {
        assert_eq!(text.parse(), Ok(MilliCores(cores)), "{text}");
    }
    for (text, line) in [
        ("500m", "`500m` is not a number of cores; write `0.5`"),
        (
            "0.0001",
            "`0.0001` is finer than 0.001 cores; write a number of cores with at most three \
             decimals, such as `0.5`",
        ),
        (
            "two",
            "`two` is not a number of cores; write a number of cores with at most three \
             decimals, such as `0.5`",
        ),
    ] {
        assert_eq!(text.parse::<MilliCores>().unwrap_err().to_string(), line);
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(bytes: u64, millis in 0..=36_525 * 86_400_000_u64, milli: u32) {
        prop_assert_eq!(Bytes(bytes).exact().parse(), Ok(Bytes(bytes)));
        prop_assert_eq!(Millis(millis).to_string().parse(), Ok(Millis(millis)));
        prop_assert_eq!(MilliCores(milli).to_string().parse(), Ok(MilliCores(milli)));
    }

    #[test]
    fn no_text_panics(text: String, number in "[0-9.]{0,40}", unit in "\\PC{0,4}") {
        for text in [text, format!("{number}{unit}")] {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<Millis>();
            let _ = text.parse::<MilliCores>();
        }
    }
}
