//! The house stays tidy: arrows between crates, the code map, sizes of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use loom_tests::cluster::checkout;

/// Which crates of ours each crate may name, as DESIGN and ARCHITECTURE.md say.
const ARROWS: &[(&str, &[&str])] = &[
    ("schemas", &[]),
    ("bus", &["loom-schemas"]),
    ("actors/task", &["loom-schemas", "loom-bus"]),
    ("actors/node", &["loom-schemas", "loom-bus", "loom-task"]),
    ("actors/manager", &["loom-schemas", "loom-bus"]),
    (
        "cli",
        &[
            "loom-schemas",
            "loom-bus",
            "loom-task",
            "loom-node",
            "loom-manager",
        ],
    ),
];

/// Crates that only one of ours may name.
const KEEPERS: &[(&str, &str)] = &[
    ("async-nats", "bus"),
    ("bollard", "actors/task"),
    ("saphyr-parser", "schemas"),
];

fn manifest(krate: &str) -> toml_lite::Dependencies {
    let path = checkout().join(krate).join("Cargo.toml");
    toml_lite::dependencies(&fs::read_to_string(&path).unwrap())
}

/// Just enough of a manifest's form for these tests.
mod toml_lite {
    pub(super) type Dependencies = Vec<String>;

    /// Names under `[dependencies]`.
    pub(super) fn dependencies(text: &str) -> Dependencies {
        text.lines()
            .skip_while(|line| line.trim() != "[dependencies]")
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(['.', '=', ' ']).next())
            .filter(|name| !name.is_empty() && !name.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }
}

fn sources(krate: &str) -> Vec<PathBuf> {
    files_below(&checkout().join(krate).join("src"))
}

/// The Rust files of a folder; none where there is no such folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    open.retain(|folder| folder.exists());
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn crates_name_only_those_below_them() {
    for (krate, allowed) in ARROWS {
        let named: BTreeSet<String> = manifest(krate)
            .into_iter()
            .filter(|name| name.starts_with("loom-"))
            .collect();
        let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
        assert!(
            named.is_subset(&allowed),
            "{krate} names {named:?}, allowed are {allowed:?}"
        );
    }
}

#[test]
fn one_crate_keeps_what_it_wraps() {
    for (krate, _) in ARROWS {
        for (wrapped, keeper) in KEEPERS {
            if krate != keeper {
                assert!(
                    !manifest(krate).contains(&(*wrapped).to_owned()),
                    "{krate}: {wrapped}"
                );
            }
        }
    }
    for name in ["tokio", "ractor"] {
        assert!(
            !manifest("schemas").contains(&name.to_owned()),
            "schemas is data only: {name}"
        );
    }
}

#[test]
fn only_the_start_room_of_the_command_line_names_managers_and_nodes() {
    for path in sources("cli") {
        let below = path.strip_prefix(checkout().join("cli")).unwrap();
        let inside = below.components().any(|part| part.as_os_str() == "start");
        let text = fs::read_to_string(&path).unwrap();
        if !inside {
            for name in ["loom_manager", "loom_node"] {
                assert!(!text.contains(name), "{} names {name}", path.display());
            }
        }
    }
}

/// The pure core reads no clock, does no I/O and is not async.
#[test]
fn the_pure_core_is_pure() {
    let rooms = ["state", "reconcile", "scheduler", "decide", "plan", "view"];
    let forbidden = [
        "tokio",
        "async ",
        ".await",
        "std::fs",
        "std::net",
        "SystemTime",
        "Instant::",
        "Timestamp::now",
        "Uuid::now",
        "loom_bus::Bus",
    ];
    for path in sources("actors/manager") {
        let below = path
            .strip_prefix(checkout().join("actors/manager"))
            .unwrap();
        let has = |name: &str| below.components().any(|part| part.as_os_str() == name);
        let is_test = has("tests") || has("tests.rs");
        if rooms.iter().any(|room| has(room)) && !is_test {
            for (number, line) in code_lines(&path) {
                for word in forbidden {
                    assert!(!says(&line, word), "{}:{number}: {word}", path.display());
                }
            }
        }
    }
}

/// Whether a line has a word, and not only a longer one that begins with it: `.awaited`.
fn says(line: &str, word: &str) -> bool {
    let longer =
        |rest: &str| word.ends_with(char::is_alphabetic) && rest.starts_with(char::is_alphabetic);
    line.match_indices(word)
        .any(|(at, _)| !longer(&line[at + word.len()..]))
}

/// Lines that are code, with their numbers.
fn code_lines(path: &Path) -> Vec<(usize, String)> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

#[test]
fn files_are_about_400_lines_at_most() {
    let mut long = BTreeMap::new();
    for (krate, _) in ARROWS {
        for path in sources(krate) {
            // Below the crate: the checkout itself may lie in a folder called `tests`.
            let below = path.strip_prefix(checkout().join(krate)).unwrap();
            let is_test = below.components().any(|p| p.as_os_str() == "tests")
                || path.file_stem().is_some_and(|stem| stem == "tests");
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if !is_test && lines > 450 {
                long.insert(path, lines);
            }
        }
    }
    assert!(long.is_empty(), "too long: {long:#?}");
}

/// A second try would hide what the first has found.
#[test]
fn what_is_tried_by_chance_is_never_run_again() {
    let config = fs::read_to_string(checkout().join(".ci/nextest.toml")).unwrap();
    let mut overrides = config.split("[[profile.default.overrides]]").skip(1);
    let never = overrides.find(|one| one.contains("\nretries = 0"));
    let never = never.expect("an override without retries");
    let by_chance = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let is_this = path.ends_with("tidy.rs");
        !is_this && (text.contains("proptest! {") || text.contains("var(\"LOOM_SEED\")"))
    };
    let crates = ARROWS.iter().map(|(krate, _)| *krate).chain(["tests"]);
    for krate in crates {
        let kind = if krate == "cli" {
            "kind(bin)"
        } else {
            "kind(lib)"
        };
        for path in sources(krate).into_iter().filter(by_chance) {
            let path = path.display();
            assert!(
                never.contains(kind),
                "{path}: .ci/nextest.toml runs it again"
            );
            let excepted = path.to_string().contains("health/probe");
            assert!(!excepted, "{path}: .ci/nextest.toml runs it again");
        }
        let folder = checkout().join(krate).join("tests");
        for path in files_below(&folder).into_iter().filter(by_chance) {
            let below = path.strip_prefix(folder.join("it")).unwrap();
            let module = below.with_extension("").display().to_string();
            let named = format!("test(/^{}::/)", module.replace('/', "::"));
            assert!(
                never.contains(&named),
                "{}: .ci/nextest.toml runs it again: add {named}",
                path.display()
            );
        }
    }
}

/// Every file and folder the code map names exists, and every source folder is on it.
#[test]
fn the_code_map_is_true() {
    let text = fs::read_to_string(checkout().join("ARCHITECTURE.md")).unwrap();
    let map = text
        .split("## Code map")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("ARCHITECTURE.md has a code map");
    let mut named = BTreeSet::new();
    for line in map.lines() {
        for path in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| word.contains('/'))
        {
            let path = path.trim_end_matches('/');
            assert!(checkout().join(path).exists(), "the code map names {path}");
            named.insert(path.to_owned());
        }
    }
    for (krate, _) in ARROWS {
        let source = checkout().join(krate).join("src");
        for entry in fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let only_tests = path.join("tests.rs").exists()
                && fs::read_dir(&path).is_ok_and(|inside| inside.count() == 1);
            // Programs that only tests start.
            let is_bin = path.file_name().is_some_and(|name| name == "bin");
            if path.is_dir() && !only_tests && !is_bin {
                let room = format!("{krate}/src/{}", entry.file_name().to_string_lossy());
                assert!(named.contains(&room), "the code map does not name {room}");
            }
        }
    }
}

/// Relative links in documents lead somewhere.
#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents: Vec<PathBuf> = fs::read_dir(checkout().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        documents.push(checkout().join(name));
    }
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(
                path.exists(),
                "{}: {link} leads nowhere",
                document.display()
            );
        }
    }
}
