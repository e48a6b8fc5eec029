//! Versions as systems write them: `12`, `22.04`, `20.10.5+dfsg1`, `6.1.0-18-amd64`.
//!
//! The crate `semver` refuses most of these (two numbers, four, a leading zero), so the few lines
//! that compare numbers with points between them are here.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::constraint::ConstraintError;
use super::problem::shown;

/// The numbers at the beginning of a version; what follows them (`-rc.1`, `+dfsg1`) does not count.
///
/// Numbers that are not there are 0: `12`, `12.0` and `12.0.0` are the same.
#[derive(Clone, Debug)]
pub struct Version(Vec<u64>);

/// What a version has to be: `>= 20.10, < 25`, each of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRange(Vec<(Bound, Version)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    /// `~> 1.4.2`: at least that, and the same but for the last number.
    Compatible,
}

/// The longer ones first, as they begin with the shorter.
const BOUNDS: [(&str, Bound); 8] = [
    ("~>", Bound::Compatible),
    (">=", Bound::AtLeast),
    ("<=", Bound::AtMost),
    ("==", Bound::Equal),
    ("!=", Bound::NotEqual),
    ("=", Bound::Equal),
    (">", Bound::More),
    ("<", Bound::Less),
];

/// The most parts of a range.
const PARTS_MAX: usize = 8;

impl Version {
    /// Reads a version from what a system says; none if it does not begin with a number.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        // `3rd` is a word; only these begin what may stand behind a version.
        if !rest.is_empty() && !rest.starts_with(['-', '+', '~', '_', ' ']) {
            return None;
        }
        let numbers: Option<Vec<u64>> = numbers.split('.').map(|n| n.parse().ok()).collect();
        numbers
            .filter(|numbers| numbers.len() <= PARTS_MAX)
            .map(Self)
    }

    fn part(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        let parts = (0..length).map(|at| self.part(at).cmp(&other.part(at)));
        parts.fold(Ordering::Equal, Ordering::then)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// Only the numbers.
impl FromStr for Version {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let strict = |c: char| c.is_ascii_digit() || c == '.';
        Self::read(text)
            .filter(|_| text.chars().all(strict))
            .ok_or_else(|| {
                let message = format!("`{}` is not a version", shown(text));
                ConstraintError::new(
                    message,
                    "write numbers with points, such as `12` or `20.10`",
                )
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl VersionRange {
    /// Whether a version is what it has to be.
    pub fn holds(&self, version: &Version) -> bool {
        self.0.iter().all(|(bound, of)| match bound {
            Bound::Equal => version == of,
            Bound::NotEqual => version != of,
            Bound::Less => version < of,
            Bound::AtMost => version <= of,
            Bound::More => version > of,
            Bound::AtLeast => version >= of,
            Bound::Compatible => {
                let fixed = of.0.len().saturating_sub(1);
                version >= of && (0..fixed).all(|at| version.part(at) == of.part(at))
            }
        })
    }
}

impl FromStr for VersionRange {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > PARTS_MAX {
            let message = format!("{} bounds of a version", parts.len());
            return Err(ConstraintError::new(
                message,
                format!("at most {PARTS_MAX}"),
            ));
        }
        let part = |part: &str| {
            let bound = BOUNDS.iter().find(|(word, _)| part.starts_with(word));
            let Some((word, bound)) = bound else {
                let message = format!("`{}` does not say how versions compare", shown(part));
                let help = "write a list such as `>= 20.10, < 25`; each begins with one of \
                            =, !=, <, <=, >, >=, ~>";
                return Err(ConstraintError::new(message, help));
            };
            Ok((*bound, part[word.len()..].trim().parse()?))
        };
        parts
            .into_iter()
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::read(text).unwrap()
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        for (a, order, b) in [
            ("12", Ordering::Equal, "12.0.0"),
            ("22.04", Ordering::Equal, "22.4"),
            ("9", Ordering::Less, "12"),
            ("20.10.5+dfsg1", Ordering::Greater, "20.10"),
            ("6.1.0-18-amd64", Ordering::Equal, "6.1"),
            ("v1.2", Ordering::Less, "1.10"),
            ("27.0.0-rc.1", Ordering::Equal, "27"),
            ("1.2.3.4", Ordering::Greater, "1.2.3"),
        ] {
            assert_eq!(version(a).cmp(&version(b)), order, "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_version_reads_as_none() {
        for text in [
            "",
            "ssd",
            "3rd",
            "-1",
            "1..2",
            "1.",
            ".1",
            "99999999999999999999",
        ] {
            assert!(Version::read(text).is_none(), "{text}");
        }
        assert!("20.10.5+dfsg1".parse::<Version>().is_err());
    }

    #[test]
    fn a_range_holds_if_each_part_does() {
        for (range, inside, outside) in [
            (">= 20.10, < 25", "24.9", "25"),
            ("~> 1.4.2", "1.4.9", "1.5"),
            ("~> 1.4", "1.9", "2.0"),
            ("= 12", "12.0", "12.1"),
            ("!=12", "12.1", "12"),
            ("> 1, != 3, <= 4", "4", "3.0"),
        ] {
            let range_of: VersionRange = range.parse().unwrap();
            assert!(range_of.holds(&version(inside)), "{range} {inside}");
            assert!(!range_of.holds(&version(outside)), "{range} {outside}");
        }
        for wrong in ["", "12", ">= ", ">= x", "> 1,", ">> 1"] {
            assert!(wrong.parse::<VersionRange>().is_err(), "{wrong}");
        }
    }
}
