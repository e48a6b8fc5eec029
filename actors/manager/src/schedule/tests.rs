use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use loom_schemas::wire::{JobRequest, ScaleRequest};
use loom_schemas::words::{Kind, RunState};
use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::child::CHILDREN_KEPT;
use crate::decide;
use crate::plan::{PlanOptions, Planned, plan};
use crate::state::fixture::{
    ANNA, at, cases, counter, decide as edit, job, name, report_of, submission, task, with_nodes,
};
use crate::state::live_runs;

/// The times of the tests begin 100 s before 22:15 UTC.
const FIRST: i64 = 100;

struct World {
    state: State,
    ids: Box<dyn FnMut() -> RunId>,
    events: Vec<String>,
    /// Since when somebody leads who has not listened to the nodes for long enough.
    leads_since: Option<i64>,
}

impl World {
    fn new() -> Self {
        Self {
            state: with_nodes(1, 4000),
            ids: Box::new(counter()),
            events: Vec::new(),
            leads_since: None,
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Draft)) {
        let decided = edit(&self.state, change);
        let told = decided.events.iter().map(|event| {
            let subject = event.subject().replace("orch.events.", "");
            format!("{subject}: {}", event.reason.as_deref().unwrap_or_default())
        });
        self.events.extend(told);
        self.state = decided.state;
    }

    fn submit(&mut self, cron: &str, overlap: Overlap, now: i64) {
        let spec = scheduled(cron, "UTC", overlap);
        self.edit(|draft| {
            decide::submit(draft, submission(&spec), ANNA, at(now)).unwrap();
        });
        self.plan(now);
    }

    /// Plans at this time, until nothing is left; when there is more to do by the clock.
    fn plan(&mut self, now: i64) -> Option<i64> {
        let options = PlanOptions {
            unheard_before: self.leads_since.map(at),
            ..PlanOptions::default()
        };
        loop {
            let mut ids = std::mem::replace(&mut self.ids, Box::new(counter()));
            let mut planned = Planned {
                more: false,
                due: None,
                jobs: 0,
            };
            self.edit(|draft| planned = plan(draft, at(now), &options, &mut ids));
            self.ids = ids;
            if !planned.more {
                return planned.due.map(|due| due.as_second() - at(0).as_second());
            }
        }
    }

    /// The children with how they stand, by name.
    fn children(&self) -> Vec<String> {
        let parent = name("backup");
        let children = self.state.children(&parent);
        let said = children.map(|child| {
            let time = child.name.as_str().trim_start_matches("backup-20231114t");
            format!("{time} {}", child.status)
        });
        said.collect()
    }

    /// The runs of a child end so.
    fn ends(&mut self, child: &str, state: RunState, now: i64) {
        self.ended(child, state, now);
        self.plan(now);
    }

    /// A node says so, and nothing is planned yet.
    fn ended(&mut self, child: &str, state: RunState, now: i64) {
        let child = name(&format!("backup-20231114t{child}"));
        let slot = self.state.slots_of(&child).next().unwrap();
        let run = live_runs(slot).next().unwrap();
        let mut report = report_of(&slot.slot, run.run, state);
        report.started_at = Some(at(now));
        report.ended_at = Some(at(now));
        report.exit = Some(Exit {
            code: Some(0),
            ..Exit::default()
        });
        self.edit(|draft| decide::report(draft, &name("node-1"), &[report], false, at(now)));
    }

    fn parent(&self) -> &JobRecord {
        self.state.job(&name("backup")).unwrap()
    }
}

fn scheduled(cron: &str, timezone: &str, overlap: Overlap) -> JobSpec {
    let mut main = task(1);
    main.resources.cpu = loom_schemas::units::MilliCores(1);
    let mut spec = job("backup", Kind::Batch, main);
    spec.schedule = Some(ScheduleSpec {
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        overlap,
    });
    spec
}

const EVERY_5: &str = "*/5 * * * *";

#[test]
fn each_firing_is_a_child_job_and_the_job_itself_runs_nothing() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Allow, 0);
    assert_eq!(world.parent().status, JobStatus::Pending);
    assert_eq!(
        world.plan(50),
        Some(FIRST),
        "it is known when it fires next"
    );
    assert!(world.children().is_empty());
    assert_eq!(world.plan(FIRST), Some(FIRST + 300));
    assert_eq!(world.children(), ["221500z pending"]);
    assert_eq!(world.parent().status, JobStatus::Running);
    assert_eq!(world.state.slots_of(&name("backup")).count(), 0);
    world.ends("221500z", RunState::Completed, FIRST + 10);
    world.plan(FIRST + 301);
    assert_eq!(world.children(), ["221500z completed", "222000z pending"]);
    let accepted = world
        .events
        .iter()
        .find(|event| event.contains("221500z.accepted"));
    let why = "the schedule of backup fired for 2023-11-14T22:15:00Z";
    assert!(accepted.unwrap().ends_with(why), "{accepted:?}");
}

#[test]
fn a_firing_skips_joins_or_replaces_the_one_before() {
    let fired = |overlap| {
        let mut world = World::new();
        world.submit(EVERY_5, overlap, 0);
        world.plan(FIRST);
        world.plan(FIRST + 300);
        world
    };
    let skips = fired(Overlap::Skip);
    assert_eq!(skips.children(), ["221500z pending"]);
    let skipped = "job.backup.skipped: the firing of 2023-11-14T22:20:00Z is passed over: \
                   backup-20231114t221500z has not ended";
    assert_eq!(skips.events.last().unwrap(), skipped);
    let joins = fired(Overlap::Allow);
    assert_eq!(joins.children(), ["221500z pending", "222000z pending"]);

    let mut replaces = fired(Overlap::Replace);
    assert_eq!(replaces.children(), ["221500z pending", "222000z pending"]);
    let second = name("backup-20231114t222000z");
    assert_eq!(
        replaces.state.slots_of(&second).count(),
        0,
        "the first has not ended yet"
    );
    let why = replaces.state.job(&second).unwrap().reason.clone();
    assert_eq!(
        why.unwrap(),
        "waiting for job backup-20231114t221500z to end"
    );
    replaces.ends("221500z", RunState::Killed, FIRST + 301);
    assert_eq!(replaces.children(), ["221500z killed", "222000z pending"]);
    assert_eq!(replaces.state.slots_of(&second).count(), 1);
    let first = replaces
        .state
        .job(&name("backup-20231114t221500z"))
        .unwrap();
    let why = "stopped by the schedule of backup: backup-20231114t222000z takes its place";
    assert_eq!(first.reason.as_deref(), Some(why));
}

#[test]
fn what_was_missed_is_made_up_for_once_for_the_last_time() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Allow, 0);
    // Nobody leads for an hour.
    assert_eq!(world.plan(FIRST + 3_610), Some(FIRST + 3_900));
    assert_eq!(world.children(), ["231500z pending"]);
    assert_eq!(
        world.parent().schedule.as_ref().unwrap().last,
        Some(at(FIRST + 3_600))
    );
}

#[test]
fn a_missed_firing_is_not_passed_over_for_one_that_has_ended_meanwhile() {
    for overlap in [Overlap::Skip, Overlap::Replace] {
        let mut world = World::new();
        world.submit(EVERY_5, overlap, 0);
        world.plan(FIRST);
        // Nobody leads for an hour; whoever does then has heard nothing of the nodes yet.
        world.state = State::from_records(&world.state);
        world.state.mark_all_dirty();
        let later = FIRST + 3_610;
        world.leads_since = Some(later);
        world.plan(later);
        assert_eq!(world.children(), ["221500z pending"]);
        assert_eq!(
            world.parent().schedule.as_ref().unwrap().next,
            Some(at(FIRST + 300))
        );
        // It has ended: that is known before it is planned.
        world.ended("221500z", RunState::Completed, later + 1);
        assert_eq!(world.plan(later + 1), Some(FIRST + 3_900));
        assert_eq!(world.children(), ["221500z completed", "231500z pending"]);
        assert!(!world.events.iter().any(|event| event.contains("skipped")));
    }
}

#[test]
fn one_that_still_runs_holds_up_a_missed_firing_once_the_nodes_were_heard() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Skip, 0);
    world.plan(FIRST);
    let later = FIRST + 3_610;
    world.leads_since = Some(later);
    assert_eq!(world.plan(later), None, "only more that is heard helps");
    world.leads_since = None;
    assert_eq!(world.plan(later + 30), Some(FIRST + 3_900));
    assert_eq!(world.children(), ["221500z pending"]);
    let skipped = "job.backup.skipped: the firing of 2023-11-14T23:15:00Z is passed over: \
                   backup-20231114t221500z has not ended";
    assert_eq!(world.events.last().unwrap(), skipped);
    // Of what was made since then all was heard.
    let mut young = World::new();
    young.leads_since = Some(0);
    young.submit(EVERY_5, Overlap::Skip, 0);
    young.plan(FIRST);
    young.plan(FIRST + 300);
    assert!(young.events.last().unwrap().contains("backup.skipped"));
    // What is not overlapped waits for nobody.
    let mut joins = World::new();
    joins.submit(EVERY_5, Overlap::Allow, 0);
    joins.plan(FIRST);
    joins.leads_since = Some(FIRST + 300);
    joins.plan(FIRST + 300);
    assert_eq!(joins.children(), ["221500z pending", "222000z pending"]);
}

#[test]
fn a_takeover_neither_doubles_nor_loses_a_firing() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Allow, 0);
    world.plan(FIRST);
    // Another leads, from the records, with a clock that is behind; then ahead.
    world.state = State::from_records(&world.state);
    world.state.mark_all_dirty();
    assert_eq!(world.plan(FIRST - 60), Some(FIRST + 300));
    assert_eq!(world.plan(FIRST), Some(FIRST + 300));
    assert_eq!(world.children(), ["221500z pending"]);
    world.state = State::from_records(&world.state);
    world.plan(FIRST + 300);
    assert_eq!(world.children(), ["221500z pending", "222000z pending"]);
}

#[test]
fn on_the_day_the_clocks_are_set_back_no_two_firings_share_a_name() {
    let times = |cron: &str| {
        let mut world = World::new();
        let spec = scheduled(cron, "Europe/Berlin", Overlap::Allow);
        // 2023-10-29: 03:00 becomes 02:00 at 01:00 UTC.
        let begin: Timestamp = "2023-10-28T23:50:00Z".parse().unwrap();
        let mut now = begin.as_second() - at(0).as_second();
        world.edit(|draft| {
            decide::submit(draft, submission(&spec), ANNA, at(now)).unwrap();
        });
        for _ in 0..60 {
            world.plan(now);
            now += 300;
        }
        let parent = name("backup");
        let names: Vec<String> = world
            .state
            .children(&parent)
            .map(|child| child.name.to_string())
            .collect();
        names
    };
    let once = times("30 2 * * *");
    assert_eq!(once, ["backup-20231029t003000z"]);
    let hours = times("0 * * * *");
    let expected: Vec<String> = (0..5)
        .map(|hour| format!("backup-20231029t0{hour}0000z"))
        .collect();
    assert_eq!(hours, expected);
}

#[test]
fn the_last_children_are_kept_and_stopping_the_job_stops_them() {
    let mut world = World::new();
    world.submit("* * * * *", Overlap::Allow, 0);
    let mut now = FIRST;
    for _ in 0..CHILDREN_KEPT + 5 {
        now += 60;
        world.plan(now);
        let child = world
            .children()
            .last()
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        world.ends(&child, RunState::Completed, now + 1);
    }
    now += 60;
    world.plan(now);
    assert_eq!(
        world.children().len(),
        CHILDREN_KEPT + 1,
        "and the one that lives"
    );
    let versions = world
        .state
        .all_records()
        .filter(|(key, _)| key.starts_with("version/backup-"));
    assert_eq!(
        versions.count(),
        CHILDREN_KEPT + 1,
        "nothing is left of those that went"
    );

    let stop = loom_schemas::wire::JobRequest {
        address: "backup".parse().unwrap(),
        reason: Some("enough".to_owned()),
    };
    world.edit(|draft| {
        decide::stop(draft, &stop, ANNA, at(1)).unwrap();
    });
    assert_eq!(world.plan(now + 1), None, "it fires no more");
    assert_eq!(
        world.parent().status,
        JobStatus::Running,
        "its last child is being stopped"
    );
    let child = world
        .children()
        .last()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    world.ends(&child, RunState::Killed, now + 2);
    assert_eq!(world.parent().status, JobStatus::Killed);
    assert_eq!(world.children().last().unwrap(), &format!("{child} killed"));
}

#[test]
fn a_new_version_has_a_new_schedule_and_a_new_round_begins_it_again() {
    let mut world = World::new();
    world.submit("0 3 * * *", Overlap::Skip, 0);
    world.submit(EVERY_5, Overlap::Skip, 1);
    assert_eq!(world.plan(2), Some(FIRST));
    let stop = loom_schemas::wire::JobRequest {
        address: "backup".parse().unwrap(),
        reason: None,
    };
    world.edit(|draft| {
        decide::stop(draft, &stop, ANNA, at(1)).unwrap();
    });
    assert_eq!(world.plan(FIRST + 400), None);
    assert_eq!(world.parent().status, JobStatus::Killed);
    world.submit(EVERY_5, Overlap::Skip, FIRST + 400);
    assert_eq!(
        world.plan(FIRST + 401),
        Some(FIRST + 600),
        "what passed meanwhile is not made up"
    );
    assert!(world.children().is_empty());
}

#[test]
fn a_schedule_that_was_taken_out_and_comes_back_makes_nothing_up() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Skip, 0);
    let mut without = scheduled(EVERY_5, "UTC", Overlap::Skip);
    without.schedule = None;
    world.edit(|draft| {
        decide::submit(draft, submission(&without), ANNA, at(1)).unwrap();
    });
    world.plan(1);
    world.submit(EVERY_5, Overlap::Skip, FIRST + 400);
    assert!(world.children().is_empty());
    assert_eq!(world.plan(FIRST + 401), Some(FIRST + 600));
}

#[test]
fn other_times_fire_for_themselves_alone_but_the_same_ones_keep_what_is_due() {
    let mut world = World::new();
    world.submit("15 22 * * *", Overlap::Skip, 0);
    world.submit("0 3 * * *", Overlap::Skip, FIRST + 10);
    assert!(world.children().is_empty(), "{:?}", world.children());
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Skip, 0);
    world.submit(EVERY_5, Overlap::Allow, FIRST);
    assert_eq!(world.children(), ["221500z pending"]);
    assert_eq!(world.parent().schedule.as_ref().unwrap().version, 2);
}

#[test]
fn of_a_job_with_a_schedule_nothing_is_scaled_and_no_index_is_stopped() {
    let mut world = World::new();
    world.submit(EVERY_5, Overlap::Skip, 0);
    let scale = ScaleRequest {
        job: name("backup"),
        task: None,
        replicas: 5,
    };
    let first = JobRequest {
        address: "backup/0".parse().unwrap(),
        reason: None,
    };
    world.edit(|draft| {
        let refused = [
            decide::scale(draft, &scale, ANNA, at(1)),
            decide::stop(draft, &first, ANNA, at(1)),
            decide::restart(draft, &first, ANNA, at(1)),
        ];
        for refused in refused {
            let message = refused.unwrap_err().message;
            assert!(message.contains("by its schedule"), "{message}");
        }
    });
    assert!(world.parent().scaled.is_empty() && world.parent().stopped_slots.is_empty());
}

#[test]
fn what_never_fires_is_refused() {
    let never = scheduled("0 0 30 2 *", "UTC", Overlap::Skip);
    let mut draft = Draft::new(State::default());
    let refused = decide::submit(&mut draft, submission(&never), ANNA, at(0)).unwrap_err();
    assert_eq!(refused.message, "schedule: no time ever matches it");
}

#[test]
fn no_more_firings_live_at_once_than_may_and_the_next_says_so() {
    let mut world = World::new();
    world.submit("* * * * * *", Overlap::Allow, 0);
    for second in 1..=i64::try_from(CHILDREN_LIVE_MAX).unwrap() + 1 {
        world.plan(second);
    }
    assert_eq!(world.children().len(), CHILDREN_LIVE_MAX);
    let mut skipped = world.events.iter();
    let skipped = skipped.find(|event| event.starts_with("job.backup.skipped"));
    let why = "100 firings have not ended, and at most 100 may live at once";
    assert!(skipped.unwrap().ends_with(why), "{skipped:?}");
}

proptest! {
    #![proptest_config(cases(300))]

    /// However often it is looked, and by whom: every minute fires at most once, none twice, and a
    /// minute at which somebody looks is not left out.
    #[test]
    fn each_time_fires_at_most_once(
        steps in prop::collection::vec((0u8..150, any::<bool>()), 1..30),
    ) {
        let mut world = World::new();
        world.submit("* * * * *", Overlap::Allow, 0);
        let mut now = 0;
        let mut fired = std::collections::BTreeSet::new();
        for (seconds, takes_over) in steps {
            let looked = now;
            now += i64::from(seconds);
            if takes_over {
                world.state = State::from_records(&world.state);
                world.state.mark_all_dirty();
            }
            let before = world.events.len();
            world.plan(now);
            let new: Vec<&String> = world.events[before..]
                .iter()
                .filter(|event| event.contains(".accepted"))
                .collect();
            // The clock of the tests begins 20 s into a minute.
            let is_due = (now + 20) / 60 > (looked + 20) / 60;
            assert_eq!(new.len(), usize::from(is_due), "{new:?} at {now}");
            for event in new {
                assert!(fired.insert(event.clone()), "{event} fired twice");
            }
            let next = world.parent().schedule.as_ref().unwrap();
            assert!(next.next.unwrap() > at(now), "nothing is due any more");
        }
    }
}
