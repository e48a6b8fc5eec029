//! Which versions are healthy, when an update is late, and what changes under one.

use loom_schemas::record::UpdatePhase;
use loom_schemas::spec::{OnUpdateFailure, RestartOn};
use loom_schemas::wire::{RollbackRequest, UpdateVerb};

use super::rolling::{service, stop_first};
use super::*;

impl Leader {
    fn back(&mut self, seconds: i64) -> Result<(u32, u32), WireError> {
        let request = RollbackRequest {
            job: name("web"),
            to: None,
            if_version: None,
            reason: None,
        };
        let back = self.decide(|draft| rollback(draft, &request, ANNA, at(seconds)));
        self.plan(seconds);
        back.0
    }

    fn scale(&mut self, replicas: u32, seconds: i64) {
        let request = ScaleRequest {
            job: name("web"),
            task: None,
            replicas,
        };
        let scaled = self.decide(|draft| scale(draft, &request, ANNA, at(seconds)));
        assert!(scaled.0.unwrap());
        self.plan(seconds);
    }

    /// The first of a service with canaries runs the new version, and it waits to be promoted.
    fn at_the_canaries(&mut self) {
        self.healthy(&service("1"));
        self.submit(&canaries("2")).unwrap();
        self.plan(100);
        for seconds in [101, 111, 112, 122] {
            self.obey(seconds);
        }
        assert_eq!(self.rolled(), ["2", "1", "1"]);
        assert_eq!(self.phase(), UpdatePhase::Canary);
    }

    /// A version all runs of which fail, while its update goes on all the same.
    fn fails_and_goes_on(&mut self) {
        let mut spec = stop_first("2");
        spec.update.on_failure = OnUpdateFailure::Continue;
        self.submit(&spec).unwrap();
        for seconds in 20..60 {
            self.plan(seconds);
            for index in 0..3 {
                let Some(run) = self.slot(&slot("web", index)).current.clone() else {
                    continue;
                };
                if run.state.is_terminal() {
                    continue;
                }
                let ends = match run.order {
                    Order::Run if run.version == 1 => continue,
                    Order::Run => RunState::Failed,
                    Order::Stop { .. } => RunState::Killed,
                };
                self.tell(index, &run, ends, seconds);
            }
        }
    }
}

fn canaries(variant: &str) -> JobSpec {
    let mut spec = service(variant);
    spec.update.canary = 1;
    spec
}

#[test]
fn a_version_is_healthy_once_all_of_it_counts() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    assert!(leader.job("web").healthy.is_empty(), "for 0 of 10 s");
    leader.plan(12);
    assert_eq!(leader.job("web").healthy, [1].into());
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    for seconds in [101, 111, 112, 113, 123, 124, 125] {
        leader.obey(seconds);
        assert_eq!(leader.job("web").healthy, [1].into(), "at {seconds}");
    }
    for seconds in [135, 136] {
        leader.obey(seconds);
    }
    assert_eq!(leader.phase(), UpdatePhase::Done);
    assert_eq!(leader.job("web").healthy, [1, 2].into());
}

#[test]
fn a_version_that_was_never_healthy_is_never_gone_back_to() {
    let mut leader = Leader::new(2);
    leader.healthy(&stop_first("1"));
    leader.plan(12);
    leader.fails_and_goes_on();
    assert_eq!(leader.phase(), UpdatePhase::Done, "it went on to the end");
    assert_eq!(leader.job("web").healthy, [1].into());
    leader.submit(&stop_first("3")).unwrap();
    assert_eq!(leader.job("web").update.as_ref().unwrap().from, Some(1));
}

#[test]
fn a_person_goes_back_to_where_an_update_goes_back_by_itself() {
    let mut leader = Leader::new(2);
    leader.healthy(&stop_first("1"));
    leader.plan(12);
    leader.fails_and_goes_on();
    assert_eq!(leader.back(60).unwrap().0, 3);
    let third = leader.state.version(&name("web"), 3).unwrap();
    assert_eq!(third.spec, stop_first("1"));
    for seconds in 61..120 {
        leader.obey(seconds);
    }
    assert_eq!(leader.job("web").healthy, [1, 3].into());
    let refused = leader.back(120).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    let why = "went back to version 1 already, as version 3";
    assert!(refused.message.contains(why), "{}", refused.message);
    // Of one that was stopped since, all that was healthy says the same as the wanted one.
    let stopped = leader.decide(|draft| stop(draft, &whole("web"), ANNA, at(1)));
    stopped.0.unwrap();
    leader.plan(121);
    let refused = leader.back(121).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    let why = "no other version than 3 was healthy";
    assert!(refused.message.contains(why), "{}", refused.message);
}

#[test]
fn the_last_healthy_version_is_kept_however_many_follow() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.plan(12);
    for number in 2..40 {
        let mut spec = service(&number.to_string());
        spec.update.on_failure = OnUpdateFailure::Pause;
        leader.submit(&spec).unwrap();
    }
    assert_eq!(leader.state.versions(&name("web")).count(), 21);
    assert_eq!(leader.back(100).unwrap().0, 40);
    let last = leader.state.version(&name("web"), 40).unwrap();
    assert_eq!(last.spec, service("1"));
}

#[test]
fn the_time_an_old_run_takes_to_end_is_not_the_new_ones() {
    let mut leader = Leader::new(1);
    leader.healthy(&stop_first("1"));
    leader.submit(&stop_first("2")).unwrap();
    leader.plan(100);
    let old = leader.running_of(0);
    leader.plan(900);
    assert_eq!(leader.rolled(), ["-1", "1", "1"], "its grace is its own");
    leader.tell(0, &old, RunState::Killed, 900);
    leader.plan(900);
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    leader.plan(1199);
    assert_eq!(leader.job("web").version, 2);
    leader.plan(1200);
    assert_eq!(leader.job("web").version, 3, "5m after it was placed");
}

#[test]
fn a_node_whose_clock_is_off_holds_no_update_up() {
    for ahead in [400, 86_400, -400] {
        let mut leader = Leader::new(2);
        leader.healthy(&service("1"));
        leader.plan(12);
        leader.submit(&service("2")).unwrap();
        leader.plan(100);
        let new = leader.incoming(0).unwrap();
        for now in [101, 104, 108] {
            leader.tell_ahead((0, &new), RunState::Running, now, ahead);
            leader.plan(now);
        }
        assert_eq!(leader.rolled()[0], "1 2", "it has not served for 10 s");
        leader.plan(112);
        assert_eq!(leader.rolled()[0], "-1 2", "{ahead} s ahead");
    }
}

#[test]
fn a_restart_on_the_node_does_not_begin_the_deadline_anew() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    let again = RunReport {
        placement: new.placement,
        version: 2,
        restarts: 1,
        started_at: Some(at(300)),
        ..report_of(&slot("web", 0), run_id(77), RunState::Running)
    };
    let node = new.node.clone().unwrap();
    leader.decide(|draft| report(draft, &node, &[again], false, at(300)));
    leader.plan(399);
    assert_eq!(leader.job("web").version, 2);
    leader.plan(400);
    assert_eq!(leader.job("web").version, 3);
}

#[test]
fn a_run_that_has_done_its_work_counts() {
    let mut leader = Leader::new(2);
    let once = |variant: &str| {
        let mut spec = service(variant);
        spec.tasks.get_mut(&Name::main()).unwrap().restart.on = RestartOn::Never;
        spec
    };
    leader.healthy(&once("1"));
    leader.plan(12);
    leader.submit(&once("2")).unwrap();
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Completed, 101);
    leader.plan(101);
    assert_eq!(leader.rolled(), ["-1 2", "1", "1"]);
    for seconds in [102, 103] {
        leader.obey(seconds);
    }
    assert_eq!(leader.rolled(), ["2", "1 2", "1"]);
    let update = leader.job("web").update.clone().unwrap();
    assert_eq!((update.settled, update.settled_at), (1, at(102)));
}

#[test]
fn what_is_let_go_on_has_the_whole_deadline_for_what_is_left() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    assert!(leader.steer(UpdateVerb::Pause, 200).unwrap());
    leader.plan(1000);
    assert_eq!(leader.phase(), UpdatePhase::Paused, "its clock stands");
    assert!(leader.steer(UpdateVerb::Continue, 1000).unwrap());
    leader.plan(1299);
    assert_eq!(leader.job("web").version, 2);
    leader.plan(1300);
    assert_eq!(leader.job("web").version, 3);
}

#[test]
fn a_scale_beyond_the_canaries_leaves_them_as_they_are() {
    let mut leader = Leader::new(3);
    leader.at_the_canaries();
    leader.scale(4, 130);
    assert_eq!(
        leader.current(&slot("web", 3)).version,
        1,
        "it is no canary"
    );
    assert_eq!(leader.phase(), UpdatePhase::Rolling, "another one is begun");
    let fourth = leader.running_of(3);
    leader.tell(3, &fourth, RunState::Running, 131);
    leader.plan(131);
    assert_eq!(leader.phase(), UpdatePhase::Canary);
    leader.plan(1000);
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    assert!(leader.steer(UpdateVerb::Promote, 1000).unwrap());
    assert_eq!(leader.rolled(), ["2", "1 2", "1"]);
}

#[test]
fn an_update_that_gets_fewer_replicas_ends_with_those_that_are_left() {
    let mut leader = Leader::new(3);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    for seconds in [101, 111, 112, 113, 123, 124] {
        leader.obey(seconds);
    }
    assert_eq!(leader.rolled(), ["2", "2", "1 2"]);
    let mut fewer = service("2");
    fewer.tasks.get_mut(&Name::main()).unwrap().replicas = 2;
    leader.submit(&fewer).unwrap();
    for seconds in [124, 125, 126] {
        leader.obey(seconds);
    }
    assert_eq!(leader.rolled(), ["3", "3", ""]);
    assert_eq!(leader.phase(), UpdatePhase::Done);
}

#[test]
fn what_changes_in_place_goes_on_with_the_canaries() {
    let mut leader = Leader::new(2);
    leader.at_the_canaries();
    let mut spec = canaries("2");
    spec.priority = 70;
    leader.submit(&spec).unwrap();
    leader.plan(130);
    leader.plan(130);
    assert_eq!(leader.rolled(), ["3", "1", "1"]);
    assert_eq!(leader.phase(), UpdatePhase::Canary);
    assert!(leader.steer(UpdateVerb::Promote, 140).unwrap());
    assert_eq!(leader.rolled(), ["3", "1 3", "1"]);
}

#[test]
fn a_version_that_mends_what_changes_in_place_takes_a_halted_update_over() {
    for halted in [UpdatePhase::Paused, UpdatePhase::Failed] {
        let mut leader = Leader::new(2);
        leader.healthy(&service("1"));
        leader.submit(&service("2")).unwrap();
        leader.plan(100);
        let mut job = leader.job("web").clone();
        let update = job.update.as_mut().unwrap();
        update.phase = halted;
        update.reason = Some("web/0 is unhealthy: 404".to_owned());
        leader.decide(|draft| draft.put_job(job));
        let mut mended = service("2");
        mended.priority = 70;
        leader.submit(&mended).unwrap();
        let update = leader.job("web").update.clone().unwrap();
        assert_eq!(update.phase, UpdatePhase::Rolling);
        assert_eq!(update.reason, None, "it is of another version");
        for seconds in 101..200 {
            leader.obey(seconds);
        }
        assert_eq!(leader.rolled(), ["3", "3", "3"]);
        assert_eq!(leader.phase(), UpdatePhase::Done);
    }
}

#[test]
fn who_goes_back_while_an_update_does_goes_no_further() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.plan(12);
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    for seconds in 101..150 {
        leader.obey(seconds);
    }
    assert_eq!(leader.job("web").healthy, [1, 2].into());
    leader.submit(&service("3")).unwrap();
    leader.plan(150);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 151);
    leader.plan(151);
    assert_eq!(leader.job("web").version, 4);
    let refused = leader.back(151).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    let why = "job web is going back to version 2 already, as version 4";
    assert!(refused.message.starts_with(why), "{}", refused.message);
    assert_eq!(leader.job("web").version, 4);
    for seconds in 152..200 {
        leader.obey(seconds);
    }
    // Nor does who saw the failure, and not that it was undone.
    let phase = leader.job("web").update.as_ref().map(|update| update.phase);
    assert_eq!(phase, Some(UpdatePhase::Done));
    let refused = leader.back(200).unwrap_err();
    let why = "job web went back to version 2 already, as version 4: to go to another, say which";
    assert!(refused.message.starts_with(why), "{}", refused.message);
}

#[test]
fn who_goes_back_keeps_the_replicas_there_are_whichever_version_comes() {
    let mut leader = Leader::new(4);
    leader.healthy(&service("1"));
    leader.plan(12);
    for (version, from) in [("2", 100), ("3", 200)] {
        leader.submit(&service(version)).unwrap();
        leader.plan(from);
        for seconds in from + 1..from + 50 {
            leader.obey(seconds);
        }
    }
    assert_eq!(leader.job("web").healthy, [1, 2, 3].into());
    leader.scale(5, 250);
    let request = |to, if_version| RollbackRequest {
        job: name("web"),
        to: Some(to),
        if_version,
        reason: None,
    };
    let mut back = |to, if_version| {
        let request = request(to, if_version);
        leader
            .decide(|draft| rollback(draft, &request, ANNA, at(251)))
            .0
    };
    let refused = back(1, Some(2)).unwrap_err();
    assert_eq!(refused.message, "job web is at version 3, not 2");
    assert_eq!(back(1, Some(3)).unwrap(), (4, 1));
    let scaled = |leader: &Leader| leader.job("web").scaled.clone();
    assert_eq!(scaled(&leader), [(name("main"), 5)].into());
    leader
        .decide(|draft| stop(draft, &whole("web"), ANNA, at(1)))
        .0
        .unwrap();
    leader.plan(252);
    let request = request(2, None);
    let done = leader.decide(|draft| rollback(draft, &request, ANNA, at(253)));
    assert_eq!(done.0.unwrap(), (5, 2));
    assert_eq!(scaled(&leader), [(name("main"), 5)].into());
}

#[test]
fn a_failed_update_is_not_promoted_and_says_that_it_failed() {
    let mut leader = Leader::new(2);
    leader.at_the_canaries();
    let mut job = leader.job("web").clone();
    let update = job.update.as_mut().unwrap();
    update.phase = UpdatePhase::Failed;
    update.reason = Some("web/0 ended".to_owned());
    leader.decide(|draft| draft.put_job(job));
    let refused = leader.steer(UpdateVerb::Promote, 130).unwrap_err();
    let why = "the update of job web has failed: web/0 ended: `loomctl update continue web`";
    assert!(refused.message.starts_with(why), "{}", refused.message);
}

#[test]
fn runs_outside_the_datacenters_of_a_version_are_replaced_and_the_others_go_on() {
    let mut leader = Leader::new(0);
    for (node, datacenter) in [("node-1", "east"), ("node-2", "west")] {
        let mut info = info(8, 16);
        info.datacenter = Some(datacenter.to_owned());
        let hello = hello_of(info, Vec::new());
        leader.decide(|draft| super::hello(draft, &name(node), &hello, false, at(0)));
    }
    leader.healthy(&service("1"));
    let place = |leader: &Leader, index: u32| {
        let run = leader.running_of(index);
        (run.version, run.node.unwrap().to_string())
    };
    let in_west = (0..3).filter(|index| place(&leader, *index).1 == "node-2");
    let in_west = in_west.count();
    assert!(in_west > 0, "it runs in both");
    let mut spec = service("1");
    spec.datacenters = vec!["east".to_owned()];
    leader.submit(&spec).unwrap();
    leader.plan(100);
    let doubled = (0..3)
        .filter(|index| leader.incoming(*index).is_some())
        .count();
    assert_eq!(
        doubled, 1,
        "one after the other, and only those in the west"
    );
    for seconds in 101..150 {
        leader.obey(seconds);
    }
    for index in 0..3 {
        assert_eq!(place(&leader, index), (2, "node-1".to_owned()));
    }
    assert_eq!(leader.phase(), UpdatePhase::Done);
}
