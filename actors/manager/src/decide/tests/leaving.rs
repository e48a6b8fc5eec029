//! Nodes that people drain, taint and label, and tasks that ask for nodes.

use loom_schemas::record::{NodeInfo, RunRecord};
use loom_schemas::spec::{Constraint, Toleration, UpdateOrder};
use loom_schemas::units::Millis;
use loom_schemas::wire::{DrainRequest, LabelRequest, NodeRequest, TaintRequest};

use super::*;

fn drain_of(node: &str, deadline_ms: Option<u64>) -> DrainRequest {
    DrainRequest {
        node: name(node),
        deadline_ms,
        no_deadline: deadline_ms.is_none(),
        reason: Some("new kernel".to_owned()),
    }
}

fn taint_of(node: &str, set: &[&str], remove: &[&str], after_ms: Option<u64>) -> TaintRequest {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    TaintRequest {
        node: name(node),
        set: owned(set),
        remove: owned(remove),
        after_ms,
    }
}

fn label_of(node: &str, key: &str, value: &str) -> LabelRequest {
    LabelRequest {
        node: name(node),
        set: [(key.to_owned(), value.to_owned())].into(),
        remove: Vec::new(),
    }
}

impl Leader {
    pub(super) fn arrives(&mut self, node: &str, info: NodeInfo) {
        let message = hello_of(info, Vec::new());
        self.decide(|draft| hello(draft, &name(node), &message, false, at(2)));
    }

    pub(super) fn drains(&mut self, node: &str, deadline_ms: Option<u64>, seconds: i64) {
        let request = drain_of(node, deadline_ms);
        let (done, _) = self.decide(|draft| drain(draft, &request, ANNA, at(seconds)));
        assert_eq!(done, Ok(true));
    }

    fn taints(&mut self, request: &TaintRequest, seconds: i64) {
        let (done, _) = self.decide(|draft| taint(draft, request, ANNA, at(seconds)));
        assert_eq!(done, Ok(true));
    }

    fn labels(&mut self, node: &str, key: &str, value: &str) -> Decided {
        let request = label_of(node, key, value);
        let (done, decided) = self.decide(|draft| label(draft, &request, ANNA, at(3)));
        assert_eq!(done, Ok(true));
        decided
    }

    pub(super) fn incoming_of(&self, slot: &Slot) -> Option<&RunRecord> {
        self.slot(slot).incoming.as_ref()
    }

    /// The node of every run that goes on, by index.
    pub(super) fn places(&self, job: &str) -> Vec<String> {
        let runs = self.state.slots_of_job(job).into_iter().map(|record| {
            let run = record.current.filter(crate::state::is_live);
            run.and_then(|run| run.node)
                .map_or("-".to_owned(), |node| node.to_string())
        });
        runs.collect()
    }

    /// A run says how far it is.
    pub(super) fn reports(&mut self, run: &RunRecord, slot: &Slot, state: RunState, seconds: i64) {
        let over = state.is_terminal();
        let said = RunReport {
            placement: run.placement,
            version: run.version,
            started_at: Some(run.started_at.unwrap_or(at(seconds))),
            ended_at: over.then(|| at(seconds)),
            ..report_of(slot, run.run, state)
        };
        let node = run.node.clone().unwrap();
        self.decide(|draft| report(draft, &node, &[said], false, at(seconds)));
    }

    /// Every run does what it was told, and whatever is new runs.
    pub(super) fn all_obey(&mut self, job: &str, seconds: i64) {
        for record in self.state.slots_of_job(job) {
            for run in record.current.iter().chain(&record.incoming) {
                let state = match run.order {
                    Order::Run => RunState::Running,
                    Order::Stop { .. } => RunState::Killed,
                };
                if crate::state::is_live(run) && run.state != state {
                    self.reports(run, &record.slot, state, seconds);
                }
            }
        }
        self.plan(seconds);
    }
}

impl State {
    fn slots_of_job(&self, job: &str) -> Vec<SlotRecord> {
        let job = name(job);
        self.slots_of(&job)
            .map(|record| SlotRecord::clone(record))
            .collect()
    }
}

pub(super) fn stop_reason(run: &RunRecord) -> Option<&str> {
    match &run.order {
        Order::Run => None,
        Order::Stop { reason } => Some(reason),
    }
}

const DRAINED: &str = "node node-1 is drained by anna: new kernel";

#[test]
fn a_service_leaves_a_drained_node_once_another_run_counts() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    leader.arrives("node-2", info(4, 8));
    leader.drains("node-1", None, 20);
    assert_eq!(leader.last, ["node.node-1.draining"]);
    leader.plan(20);
    let web = slot("web", 0);
    let new = leader.incoming_of(&web).cloned().unwrap();
    assert_eq!(new.node, Some(name("node-2")));
    assert_eq!(stop_reason(leader.current(&web)), None);
    leader.reports(&new, &web, RunState::Running, 21);
    leader.plan(25);
    assert_eq!(
        stop_reason(leader.current(&web)),
        None,
        "healthy_for is not over"
    );
    leader.plan(31);
    assert_eq!(stop_reason(leader.current(&web)), Some(DRAINED));
    leader.all_obey("web", 32);
    assert_eq!(leader.places("web"), ["node-2"]);
    assert!(
        leader.last.contains(&"node.node-1.drained".to_owned()),
        "{:?}",
        leader.last
    );
    let node = leader.state.node(&name("node-1")).unwrap();
    assert_eq!(node.drain.as_ref().unwrap().done_at, Some(at(32)));
    let undrained = NodeRequest {
        node: name("node-1"),
        reason: None,
    };
    let (done, _) = leader.decide(|draft| undrain(draft, &undrained, ANNA, at(40)));
    assert_eq!(done, Ok(true));
    assert_eq!(leader.last, ["node.node-1.undrained"]);
    let (done, _) = leader.decide(|draft| undrain(draft, &undrained, ANNA, at(41)));
    assert_eq!(done, Ok(false));
}

#[test]
fn stop_first_takes_no_more_than_parallel_down() {
    let mut leader = Leader::new(1);
    let mut spec = job("web", Kind::Service, task(3));
    spec.update.order = Some(UpdateOrder::StopFirst);
    leader.running(&spec);
    leader.arrives("node-2", info(4, 8));
    leader.drains("node-1", None, 20);
    let stopped = |leader: &Leader| {
        let slots = leader.state.slots_of_job("web");
        slots
            .iter()
            .filter(|s| s.current.as_ref().is_some_and(|r| stop_reason(r).is_some()))
            .count()
    };
    leader.plan(20);
    assert_eq!(stopped(&leader), 1);
    leader.all_obey("web", 21);
    assert_eq!(stopped(&leader), 0, "one is on its way");
    leader.all_obey("web", 22);
    assert_eq!(stopped(&leader), 0, "and does not count yet");
    leader.plan(32);
    assert_eq!(stopped(&leader), 1);
    for seconds in 33..80 {
        leader.all_obey("web", seconds);
        assert!(stopped(&leader) <= 1);
    }
    assert_eq!(leader.places("web"), ["node-2"; 3]);
}

#[test]
fn without_room_elsewhere_a_run_stays_and_says_so_until_the_deadline() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    leader.drains("node-1", Some(60_000), 20);
    leader.plan(20);
    let web = slot("web", 0);
    let waits = "node node-1 is drained by anna: new kernel, but no node fits: 1 draining";
    assert_eq!(leader.slot(&web).waiting.as_deref(), Some(waits));
    assert_eq!(leader.last, ["task.web.main.0.pending"]);
    leader.plan(79);
    assert_eq!(stop_reason(leader.current(&web)), None);
    leader.plan(80);
    assert_eq!(stop_reason(leader.current(&web)), Some(DRAINED));
}

#[test]
fn a_node_taken_back_keeps_its_run_and_ends_the_other() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    leader.arrives("node-2", info(4, 8));
    leader.drains("node-1", None, 20);
    leader.plan(20);
    let web = slot("web", 0);
    assert!(leader.incoming_of(&web).is_some());
    let request = NodeRequest {
        node: name("node-1"),
        reason: None,
    };
    leader
        .decide(|draft| undrain(draft, &request, ANNA, at(22)))
        .0
        .unwrap();
    leader.plan(22);
    assert!(stop_reason(leader.incoming_of(&web).unwrap()).is_some());
    leader.all_obey("web", 23);
    leader.all_obey("web", 24);
    assert_eq!(leader.places("web"), ["node-1"]);
    assert!(leader.incoming_of(&web).is_none());
}

#[test]
fn a_batch_is_let_run_until_the_deadline() {
    let mut leader = Leader::new(2);
    leader.running(&job("etl", Kind::Batch, task(1)));
    let node = leader.node_of(&slot("etl", 0));
    leader.drains(node.as_str(), Some(60_000), 20);
    leader.plan(79);
    assert_eq!(stop_reason(leader.current(&slot("etl", 0))), None);
    leader.plan(80);
    assert!(stop_reason(leader.current(&slot("etl", 0))).is_some());
    leader.all_obey("etl", 81);
    assert_ne!(
        leader.places("etl"),
        [node.to_string()],
        "it runs elsewhere"
    );
}

#[test]
fn what_people_said_of_a_node_stays_when_its_agent_starts_again() {
    let mut leader = Leader::new(1);
    leader.drains("node-1", None, 20);
    assert_eq!(leader.last, ["node.node-1.drained"], "nothing was on it");
    leader.taints(&taint_of("node-1", &["a=b:prefer-not"], &[], None), 21);
    let decided = leader.labels("node-1", "disk", "ssd");
    assert!(
        decided.assigns.contains_key(&name("node-1")),
        "its runs refer to labels"
    );
    leader.arrives("node-1", info(8, 8));
    let node = leader.state.node(&name("node-1")).unwrap();
    assert!(node.drain.is_some());
    assert_eq!(node.taints[0].to_string(), "a=b:prefer-not");
    assert_eq!(node.label("disk"), Some("ssd"));
    let whole = crate::plan::whole_assignment(
        &leader.state,
        &name("node-1"),
        "c",
        loom_schemas::ids::Epoch::default(),
    );
    assert_eq!(whole.unwrap().labels["disk"], "ssd");
}

#[test]
fn taints_keep_away_and_evict_after_their_time() {
    let mut leader = Leader::new(1);
    leader.running(&job("old", Kind::Service, task(1)));
    leader.taints(&taint_of("node-1", &["gpu=a:no-schedule"], &[], None), 3);
    leader.submit(&job("new", Kind::Service, task(1))).unwrap();
    leader.plan(4);
    assert_eq!(stop_reason(leader.current(&slot("old", 0))), None);
    assert_eq!(
        leader.slot(&slot("new", 0)).waiting.as_deref(),
        Some("no node fits: 1 taint gpu=a:no-schedule")
    );
    let mut tolerant = task(1);
    tolerant.tolerations = vec![Toleration {
        key: Some("gpu".to_owned()),
        ..Toleration::default()
    }];
    leader.submit(&job("gpu", Kind::Service, tolerant)).unwrap();
    leader.plan(5);
    assert_eq!(leader.places("gpu"), ["node-1"]);
    leader.taints(
        &taint_of("node-1", &["bad:evict"], &["gpu"], Some(60_000)),
        10,
    );
    leader.plan(69);
    assert_eq!(stop_reason(leader.current(&slot("old", 0))), None);
    leader.plan(70);
    let evicted = Some("node node-1 is tainted bad:evict by anna");
    assert_eq!(stop_reason(leader.current(&slot("old", 0))), evicted);
    leader.taints(&taint_of("node-1", &[], &["bad:evict"], None), 71);
    leader.all_obey("new", 72);
    assert_eq!(leader.places("new"), ["node-1"], "it was tried again");
}

#[test]
fn a_toleration_with_a_time_keeps_a_run_there_for_so_long() {
    let mut leader = Leader::new(1);
    let mut patient = task(1);
    patient.tolerations = vec![Toleration {
        key: Some("bad".to_owned()),
        stay: Some(Millis::secs(300)),
        ..Toleration::default()
    }];
    leader.running(&job("web", Kind::Service, patient));
    leader.taints(&taint_of("node-1", &["bad:evict"], &[], None), 10);
    leader.plan(309);
    assert_eq!(stop_reason(leader.current(&slot("web", 0))), None);
    leader.plan(310);
    assert!(stop_reason(leader.current(&slot("web", 0))).is_some());
}

#[test]
fn a_node_with_prefer_not_is_taken_where_no_other_has_room() {
    let mut leader = Leader::new(2);
    leader.taints(&taint_of("node-1", &["old:prefer-not"], &[], None), 1);
    leader.running(&job("web", Kind::Service, task(6)));
    let mut places = leader.places("web");
    places.sort();
    let expected = ["node-1", "node-1", "node-2", "node-2", "node-2", "node-2"];
    assert_eq!(places, expected);
}

fn asking(constraints: &[&str], replicas: u32) -> JobSpec {
    let mut main = task(replicas);
    main.constraints = constraints
        .iter()
        .map(|c| c.parse::<Constraint>().unwrap())
        .collect();
    job("web", Kind::Service, main)
}

#[test]
fn a_constraint_waits_for_a_node_that_is_so_and_says_what_it_waits_for() {
    let mut leader = Leader::new(2);
    leader
        .submit(&asking(&["node.label.disk == ssd", "arch == amd64"], 1))
        .unwrap();
    leader.plan(2);
    assert_eq!(
        leader.slot(&slot("web", 0)).waiting.as_deref(),
        Some("no node fits: 2 constraint node.label.disk == ssd")
    );
    leader.labels("node-2", "disk", "ssd");
    leader.plan(3);
    assert_eq!(leader.places("web"), ["node-2"]);
}

#[test]
fn replicas_with_distinct_hosts_are_each_on_a_node_of_their_own() {
    let mut leader = Leader::new(2);
    leader.submit(&asking(&["distinct_hosts"], 3)).unwrap();
    leader.plan(2);
    assert_eq!(leader.places("web"), ["node-1", "node-2", "-"]);
    assert_eq!(
        leader.slot(&slot("web", 2)).waiting.as_deref(),
        Some("no node fits: 2 constraint distinct_hosts")
    );
    leader.arrives("node-3", info(4, 8));
    leader.plan(4);
    assert_eq!(leader.places("web"), ["node-1", "node-2", "node-3"]);
    // An update finds room beside its own old run, though every node has a replica.
    leader.all_run(&name("web"), 5);
    let mut next = asking(&["distinct_hosts"], 3);
    next.tasks.get_mut("main").unwrap().args = vec!["new".to_owned()];
    leader.submit(&next).unwrap();
    for seconds in 20..80 {
        leader.all_obey("web", seconds);
    }
    let slots = leader.state.slots_of_job("web");
    assert!(
        slots
            .iter()
            .all(|slot| slot.current.as_ref().unwrap().version == 2)
    );
    assert_eq!(leader.places("web"), ["node-1", "node-2", "node-3"]);
}

#[test]
fn replicas_with_a_distinct_property_share_a_value_no_more_often() {
    let mut leader = Leader::new(0);
    for (node, rack) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "")] {
        leader.arrives(node, info(4, 8));
        if !rack.is_empty() {
            leader.labels(node, "rack", rack);
        }
    }
    leader
        .submit(&asking(&["node.label.rack distinct_property"], 3))
        .unwrap();
    leader.plan(2);
    let places = leader.places("web");
    let racks = |nodes: &[&str]| {
        places
            .iter()
            .filter(|at| nodes.contains(&at.as_str()))
            .count()
    };
    assert_eq!(
        (
            racks(&["a", "b"]),
            racks(&["c"]),
            racks(&["d"]),
            racks(&["-"])
        ),
        (1, 1, 0, 1)
    );
    leader.labels("d", "rack", "3");
    leader.plan(4);
    assert_eq!(leader.places("web")[2], "d");
}

#[test]
fn a_system_job_follows_labels_and_taints_and_leaves_a_drained_node_last() {
    let mut leader = Leader::new(2);
    let mut agent = asking(&["node.label.edge is_set"], 1);
    agent.kind = Kind::System;
    agent.name = name("agent");
    leader.submit(&agent).unwrap();
    leader.plan(2);
    assert!(leader.places("agent").is_empty());
    leader.labels("node-1", "edge", "yes");
    leader.plan(3);
    leader.all_obey("agent", 3);
    assert_eq!(leader.places("agent"), ["node-1"]);
    leader.running(&asking(&["node.name == node-1"], 1));
    leader.drains("node-1", Some(60_000), 20);
    leader.plan(20);
    let at_node = Slot::at(name("agent"), Name::main(), name("node-1").into());
    assert_eq!(
        stop_reason(leader.current(&at_node)),
        None,
        "others are still there"
    );
    leader.plan(80);
    assert_eq!(stop_reason(leader.current(&at_node)), Some(DRAINED));
    leader.all_obey("web", 81);
    leader.all_obey("agent", 82);
    assert!(leader.places("agent").is_empty());
    assert_eq!(
        leader
            .state
            .load(&name("node-1"))
            .map(|load| load.placements.len()),
        None
    );
    let request = NodeRequest {
        node: name("node-1"),
        reason: None,
    };
    leader
        .decide(|draft| undrain(draft, &request, ANNA, at(90)))
        .0
        .unwrap();
    leader.plan(90);
    assert_eq!(leader.places("agent"), ["node-1"]);
    leader.taints(&taint_of("node-1", &["bad:evict"], &[], None), 95);
    leader.plan(95);
    assert!(stop_reason(leader.current(&at_node)).is_some());
    leader.all_obey("agent", 96);
    assert!(leader.places("agent").is_empty());
}

#[test]
fn what_cannot_be_said_of_a_node_is_refused_with_what_to_write() {
    let mut leader = Leader::new(1);
    let said = |leader: &mut Leader, request: &TaintRequest| {
        let (done, _) = leader.decide(|draft| taint(draft, request, ANNA, at(1)));
        done.unwrap_err().message
    };
    for (request, expected) in [
        (taint_of("nope", &["a:evict"], &[], None), "no node nope"),
        (
            taint_of("node-1", &["gpu"], &[], None),
            "taint gpu: it has no effect; write gpu:no-schedule, gpu:prefer-not or gpu:evict",
        ),
        (
            taint_of("node-1", &["gpu:no-scedule"], &[], None),
            "taint gpu:no-scedule: unknown effect `no-scedule`; did you mean `no-schedule`?",
        ),
        (
            taint_of("node-1", &[], &["gpu"], None),
            "node node-1 has no taint gpu",
        ),
        (
            taint_of("node-1", &["gpu:no-schedule"], &[], Some(5)),
            "a time is only for the effect `evict`",
        ),
        (
            taint_of("node-1", &[], &[], None),
            "nothing is asked for: write key:effect, or key:effect-",
        ),
    ] {
        assert_eq!(said(&mut leader, &request), expected);
    }
    let remove = LabelRequest {
        node: name("node-1"),
        set: std::collections::BTreeMap::new(),
        remove: vec!["disk".to_owned()],
    };
    let (done, _) = leader.decide(|draft| label(draft, &remove, ANNA, at(1)));
    assert_eq!(done.unwrap_err().message, "node node-1 has no label disk");
    let (done, _) =
        leader.decide(|draft| label(draft, &label_of("node-1", "a b", "c"), ANNA, at(1)));
    assert!(
        done.unwrap_err()
            .message
            .starts_with("label `a b` is not a key")
    );
}
