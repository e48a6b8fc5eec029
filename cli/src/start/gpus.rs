//! Gpus that a node is told to have.

use loom_schemas::ids::Name;
use loom_schemas::record::Gpu;
use loom_schemas::spec::gpu_name;

/// The most gpus of one name on a node.
const COUNT_MAX: u32 = 1024;

/// Reads `a100=4`.
pub(super) fn parse_gpus(text: &str) -> Result<(Name, u32), String> {
    let (name, count) = crate::address::parse_pair(text)?;
    parse(&name, &count)
}

/// Reads a name and how many of it there are.
pub(super) fn parse(name: &str, count: &str) -> Result<(Name, u32), String> {
    let gpu = Name::new(name).map_err(|error| match gpu_name(name) {
        Some(near) => format!("{error}; did you mean `{near}`?"),
        None => error.to_string(),
    })?;
    let count = count.parse().ok().filter(|count| *count <= COUNT_MAX);
    let count = count.ok_or_else(|| format!("expected a count from 0 to {COUNT_MAX}"))?;
    Ok((gpu, count))
}

/// That many of each, numbered through.
pub(super) fn numbered(counts: &[(Name, u32)]) -> Vec<Gpu> {
    let names = counts
        .iter()
        .flat_map(|(name, count)| (0..*count).map(move |_| name));
    let gpus = names.enumerate().map(|(number, name)| Gpu {
        name: name.clone(),
        id: number.to_string(),
    });
    gpus.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_a_name_and_a_count_and_are_numbered_through() {
        let told = ["a100=2", "t4=1", "h100=0"].map(|text| parse_gpus(text).unwrap());
        let gpus: Vec<String> = numbered(&told).iter().map(ToString::to_string).collect();
        assert_eq!(gpus, ["a100:0", "a100:1", "t4:2"]);
        for (bad, why) in [
            ("a100", "a100"),
            ("a100=x", "expected a count from 0 to 1024"),
            ("a100=2000", "expected a count from 0 to 1024"),
            ("Tesla T4=1", "did you mean `tesla-t4`?"),
        ] {
            let said = parse_gpus(bad).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
