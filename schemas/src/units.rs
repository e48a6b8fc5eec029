//! Quantities as people write them: byte sizes, durations and cores.
//!
//! The notation is strict, because a wrong unit is a wrong order of magnitude: a number without a
//! unit, `256M` and `5min` are errors that say what to write. The crates `bytesize` and `humantime`
//! take all of these (and read `1M` as a month), so the few lines of reading are here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// Written with a unit: `B`, binary `KiB MiB GiB TiB PiB`, decimal `kB MB GB TB PB` (`KB` too);
/// fractions where they are whole bytes: `1.5GiB`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Thousandths of a processor core.
///
/// Written as a number of cores with at most three decimals: `0.5`, `2`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MilliCores(pub u32);

/// A duration in whole milliseconds, the finest a job file can say.
///
/// Written with units, the larger first: `500ms`, `10s`, `1h30m`, `1m 30s`; units `d h m s ms`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// Why a text is not a quantity. Its `Display` is one line with the help at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct UnitError {
    /// What is wrong, with the value.
    pub message: String,
    /// What to write.
    pub help: String,
}

const BINARY: [(&str, u64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

const DECIMAL: [(&str, u64); 6] = [
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
];

const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl Bytes {
    /// So many times 1,048,576 bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }

    /// The shortest text that reads back as the same number: `1536MiB`, `1000B`.
    pub fn exact(self) -> String {
        BINARY
            .iter()
            .find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit))
            .map_or_else(
                || format!("{}B", self.0),
                |(name, unit)| format!("{}{name}", self.0 / unit),
            )
    }
}

/// Binary units, as short as exact to two decimals: `256MiB`, `1.5GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut unit = 0;
        #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
        let mut value = self.0 as f64;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let text = format!("{value:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.pad(&format!("{text}{}", UNITS[unit]))
    }
}

impl Bytes {
    /// Reads a rate, so many bytes in a second: `50MiB/s`.
    pub fn parse_rate(text: &str) -> Result<Self, UnitError> {
        let Some(size) = text.strip_suffix("/s") else {
            let size = text.split('/').next().unwrap_or(text);
            let help = match size.parse::<Self>() {
                Ok(_) => format!("write `{size}/s`"),
                Err(_) => "a rate is a size in a second, such as `50MiB/s`".to_owned(),
            };
            return Err(wrong(text, "is not a rate", &help));
        };
        size.parse()
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXAMPLE: &str = "a size is a number and a unit, such as `256MiB` or `1.5GiB`";
        let (number, unit) = split(text);
        if number.is_empty() {
            return Err(wrong(text, "is not a size", EXAMPLE));
        }
        let factor = match unit {
            "B" => 1,
            "" => {
                let help = format!("write `{number}MiB`, or another unit: B, KiB, GiB, TiB");
                return Err(wrong(text, "has no unit", &help));
            }
            _ => {
                let units = BINARY.iter().chain(&DECIMAL);
                let Some((_, factor)) = units.clone().find(|(name, _)| *name == unit) else {
                    return Err(wrong_size_unit(text, number, unit));
                };
                *factor
            }
        };
        match scaled(number, factor) {
            Scaled::Whole(bytes) => Ok(Self(bytes)),
            Scaled::TooLarge => Err(wrong(text, "is too large a size", "the most is 16383PiB")),
            Scaled::Fraction => Err(wrong(text, "is not a whole number of bytes", EXAMPLE)),
            Scaled::Malformed => Err(wrong(text, "is not a size", EXAMPLE)),
        }
    }
}

/// In cores: `0.5`, `2`.
impl fmt::Display for MilliCores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", f64::from(self.0) / 1000.0))
    }
}

impl FromStr for MilliCores {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXAMPLE: &str = "write a number of cores with at most three decimals, such as `0.5`";
        if let Some(thousandths) = text.strip_suffix('m').and_then(|n| n.parse::<u32>().ok()) {
            let help = format!("write `{}`", Self(thousandths));
            return Err(wrong(text, "is not a number of cores", &help));
        }
        let (number, unit) = split(text);
        match scaled(number, 1000) {
            _ if number.is_empty() || !unit.is_empty() => {
                Err(wrong(text, "is not a number of cores", EXAMPLE))
            }
            Scaled::Whole(thousandths) => u32::try_from(thousandths)
                .map(Self)
                .map_err(|_| wrong(text, "is too many cores", EXAMPLE)),
            Scaled::TooLarge => Err(wrong(text, "is too many cores", EXAMPLE)),
            Scaled::Fraction => Err(wrong(text, "is finer than 0.001 cores", EXAMPLE)),
            Scaled::Malformed => Err(wrong(text, "is not a number of cores", EXAMPLE)),
        }
    }
}

impl Millis {
    /// Whether it is no time at all.
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// So many seconds.
    pub const fn secs(count: u64) -> Self {
        Self(count * 1000)
    }
}

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

/// As a job file would say it: `10s`, `1m 30s`.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut parts = Vec::new();
        for (name, unit) in TIMES {
            if rest >= unit {
                parts.push(format!("{}{name}", rest / unit));
                rest %= unit;
            }
        }
        if parts.is_empty() {
            parts.push("0s".to_owned());
        }
        f.pad(&parts.join(" "))
    }
}

impl FromStr for Millis {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXAMPLE: &str = "a duration is numbers with units, such as `10s`, `500ms` or `1h30m`";
        let malformed = || wrong(text, "is not a duration", EXAMPLE);
        let too_long = || wrong(text, "is too long a duration", "the most is 100 years");
        let mut total = 0_u64;
        let mut smallest = u64::MAX;
        let mut rest = text;
        while !rest.is_empty() {
            let (number, after) = split(rest);
            let end = after
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            if number.is_empty() {
                return Err(malformed());
            }
            let Some((_, factor)) = TIMES.iter().find(|(name, _)| *name == unit) else {
                return Err(wrong_time_unit(text, number, unit));
            };
            if *factor >= smallest {
                return Err(wrong(text, "has its units out of order", EXAMPLE));
            }
            smallest = *factor;
            let part = match scaled(number, *factor) {
                Scaled::Whole(part) => part,
                Scaled::TooLarge => return Err(too_long()),
                Scaled::Fraction => return Err(wrong(text, "is finer than 1ms", EXAMPLE)),
                Scaled::Malformed => return Err(malformed()),
            };
            total = total.checked_add(part).ok_or_else(too_long)?;
            rest = next.strip_prefix(' ').unwrap_or(next);
        }
        if smallest == u64::MAX {
            return Err(malformed());
        }
        if total > 36_525 * 86_400_000 {
            return Err(too_long());
        }
        Ok(Self(total))
    }
}

/// A number times a unit.
enum Scaled {
    Whole(u64),
    TooLarge,
    Fraction,
    Malformed,
}

/// The leading digits and points, and the rest.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Multiplies a decimal number exactly, without floating point.
fn scaled(number: &str, factor: u64) -> Scaled {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Scaled::Malformed;
    }
    let fraction = fraction.trim_end_matches('0');
    let (Ok(whole), true) = (whole.parse::<u64>(), fraction.len() <= 15) else {
        return if fraction.len() > 15 {
            Scaled::Fraction
        } else {
            Scaled::TooLarge
        };
    };
    let mut tens = 1_u128;
    let mut value = u128::from(whole);
    for digit in fraction.bytes() {
        tens *= 10;
        value = value * 10 + u128::from(digit - b'0');
    }
    let Some(value) = value.checked_mul(u128::from(factor)) else {
        return Scaled::TooLarge;
    };
    if value % tens != 0 {
        return Scaled::Fraction;
    }
    u64::try_from(value / tens).map_or(Scaled::TooLarge, Scaled::Whole)
}

fn wrong(value: &str, what: &str, help: &str) -> UnitError {
    let mut shown: String = value.chars().take(40).collect();
    if value.chars().nth(40).is_some() {
        shown.push_str("...");
    }
    UnitError {
        message: format!("`{}` {what}", shown.escape_debug()),
        help: help.to_owned(),
    }
}

/// `256M`, `256mb`, `256 MiB`: names the unit that was meant.
fn wrong_size_unit(text: &str, number: &str, unit: &str) -> UnitError {
    let letters: String = unit.trim().to_ascii_lowercase();
    let binary = BINARY.iter().map(|(name, _)| *name);
    let meant = binary
        .clone()
        .chain(["B"])
        .find(|name| {
            let name = name.to_ascii_lowercase();
            // `256M`, `256Mi` and `256mib`; but `256mb` may well mean the decimal unit.
            name == letters || name[..1] == letters || name[..2.min(name.len())] == letters
        })
        .or_else(|| {
            let mut decimal = DECIMAL.iter().map(|(name, _)| *name);
            decimal.find(|name| name.eq_ignore_ascii_case(&letters))
        });
    let help = match meant {
        Some(name) => format!("did you mean `{number}{name}`?"),
        None => "known units: B, KiB, MiB, GiB, TiB, PiB, kB, MB, GB, TB, PB".to_owned(),
    };
    wrong(
        text,
        &format!("has the unknown unit `{}`", short(unit)),
        &help,
    )
}

/// `5min`, `10 s`, `10`: names the unit that was meant.
fn wrong_time_unit(text: &str, number: &str, unit: &str) -> UnitError {
    if unit.is_empty() {
        let what = if text == number {
            "has no unit"
        } else {
            "has a number without a unit"
        };
        let help = format!("write `{number}s`, or another unit: ms, m, h, d");
        return wrong(text, what, &help);
    }
    let meant = match unit.to_lowercase().as_str() {
        "millis" | "msec" | "millisecond" | "milliseconds" => Some("ms"),
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        _ => None,
    };
    let help = match meant {
        Some(name) => format!("did you mean `{number}{name}`?"),
        None => "known units: d, h, m, s, ms".to_owned(),
    };
    wrong(
        text,
        &format!("has the unknown unit `{}`", short(unit)),
        &help,
    )
}

fn short(unit: &str) -> String {
    unit.chars().take(12).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
