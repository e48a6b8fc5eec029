//! Fields of the language that stand beside the ones of `right.rs`: read here whether or not this
//! build already does what they say.

use super::*;
use crate::spec::read::read_ahead;
use crate::units::MilliCores;
use crate::words::TaintEffect;

fn whole(text: &str) -> JobSpec {
    let read = read_ahead(text.as_bytes(), Syntax::Yaml, "job");
    read.unwrap_or_else(|report| panic!("{report}\n{text}"))
}

fn main(text: &str) -> TaskSpec {
    let mut job = whole(&format!("name: a\n{text}"));
    job.tasks.remove("main").unwrap()
}

fn refused(text: &str) -> String {
    let read = read_ahead(text.as_bytes(), Syntax::Yaml, "job");
    read.unwrap_err().to_string()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn a_job_says_its_priority_and_datacenters() {
    let job = whole("name: a\nbash: x\npriority: 80\ndatacenters: [fra-1, 2]");
    assert_eq!(job.priority, 80);
    assert_eq!(job.datacenters, ["fra-1", "2"]);
    assert_eq!(whole("name: a\nbash: x").priority, PRIORITY);
}

#[test]
fn an_update_has_its_defaults_and_its_fields() {
    let job = whole("name: a\nbash: x");
    assert_eq!(job.update, UpdateSpec::default());
    let update = whole(
        "name: a\nbash: x\nupdate: {parallel: 2, canary: 1, order: stop-first, healthy_for: 0s, \
         deadline: 1m, on_failure: pause}",
    );
    assert_eq!(
        update.update,
        UpdateSpec {
            parallel: 2,
            canary: 1,
            order: Some(UpdateOrder::StopFirst),
            healthy_for: Millis(0),
            deadline: Millis::secs(60),
            on_failure: OnUpdateFailure::Pause,
        }
    );
}

#[test]
fn a_task_with_a_fixed_port_is_stopped_first_unless_the_job_says_otherwise() {
    let free = main("bash: x\nports: {http: 80}");
    let fixed = main("bash: x\nports: {http: {host: 8080}}");
    let mut update = UpdateSpec::default();
    assert_eq!(update.order_of(&free), UpdateOrder::StartFirst);
    assert_eq!(update.order_of(&fixed), UpdateOrder::StopFirst);
    update.order = Some(UpdateOrder::StartFirst);
    assert_eq!(update.order_of(&fixed), UpdateOrder::StartFirst);
}

#[test]
fn a_schedule_makes_a_batch() {
    let job = whole("name: a\nbash: x\nschedule: '*/5 * * * *'");
    assert_eq!(job.kind, Kind::Batch);
    assert_eq!(
        job.schedule,
        Some(ScheduleSpec {
            cron: "*/5 * * * *".into(),
            timezone: "UTC".into(),
            overlap: Overlap::Skip,
        })
    );
    let job = whole(
        "name: a\nkind: batch\nbash: x\n\
         schedule: {cron: '0 0 3 * * *', timezone: europe/berlin, overlap: replace}",
    );
    let schedule = job.schedule.unwrap();
    assert_eq!(schedule.timezone, "Europe/Berlin");
    assert_eq!(schedule.overlap, Overlap::Replace);
    assert_eq!(job.tasks["main"].restart.on, RestartOn::Failure);
}

#[test]
fn jobs_and_tasks_wait_for_others() {
    let job = whole(
        "name: a\ndepends_on: [db, {job: queue, on: healthy}, {job: queue, task: worker, \
         on: running}]\nkind: batch\ntasks:\n  c: {bash: x, after: [b, {task: a, on: running}]}\n  \
         b: {bash: x}\n  a: {bash: x}",
    );
    let on = |job: &str, task: Option<&str>, on| DependsOn {
        job: name(job),
        task: task.map(name),
        on,
    };
    assert_eq!(
        job.depends_on,
        [
            on("db", None, DependOn::Completed),
            on("queue", None, DependOn::Healthy),
            on("queue", Some("worker"), DependOn::Running),
        ]
    );
    let after = |task: &str, on| After {
        task: name(task),
        on,
    };
    assert_eq!(
        job.tasks["c"].after,
        [
            after("a", DependOn::Running),
            after("b", DependOn::Completed)
        ]
    );
}

#[test]
fn a_cycle_of_tasks_is_shown_as_one() {
    assert_eq!(
        refused(
            "name: a\nkind: batch\ntasks:\n  a: {bash: x, after: [b]}\n  b: {bash: x, after: [d, c]}\n  \
             c: {bash: x, after: [b]}\n  d: {bash: x}\n  e: {bash: x, after: [a]}"
        ),
        "job:5:27: tasks.b.after[1]: the tasks wait for each other: b -> c -> b; remove one of these"
    );
    let chain = |n: usize| format!("  t{n}: {{bash: x, after: [t{}]}}\n", (n + 1) % 100);
    let tasks: String = (0..100).map(chain).collect();
    let report = refused(&format!("name: a\nkind: batch\ntasks:\n{tasks}"));
    assert!(
        report.contains("t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6 -> (93 more) -> t0"),
        "{report}"
    );
}

fn gpus(any: u32, named: &[(&str, u32)]) -> Gpus {
    let named = named.iter().map(|(of, count)| (name(of), *count));
    Gpus {
        any,
        named: named.collect(),
    }
}

#[test]
fn a_slot_has_what_its_index_says() {
    let task = main(
        "bash: x\nreplicas: 3\nargs: [a]\nenv: {A: all, B: all}\ncpu: 0.5\nper_index:\n  \
         1: {args: [b, '${task.index}'], env: {B: own}, cpu: 1, memory: 1GiB, disk: 2GiB, \
         disk_rate: 5MiB/s, pids: 9, cpu_limit: 2, gpus: {a100: 2, t4: 1}}\n  2: {args: [], gpus: 0}\n\
         gpus: 3",
    );
    assert_eq!(task.of_index(&0.into()).args, ["a"]);
    assert_eq!(task.of_index(&2.into()).args, Vec::<String>::new());
    let one = task.of_index(&1.into());
    assert_eq!(one.args, ["b", "${task.index}"]);
    assert_eq!((&*one.env["A"], &*one.env["B"]), ("all", "own"));
    assert!(one.per_index.is_empty());
    let expected = Resources {
        cpu: MilliCores(1000),
        cpu_limit: Some(MilliCores(2000)),
        memory: Bytes(1 << 30),
        disk: Bytes(2 << 30),
        disk_rate: Some(Bytes::mib(5)),
        pids: Some(9),
        gpus: Some(Box::new(gpus(0, &[("a100", 2), ("t4", 1)]))),
    };
    assert_eq!(one.resources, expected);
    assert_eq!(task.resources_of(&1.into()), expected);
    assert_eq!(task.resources_of(&0.into()), task.resources);
    assert_eq!(*task.resources.gpus(), gpus(3, &[]));
    assert_eq!(
        task.resources_of(&2.into()).gpus,
        None,
        "none in place of three"
    );
}

#[test]
fn params_and_sub_jobs_arrive() {
    let task = main("job: etl\nparams: {day: 1, from: '${job.name}'}");
    assert_eq!(task.operator, Operator::Job(SubJob { job: name("etl") }));
    assert_eq!(
        (&*task.params["day"], &*task.params["from"]),
        ("1", "${job.name}")
    );
}

#[test]
fn vars_have_types() {
    let job = whole(
        "name: a\nbash: x\nvars:\n  a: text\n  b: 3\n  c: true\n  d: {string: {max: 5}, default: x}\n  \
         e: {int: {min: -1, max: 5}, default: 0, help: how many}\n  f: {enum: [x, 1], default: 1}\n  \
         g: {bool: {}, default: true}",
    );
    let of = |name: &str| job.vars[name].of.clone();
    assert_eq!(of("a"), VarType::String { max: None });
    assert_eq!(job.vars["a"].value(), Some("text"));
    let any = VarType::Int {
        min: None,
        max: None,
    };
    assert_eq!((of("b"), of("c")), (any, VarType::Bool));
    assert_eq!(of("d"), VarType::String { max: Some(5) });
    let bounded = VarType::Int {
        min: Some(-1),
        max: Some(5),
    };
    assert_eq!(of("e"), bounded);
    assert_eq!(job.vars["e"].help.as_deref(), Some("how many"));
    assert_eq!(of("f"), VarType::Enum(vec!["x".into(), "1".into()]));
    assert_eq!(job.vars["f"].value(), Some("1"));
    assert_eq!(of("g"), VarType::Bool);
}

#[test]
fn constraints_arrive_in_one_spelling() {
    let job = whole(
        "name: a\nstrategy: binpack\nbash: x\nconstraints: [arch   == amd64, os.version >= 12, \
         node.label.disk == ssd, ip.external is_set, 'docker.version version >= 20.10, < 25', \
         'node.label.a regexp ^x(y|z) ', 'node.label.zones set_contains a, b', driver == docker, \
         memory >= 8GiB, distinct_hosts, datacenter distinct_property, \
         node.label.rack distinct_property 2, node.label.old is_not_set]",
    );
    assert_eq!(job.strategy, Some(crate::words::Strategy::Binpack));
    let texts: Vec<String> = job.tasks["main"]
        .constraints
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "arch == amd64",
            "os.version >= 12",
            "node.label.disk == ssd",
            "ip.external is_set",
            "docker.version version >= 20.10, < 25",
            "node.label.a regexp ^x(y|z)",
            "node.label.zones set_contains a, b",
            "driver == docker",
            "memory >= 8GiB",
            "distinct_hosts",
            "datacenter distinct_property",
            "node.label.rack distinct_property 2",
            "node.label.old is_not_set",
        ]
    );
    assert_eq!(
        job.tasks["main"].constraints[0],
        Constraint::Node(Predicate {
            attribute: Attribute::Arch,
            comparison: Comparison::Equal,
            value: "amd64".into(),
        })
    );
    super::laws::keeps_its_form(&job);
}

#[test]
fn every_attribute_reads_as_it_is_named() {
    let label = Attribute::Label("a/b.c".into());
    for attribute in Attribute::all().chain([label]) {
        assert_eq!(
            attribute.to_string().parse::<Attribute>().unwrap(),
            attribute
        );
    }
}

#[test]
fn preferences_and_tolerations_have_their_defaults_and_their_fields() {
    let task = main(
        "bash: x\naffinities: [arch == arm64, {match: node.label.disk == ssd, weight: -20}]\n\
         spread: [datacenter, {over: node.label.rack, weight: 80, targets: {a: 70, 2: 20}}]\n\
         tolerations: [gpu, a=b, 'a=b:prefer-not', '*', {key: a, for: 5m}, \
         {key: b, value: 1, effect: evict}]",
    );
    let weights = |list: &[Affinity]| {
        let pair = |affinity: &Affinity| (affinity.predicate.to_string(), affinity.weight);
        list.iter().map(pair).collect::<Vec<_>>()
    };
    let expected = [
        ("arch == arm64".to_owned(), WEIGHT),
        ("node.label.disk == ssd".to_owned(), -20),
    ];
    assert_eq!(weights(&task.affinities), expected);
    let rack = Attribute::Label("rack".into());
    let even = SpreadOver {
        over: Attribute::Datacenter,
        weight: WEIGHT,
        targets: BTreeMap::new(),
    };
    let uneven = SpreadOver {
        over: rack,
        weight: 80,
        targets: BTreeMap::from([("a".into(), 70), ("2".into(), 20)]),
    };
    assert_eq!(task.spread, [even, uneven]);
    let of = |key: Option<&str>, value: Option<&str>, effect, stay| Toleration {
        key: key.map(str::to_owned),
        value: value.map(str::to_owned),
        effect,
        stay,
    };
    assert_eq!(
        task.tolerations,
        [
            of(Some("gpu"), None, None, None),
            of(Some("a"), Some("b"), None, None),
            of(Some("a"), Some("b"), Some(TaintEffect::PreferNot), None),
            of(None, None, None, None),
            of(
                Some("a"),
                None,
                Some(TaintEffect::Evict),
                Some(Millis::secs(300))
            ),
            of(Some("b"), Some("1"), Some(TaintEffect::Evict), None),
        ]
    );
    let job = whole(
        "name: a\nbash: x\ntolerations: [gpu, {key: a, for: 5m}]\nspread: [datacenter, \
         {over: node.label.rack, targets: {a: 70}}]",
    );
    super::laws::keeps_its_form(&job);
}

#[test]
fn the_syntaxes_say_the_same_of_all_fields() {
    let yaml = "name: a\nkind: batch\npriority: 7\ndatacenters: [x]\nschedule: {cron: '0 3 * * *'}\n\
                depends_on: [b]\nvars: {n: 3}\nupdate: {parallel: 2}\ntasks:\n  b: {bash: x}\n  \
                a: {bash: x, after: [b], per_index: {0: {cpu: 1}}, params: {p: q}, disk: 1GiB, \
                disk_rate: 1MiB/s}\n";
    let toml = "name = \"a\"\nkind = \"batch\"\npriority = 7\ndatacenters = [\"x\"]\n\
                schedule.cron = \"0 3 * * *\"\ndepends_on = [\"b\"]\nvars.n = 3\n\
                update.parallel = 2\n[tasks.b]\nbash = \"x\"\n[tasks.a]\nbash = \"x\"\n\
                after = [\"b\"]\nper_index.0.cpu = 1\nparams.p = \"q\"\ndisk = \"1GiB\"\n\
                disk_rate = \"1MiB/s\"\n";
    let json = r#"{"name": "a", "kind": "batch", "priority": 7, "datacenters": ["x"],
        "schedule": {"cron": "0 3 * * *"}, "depends_on": ["b"], "vars": {"n": 3},
        "update": {"parallel": 2}, "tasks": {"b": {"bash": "x"}, "a": {"bash": "x",
        "after": ["b"], "per_index": {"0": {"cpu": 1}}, "params": {"p": "q"}, "disk": "1GiB",
        "disk_rate": "1MiB/s"}}}"#;
    let expected = whole(yaml);
    assert_eq!(
        read_ahead(toml.as_bytes(), Syntax::Toml, "job").unwrap(),
        expected
    );
    assert_eq!(
        read_ahead(json.as_bytes(), Syntax::Json, "job").unwrap(),
        expected
    );
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let packed = rmp_serde::to_vec_named(&value).unwrap();
    let packed = read_ahead(&packed, Syntax::MessagePack, "job").unwrap();
    assert_eq!(packed, expected);
    super::laws::keeps_its_form(&expected);
}

/// What the log kept before there were these fields.
#[test]
fn an_old_job_reads_with_the_defaults() {
    let job = whole("name: a\nbash: x");
    let text = serde_json::to_string(&job).unwrap();
    for field in [
        "priority",
        "update",
        "vars",
        "after",
        "schedule",
        "per_index",
        "params",
        "strategy",
        "constraints",
        "affinities",
        "spread",
        "tolerations",
    ] {
        assert!(!text.contains(field), "{field}: {text}");
    }
    assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), job);
}

const WRONG: &str = include_str!("ahead.txt");

/// As `wrong.txt`, of files that use what this build may not do yet.
#[test]
fn every_wrong_value_has_its_place_and_help() {
    let mut wrong = String::new();
    for case in WRONG.split("### ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, report) = rest.split_once(">>>\n").unwrap();
        let told = format!("{}\n", refused(text));
        if told != report {
            wrong.extend([title, "\n", &told]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
