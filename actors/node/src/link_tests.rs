use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn link() -> Link {
    Link::new(Timings::default(), None, Duration::ZERO)
}

fn welcomed(at: Duration) -> Link {
    let mut link = link();
    link.called(at, Call::Hello);
    link.answered();
    link
}

#[test]
fn hello_comes_first_then_reports_one_call_at_a_time() {
    let mut link = link();
    assert_eq!(link.next(SECOND, true), Step::Call(Call::Hello));
    link.called(SECOND, Call::Hello);
    assert_eq!(link.next(SECOND, true), Step::Idle);
    link.answered();
    assert_eq!(link.next(SECOND, true), Step::Call(Call::Status));
}

#[test]
fn what_is_to_be_greeted_while_a_greeting_is_in_flight_is_greeted_after_it() {
    let mut link = link();
    link.called(SECOND, Call::Hello);
    link.greet(SECOND, SECOND);
    link.answered();
    assert_eq!(link.next(SECOND, true), Step::WaitUntil(2 * SECOND));
    assert_eq!(link.next(2 * SECOND, true), Step::Call(Call::Hello));
    link.called(2 * SECOND, Call::Hello);
    link.answered();
    assert_eq!(link.next(2 * SECOND, true), Step::Call(Call::Status));
}

#[test]
fn in_quiet_times_the_leader_is_asked_whether_it_is_there() {
    let link = welcomed(SECOND);
    assert_eq!(link.next(2 * SECOND, false), Step::WaitUntil(11 * SECOND));
    assert_eq!(link.next(11 * SECOND, false), Step::Call(Call::Probe));
}

#[test]
fn the_managers_patience_holds_where_it_is_shorter() {
    let mut link = welcomed(100 * SECOND);
    assert!(!link.lose_after(60 * SECOND), "its own is 30 s");
    assert_eq!(link.may_start_until(), Some(130 * SECOND));
    assert_eq!(link.contact_to_keep(100 * SECOND), 100 * SECOND);
    assert!(link.lose_after(9 * SECOND));
    assert_eq!(link.may_start_until(), Some(109 * SECOND));
    assert_eq!(
        link.next(101 * SECOND, false),
        Step::WaitUntil(103 * SECOND)
    );
    // The next agent counts with 30 s again: what it finds on disk has as long to live.
    let kept = link.contact_to_keep(100 * SECOND);
    let next = Link::new(Timings::default(), Some(kept), 101 * SECOND);
    assert_eq!(next.may_start_until(), Some(109 * SECOND));
    assert!(
        link.lose_after(60 * SECOND),
        "a leader that is started anew may say otherwise"
    );
    assert_eq!(link.may_start_until(), Some(130 * SECOND));
}

#[test]
fn a_silent_leader_is_asked_again_after_a_doubling_pause() {
    let mut link = link();
    let mut now = SECOND;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        link.called(now, Call::Hello);
        link.failed(now, Failure::Silent, 1.0);
        let Step::WaitUntil(at) = link.next(now, false) else {
            panic!("expected a pause")
        };
        pauses.push(at.saturating_sub(now));
        now = at;
        assert_eq!(link.next(now, false), Step::Call(Call::Hello));
    }
    assert_eq!(pauses[0], Timings::default().back_off);
    assert!(pauses.is_sorted());
    assert_eq!(pauses[11], Timings::default().max_back_off);
}

#[test]
fn a_leader_that_refuses_a_report_is_greeted() {
    let mut link = welcomed(SECOND);
    link.called(SECOND, Call::Status);
    link.failed(SECOND, Failure::Refused, 0.0);
    assert_eq!(link.next(2 * SECOND, true), Step::Call(Call::Hello));
}

#[test]
fn a_leader_is_greeted_when_the_bus_is_back() {
    let mut link = welcomed(SECOND);
    link.disconnected(2 * SECOND);
    assert_eq!(link.next(3 * SECOND, true), Step::Idle);
    link.reconnected(4 * SECOND, Duration::ZERO);
    assert_eq!(link.next(4 * SECOND, true), Step::Call(Call::Hello));
}

#[test]
fn a_contact_counts_from_when_the_answered_call_was_sent() {
    let mut link = link();
    assert_eq!(link.may_start_until(), None);
    link.called(10 * SECOND, Call::Hello);
    assert_eq!(link.may_start_until(), None);
    // The answer is read minutes later, because the host slept.
    link.answered();
    assert_eq!(link.may_start_until(), Some(40 * SECOND));
}

#[test]
fn the_disk_is_believed_only_within_the_same_boot() {
    let kept = Some(("boot", 10 * SECOND));
    assert_eq!(
        contact_after_start(kept, "boot", 12 * SECOND),
        Some(10 * SECOND)
    );
    assert_eq!(contact_after_start(kept, "other", 12 * SECOND), None);
    assert_eq!(contact_after_start(kept, "boot", 9 * SECOND), None);
    assert_eq!(
        contact_after_start(Some(("", SECOND)), "", 9 * SECOND),
        None
    );
    assert_eq!(contact_after_start(None, "boot", 9 * SECOND), None);
}

#[test]
fn addresses_are_let_go_after_a_long_cut_until_the_next_welcome() {
    let mut link = welcomed(SECOND);
    link.disconnected(10 * SECOND);
    assert_eq!(link.withholds_at(), Some(40 * SECOND));
    assert!(!link.withholds_addresses(39 * SECOND));
    assert!(link.withholds_addresses(40 * SECOND));
    link.reconnected(50 * SECOND, Duration::ZERO);
    assert!(link.withholds_addresses(50 * SECOND));
    link.called(50 * SECOND, Call::Hello);
    link.answered();
    assert!(!link.withholds_addresses(51 * SECOND));
}

#[test]
fn an_agent_that_was_away_for_long_takes_no_address_before_it_is_welcomed() {
    let back = |contact, now| Link::new(Timings::default(), contact, now);
    let quick = back(Some(10 * SECOND), 39 * SECOND).withholds_addresses(39 * SECOND);
    assert!(!quick);
    assert!(back(None, SECOND).withholds_addresses(SECOND));
    let mut link = back(Some(10 * SECOND), 40 * SECOND);
    assert!(link.withholds_addresses(40 * SECOND));
    link.called(41 * SECOND, Call::Hello);
    link.answered();
    assert!(!link.withholds_addresses(41 * SECOND));
}

#[test]
fn nothing_but_stale_welcomes_for_long_means_that_the_log_was_rewound() {
    let mut link = link();
    assert!(!link.stale(SECOND, 0.5));
    assert!(!link.stale(30 * SECOND, 0.5));
    link.failed(30 * SECOND, Failure::Silent, 0.5);
    assert!(!link.stale(31 * SECOND, 0.5));
    assert!(!link.stale(60 * SECOND, 0.5));
    assert!(link.stale(61 * SECOND, 0.5));
}

#[test]
fn addresses_are_kept_while_only_the_managers_are_away() {
    let mut link = welcomed(SECOND);
    for second in (2..200).map(|number| number * SECOND) {
        link.called(second, Call::Probe);
        link.failed(second, Failure::Silent, 0.5);
        assert!(!link.withholds_addresses(second));
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Wait(u8),
    Call,
    Answer,
    Fail(bool),
    Bus(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (1u8..20).prop_map(Move::Wait),
        Just(Move::Call),
        Just(Move::Answer),
        any::<bool>().prop_map(Move::Fail),
        any::<bool>().prop_map(Move::Bus),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    /// Whatever happens: a run may start only within `lost_after` of a call that was answered, and
    /// never before one was.
    #[test]
    fn a_run_starts_only_shortly_after_an_answered_call(moves in moves()) {
        let mut link = link();
        let mut now = SECOND;
        let mut answered: Option<Duration> = None;
        let mut in_flight: Option<Duration> = None;
        for step in moves {
            match step {
                Move::Wait(seconds) => now += SECOND * u32::from(seconds),
                Move::Call => {
                    if let Step::Call(call) = link.next(now, true) {
                        prop_assert!(in_flight.is_none());
                        link.called(now, call);
                        in_flight = Some(now);
                    }
                }
                Move::Answer => {
                    if let Some(sent) = in_flight.take() {
                        link.answered();
                        answered = Some(sent);
                    }
                }
                Move::Fail(refused) => {
                    if in_flight.take().is_some() {
                        let failure = if refused { Failure::Refused } else { Failure::Silent };
                        link.failed(now, failure, 0.3);
                    }
                }
                Move::Bus(true) if !link.is_connected() => link.reconnected(now, SECOND),
                Move::Bus(true) => {}
                Move::Bus(false) => link.disconnected(now),
            }
            let until = answered.map(|sent| sent + Timings::default().lost_after);
            prop_assert_eq!(link.may_start_until(), until);
        }
    }
}
