//! The gpus that a task asks for, by name and count.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::field::{Entries, Field, Form, Whole};
use super::lower::Lowering;
use super::problem::shown;
use crate::ids::Name;

/// The most gpus of a run.
pub const GPUS_MAX: u64 = 64;

/// The most names that a task asks gpus of.
pub const GPU_NAMES_MAX: usize = 4;

/// So many gpus, whichever they are or of some names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gpus {
    /// Of any name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub any: u32,
    /// Of each of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<Name, u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Gpus {
    /// No gpus.
    pub const NONE: &Self = &Self {
        any: 0,
        named: BTreeMap::new(),
    };

    /// How many in all.
    pub fn count(&self) -> u32 {
        let named = self.named.values();
        named.fold(self.any, |sum, count| sum.saturating_add(*count))
    }

    /// Has there be others as well.
    pub fn add(&mut self, others: &Self) {
        self.any = self.any.saturating_add(others.any);
        for (name, count) in &others.named {
            let sum = self.named.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self.count() == 0
    }
}

/// `2`, or `2 a100, 1 t4`.
impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named.iter();
        let mut parts: Vec<String> = named
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if self.any > 0 || parts.is_empty() {
            parts.push(self.any.to_string());
        }
        f.write_str(&parts.join(", "))
    }
}

/// The name by which tasks ask for gpus of a model: `NVIDIA A100-SXM4-40GB` is
/// `nvidia-a100-sxm4-40gb`. None if nothing is left of it that makes a name.
pub fn gpu_name(model: &str) -> Option<Name> {
    let words = model.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let mut name = words.join("-");
    if name.is_empty() {
        return None;
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "gpu-");
    }
    name.truncate(63);
    Name::new(name.trim_end_matches('-')).ok()
}

impl Lowering<'_> {
    /// The gpus that a field asks for; none if there is no field.
    pub(super) fn gpus(&mut self, field: &Field<Form<Whole, Entries<Whole>>>) -> Option<Gpus> {
        let whole = field.as_place();
        let gpus = match field.value.as_ref()? {
            Form::Short(count) => Gpus {
                any: self.whole(&whole.clone_with(*count), 0..=GPUS_MAX, 0),
                ..Gpus::default()
            },
            Form::Full(named) => Gpus {
                any: 0,
                named: self.named_gpus(&whole, named),
            },
        };
        if u64::from(gpus.count()) > GPUS_MAX && gpus.any == 0 {
            let message = format!("{} gpus in all", gpus.count());
            self.push(whole.problem(message, format!("at most {GPUS_MAX}")));
        }
        Some(gpus)
    }

    fn named_gpus(&mut self, whole: &Field<()>, named: &Entries<Whole>) -> BTreeMap<Name, u32> {
        if named.0.is_empty() || named.0.len() > GPU_NAMES_MAX {
            let message = format!("gpus of {} names", named.0.len());
            let help = format!("from 1 to {GPU_NAMES_MAX}, each with a count: `gpus: {{a100: 2}}`");
            self.push(whole.problem(message, help));
        }
        let mut gpus = BTreeMap::new();
        for (key, count) in &named.0 {
            let Some(text) = key.value.as_deref() else {
                continue;
            };
            let number = self.whole(count, 1..=GPUS_MAX, 1);
            if let Ok(name) = Name::new(text) {
                gpus.insert(name, number);
                continue;
            }
            let message = format!("`{}` is not the name of a gpu", shown(text));
            let help = match gpu_name(text) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "names are as `loomctl node status` shows them: `a100`".to_owned(),
            };
            self.push(key.problem(message, help));
        }
        gpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_becomes_a_name() {
        for (model, name) in [
            ("NVIDIA A100-SXM4-40GB", Some("nvidia-a100-sxm4-40gb")),
            ("Tesla T4", Some("tesla-t4")),
            ("  GeForce RTX(TM) 4090 ", Some("geforce-rtx-tm-4090")),
            ("4090", Some("gpu-4090")),
            ("", None),
            ("all", None),
        ] {
            let found = gpu_name(model);
            assert_eq!(found.as_ref().map(Name::as_str), name, "{model}");
        }
        let long = gpu_name(&"x-".repeat(60)).unwrap();
        assert!(long.as_str().len() <= 63 && !long.as_str().ends_with('-'));
    }

    #[test]
    fn gpus_are_shown_as_people_say_them() {
        let named = [("t4", 1), ("a100", 2)].map(|(name, count)| (Name::new(name).unwrap(), count));
        let mut gpus = Gpus {
            any: 0,
            named: named.into(),
        };
        assert_eq!((gpus.to_string(), gpus.count()), ("2 a100, 1 t4".into(), 3));
        gpus.any = 4;
        assert_eq!(gpus.to_string(), "2 a100, 1 t4, 4");
        assert_eq!(Gpus::NONE.to_string(), "0");
    }
}
