//! Each operator, and what taints and tolerations say to each other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::spec::Constraint;
use loom_schemas::units::Millis;

use super::*;
use crate::state::fixture::{info, name, node_record};

fn node() -> NodeRecord {
    let mut info = info(4, 8);
    info.datacenter = Some("fra".to_owned());
    info.labels = BTreeMap::from([
        ("disk".to_owned(), "ssd".to_owned()),
        ("zones".to_owned(), "a, b,c".to_owned()),
        ("rack".to_owned(), "7".to_owned()),
        ("empty".to_owned(), String::new()),
    ]);
    info.attributes = BTreeMap::from([
        ("os".to_owned(), "ubuntu".to_owned()),
        ("os.version".to_owned(), "22.04".to_owned()),
        ("docker.version".to_owned(), "20.10.5+dfsg1".to_owned()),
    ]);
    info.kernel = "6.1.0-18-amd64".to_owned();
    let mut node = node_record(name("node-1"), info);
    node.labels = BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]);
    node
}

fn holds(line: &str) -> bool {
    let Ok(Constraint::Node(predicate)) = line.parse() else {
        panic!("{line}");
    };
    Rule::new(predicate).holds(&Attributes::of(&Arc::new(node())))
}

#[test]
fn each_operator_says_yes_and_no() {
    for (yes, no) in [
        ("arch == amd64", "arch == arm64"),
        ("arch != arm64", "arch != amd64"),
        ("os == ubuntu", "os == debian"),
        ("os.version >= 20", "os.version >= 22.10"),
        ("os.version == 22.4", "os.version == 22"),
        ("os.version != 22", "os.version != 22.04"),
        ("os.version < 100", "os.version < 9"),
        ("os.version <= 22.04.0", "os.version <= 22.03"),
        ("kernel > 5.10", "kernel > 6.1"),
        ("kernel regexp amd64$", "kernel regexp ^amd64"),
        (
            "docker.version version >= 20.10, < 25",
            "docker.version version ~> 20.9.0",
        ),
        (
            "node.label.zones set_contains c, a",
            "node.label.zones set_contains a, d",
        ),
        ("driver == process", "driver == docker"),
        ("driver != docker", "driver != process"),
        (
            "driver set_contains process",
            "driver set_contains process, docker",
        ),
        ("driver regexp ^proc", "driver regexp ^doc"),
        ("cpu >= 4", "cpu > 4"),
        ("cpu == 4", "cpu < 0.5"),
        ("memory >= 8GiB", "memory < 8192MiB"),
        ("disk == 0B", "disk > 0B"),
        ("datacenter is_set", "datacenter is_not_set"),
        ("node.name == node-1", "node.name == node-2"),
        ("node.label.rack >= 7", "node.label.rack > 7"),
        ("node.label.empty is_set", "node.label.empty == ssd"),
    ] {
        assert!(holds(yes), "{yes}");
        assert!(!holds(no), "{no}");
    }
}

#[test]
fn without_the_attribute_only_its_absence_and_unlikeness_hold() {
    for line in [
        "ip.external is_not_set",
        "ip.external != 1.2.3.4",
        "node.label.x != y",
    ] {
        assert!(holds(line), "{line}");
    }
    for line in [
        "ip.external is_set",
        "node.label.x == y",
        "node.label.x < 3",
        "node.label.x <= 3",
        "node.label.x > 3",
        "node.label.x >= 3",
        "node.label.x regexp .*",
        "node.label.x version >= 0",
        "node.label.x set_contains a",
    ] {
        assert!(!holds(line), "{line}");
    }
}

#[test]
fn a_label_that_is_no_version_is_neither_more_nor_less() {
    for line in [
        "node.label.disk < 3",
        "node.label.disk >= 3",
        "node.label.disk version > 0",
    ] {
        assert!(!holds(line), "{line}");
    }
}

#[test]
fn labels_of_people_stand_in_place_of_those_of_the_agent() {
    assert!(holds("node.label.disk == nvme"));
    assert!(!holds("node.label.disk == ssd"));
}

fn taint(text: &str) -> Taint {
    let (key, value, effect) = loom_schemas::spec::taint_parts(text);
    Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.unwrap().parse().unwrap(),
        after: Millis(0),
        by: "anna".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_taint_is_tolerated_by_key_value_and_effect() {
    let of = |key: Option<&str>, value: Option<&str>, effect| Toleration {
        key: key.map(str::to_owned),
        value: value.map(str::to_owned),
        effect,
        stay: None,
    };
    for (toleration, tolerated) in [
        (of(Some("gpu"), None, None), true),
        (of(None, None, None), true),
        (
            of(Some("gpu"), Some("a"), Some(TaintEffect::NoSchedule)),
            true,
        ),
        (of(Some("cpu"), None, None), false),
        (of(Some("gpu"), Some("b"), None), false),
        (of(Some("gpu"), None, Some(TaintEffect::Evict)), false),
    ] {
        let taint = taint("gpu=a:no-schedule");
        assert_eq!(tolerates(&toleration, &taint), tolerated, "{toleration:?}");
    }
}

#[test]
fn only_prefer_not_lets_a_new_run_in() {
    let with = |text: &str| {
        let mut node = node();
        node.taints = vec![taint(text)];
        Attributes::of(&Arc::new(node))
    };
    for (text, refused, shunned) in [
        ("a:no-schedule", true, false),
        ("a:evict", true, false),
        ("a:prefer-not", false, true),
    ] {
        assert_eq!(with(text).refuses(&[]).is_some(), refused, "{text}");
        assert_eq!(with(text).is_shunned(&[]), shunned, "{text}");
    }
    // One that may stay for a while is no reason to go there.
    let stays = Toleration {
        key: Some("a".to_owned()),
        stay: Some(Millis::secs(60)),
        ..Toleration::default()
    };
    assert!(with("a:evict").refuses(&[stays]).is_some());
}
