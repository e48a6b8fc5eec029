//! The gpus of the host, as the driver of NVIDIA lists them.

use std::path::Path;

use loom_schemas::record::Gpu;
use loom_schemas::spec::gpu_name;

/// A directory for each device, with a file `information`.
pub(crate) const NVIDIA: &str = "/proc/driver/nvidia/gpus";

/// The gpus that a directory lists, in the order of their places on the bus.
pub(crate) fn listed(directory: &Path) -> Vec<Gpu> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut places: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    places.sort();
    let texts = places
        .into_iter()
        .filter_map(|place| std::fs::read_to_string(place.join("information")).ok());
    texts.filter_map(|text| described(&text)).collect()
}

/// The gpu that a text of the driver is of; none of one that nobody may use.
fn described(text: &str) -> Option<Gpu> {
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
        Some(value.trim())
    };
    if field("GPU Excluded") == Some("Yes") {
        return None;
    }
    let id = field("GPU UUID").filter(|id| id.starts_with("GPU-") && !id.contains('?'));
    let id = id.or_else(|| field("Device Minor").filter(|minor| minor.parse::<u32>().is_ok()));
    Some(Gpu {
        name: gpu_name(field("Model")?)?,
        id: id?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A100: &str = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 198\n\
         GPU UUID: \t GPU-5d3f26a7-1a1b-4c1c-9d5e-2f0b8e7c6a11\nVideo BIOS: \t 92.00.19.00.01\n\
         Bus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\n\
         Bus Location: \t 0000:07:00.0\nDevice Minor: \t 0\nGPU Excluded:\t No\n";

    #[test]
    fn gpus_have_their_models_name_and_their_uuid() {
        let directory = tempfile::tempdir().unwrap();
        let put = |place: &str, text: &str| {
            let place = directory.path().join(place);
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join("information"), text).unwrap();
        };
        put("0000:47:00.0", &A100.replace("GPU-5d3f", "GPU-0000"));
        put("0000:07:00.0", A100);
        // Until a device was used once its driver knows no UUID.
        let t4 = "Model: Tesla T4\nGPU UUID: GPU-????????-????\nDevice Minor: 2\n";
        put("0000:99:00.0", t4);
        put(
            "0000:a0:00.0",
            &A100.replace("Excluded:\t No", "Excluded:\t Yes"),
        );
        put("0000:b0:00.0", "nothing of this kind");
        let found: Vec<String> = listed(directory.path())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "nvidia-a100-sxm4-40gb:GPU-5d3f26a7-1a1b-4c1c-9d5e-2f0b8e7c6a11",
                "nvidia-a100-sxm4-40gb:GPU-000026a7-1a1b-4c1c-9d5e-2f0b8e7c6a11",
                "tesla-t4:2"
            ]
        );
        assert_eq!(listed(&directory.path().join("none")), []);
    }
}
