//! The history of events and of task output, asked with filters.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use loom_bus::events::{History, HistoryError, Relay, RelayOptions};
use loom_bus::logs::{LogBlock, end_headers};
use loom_schemas::event::{About, Event};
use loom_schemas::ids::{RunId, Slot};
use loom_schemas::subject;
use loom_schemas::wire::{EventQuery, LogQuery};
use uuid::Uuid;

use super::{Manager, name, quick};
use crate::support::{Server, until};

fn event(at: i64, job: &str, what: &str) -> Event {
    let at = Timestamp::from_second(1_700_000_000 + at).unwrap();
    Event::new(at, About::Job { job: name(job) }, what)
}

#[tokio::test]
async fn events_are_found_by_subject_number_time_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let position = leader.replica.position.clone();
    let log = leader.log.clone();
    let relay = Relay::start(&leader.bus, log, &position, RelayOptions::default());
    for n in 0..30 {
        let job = if n % 3 == 0 { "db" } else { "web" };
        let commit = loom_bus::log::Commit {
            events: vec![event(n, job, "accepted")],
            ..Default::default()
        };
        let committed = leader.append(commit).await.unwrap();
        relay.committed(&committed);
    }
    let history = History::new(&leader.bus);
    until("all is told", || {
        let history = history.clone();
        async move { history.last_event().await.unwrap() == 30 }
    })
    .await;
    let numbers = async |query: EventQuery| {
        let list = history.events(&query).await.unwrap();
        let numbers: Vec<u64> = list.events.iter().map(|row| row.number).collect();
        // Where a page ends one goes on; else from the end, whatever the query lets through.
        let is_page = query.after.is_some() && list.more;
        let end = numbers.last().filter(|_| is_page).unwrap_or(&30);
        assert_eq!(list.last, *end);
        (numbers, list.more)
    };
    let all = numbers(EventQuery::default()).await;
    assert_eq!(all, ((1..=30).collect(), false));
    let db = EventQuery {
        filter: Some("job.db.*".to_owned()),
        limit: Some(3),
        ..EventQuery::default()
    };
    assert_eq!(numbers(db).await, (vec![22, 25, 28], true));
    let after = EventQuery {
        after: Some(27),
        ..EventQuery::default()
    };
    assert_eq!(numbers(after).await, (vec![28, 29, 30], false));
    let page = EventQuery {
        after: Some(3),
        limit: Some(2),
        ..EventQuery::default()
    };
    assert_eq!(numbers(page).await, (vec![4, 5], true));
    let since = EventQuery {
        since: Some(Timestamp::from_second(1_700_000_028).unwrap()),
        ..EventQuery::default()
    };
    assert_eq!(numbers(since).await, (vec![29, 30], false));
    let none = EventQuery {
        filter: Some("node.>".to_owned()),
        ..EventQuery::default()
    };
    assert_eq!(numbers(none).await, (vec![], false));
    let nonsense = EventQuery {
        filter: Some("a b".to_owned()),
        ..EventQuery::default()
    };
    let refused = history.events(&nonsense).await.unwrap_err();
    assert!(matches!(refused, HistoryError::Filter(_)), "{refused}");
}

#[tokio::test]
async fn a_history_with_nothing_in_it_is_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let leader = Manager::started(&server.url, "m1", quick()).await;
    let history = History::new(&leader.bus);
    let read = async {
        let events = history.events(&EventQuery::default()).await.unwrap();
        assert_eq!((events.events.len(), events.more), (0, false));
        let query = LogQuery {
            filter: "web.>".to_owned(),
            tail: Some(10),
            ..LogQuery::default()
        };
        assert_eq!(history.logs(&query).await.unwrap().lines.len(), 0);
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_newest_events_cost_no_reading_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let position = leader.replica.position.clone();
    let log = leader.log.clone();
    let relay = Relay::start(&leader.bus, log, &position, RelayOptions::default());
    let mut told = 0;
    for commit in 0..20 {
        let job = |n| if n % 1000 == 0 { "db" } else { "web" };
        let events = (0..500).map(|n| commit * 500 + n);
        let commit = loom_bus::log::Commit {
            events: events.map(|n| event(n, job(n), "accepted")).collect(),
            ..Default::default()
        };
        told += commit.events.len() as u64;
        let committed = leader.append(commit).await.unwrap();
        relay.committed(&committed);
    }
    let history = History::new(&leader.bus);
    until("all is told", || {
        let history = history.clone();
        async move { history.last_event().await.unwrap() == told }
    })
    .await;
    // What a consumer delivers goes to an inbox, with the stream in the subject of its acknowledgement.
    let client = async_nats::connect(&server.url).await.unwrap();
    let mut deliveries = client.subscribe("_INBOX.>").await.unwrap();
    client.flush().await.unwrap();
    let mut read = async |query: EventQuery| {
        let list = history.events(&query).await.unwrap();
        client.publish("_INBOX.end", "".into()).await.unwrap();
        let mut count = 0;
        loop {
            let message = deliveries.next().await.unwrap();
            let reply = message.reply.map(|reply| reply.to_string());
            count += usize::from(reply.is_some_and(|to| to.contains(".ORCH_EVENTS.")));
            if message.subject.as_str() == "_INBOX.end" {
                break;
            }
        }
        let numbers: Vec<u64> = list.events.iter().map(|row| row.number).collect();
        (numbers, list.more, count)
    };
    let query = |filter: Option<&str>, limit, since: Option<i64>| EventQuery {
        filter: filter.map(str::to_owned),
        limit: Some(limit),
        since: since.map(|at| Timestamp::from_second(1_700_000_000 + at).unwrap()),
        ..EventQuery::default()
    };
    let (numbers, more, count) = read(query(None, 10, None)).await;
    assert_eq!((numbers, more), ((9991..=10_000).collect(), true));
    assert!((10..1000).contains(&count), "{count} were read for 10");
    let (numbers, more, count) = read(query(None, 2000, None)).await;
    assert_eq!((numbers.len(), numbers[0], more), (2000, 8001, true));
    assert!(count < 3000, "{count} were read for 2000");
    // So old that all of them are asked for, and still only the newest are wanted.
    let (numbers, more, count) = read(query(None, 10, Some(0))).await;
    assert_eq!((numbers.len(), more), (10, true));
    assert!(count < 1000, "{count} were read for 10 since the beginning");
    let (numbers, more, count) = read(query(None, 5000, Some(9990))).await;
    assert_eq!((numbers, more), ((9991..=10_000).collect(), false));
    assert!(count < 6000, "{count} were read for those since lately");
    // Few match, all over the history: all that match are read, and no others.
    let (numbers, more, count) = read(query(Some("job.db.*"), 100, None)).await;
    assert_eq!((numbers.len(), numbers[0], more), (10, 1, false));
    assert!(count < 40, "{count} were read where 10 match");
    let (numbers, more, _) = read(query(Some("job.db.*"), 3, None)).await;
    assert_eq!((numbers, more), (vec![7001, 8001, 9001], true));
}

#[tokio::test]
async fn output_is_kept_after_the_run_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let Manager { bus, .. } = Manager::started(&server.url, "m1", quick()).await;
    let slot = Slot::new(name("web"), name("main"), 0);
    let subject = subject::logs(&slot, &name("n1"), "stdout");
    let begun = Timestamp::now();
    let publish = async |run: u128, offset: u64, texts: &[&str]| {
        let at = |n: usize| begun + SignedDuration::from_micros(i64::try_from(n).unwrap());
        let first = usize::try_from(offset).unwrap();
        let lines = texts
            .iter()
            .enumerate()
            .map(|(n, t)| (at(first + n), (*t).to_owned()));
        let block = LogBlock {
            run: RunId(Uuid::from_u128(run)),
            offset,
            lines: lines.collect(),
        };
        let (headers, payload) = block.encode().unwrap();
        let sent = bus.publish(&subject, payload, &headers).await;
        sent.unwrap();
    };
    publish(1, 0, &["one", "two"]).await;
    publish(1, 4, &["two", "three"]).await;
    publish(2, 0, &["other"]).await;
    let sent = bus.publish(&subject, "nonsense".into(), &[]).await;
    sent.unwrap();
    bus.flush().await;
    let history = History::new(&bus);
    let texts = async |query: LogQuery| {
        let lines = history.logs(&query).await.unwrap().lines;
        lines.into_iter().map(|line| line.text).collect::<Vec<_>>()
    };
    let all = || LogQuery {
        filter: "web.main.0.*.*".to_owned(),
        ..LogQuery::default()
    };
    until("it is kept", || async {
        history.logs(&all()).await.unwrap().lines.len() == 4
    })
    .await;
    let of_run = LogQuery {
        run: Some(RunId(Uuid::from_u128(1))),
        ..all()
    };
    assert_eq!(texts(of_run).await, ["one", "two", "three"]);
    let tail = LogQuery {
        run: Some(RunId(Uuid::from_u128(1))),
        tail: Some(1),
        ..all()
    };
    assert_eq!(texts(tail).await, ["three"]);
    let other = LogQuery {
        filter: "db.>".to_owned(),
        ..LogQuery::default()
    };
    assert_eq!(texts(other).await, [""; 0]);
    let late = LogQuery {
        since: Some(Timestamp::now() + SignedDuration::from_secs(60)),
        ..all()
    };
    assert_eq!(texts(late).await, [""; 0]);

    // The end of a stream is kept as well; and an answer says how far it really was read.
    let run = RunId(Uuid::from_u128(1));
    let sent = bus
        .publish(&subject, "".into(), &end_headers(run, 14))
        .await;
    sent.unwrap();
    let behind = |after| LogQuery {
        after: Some(after),
        ..all()
    };
    until("the end is kept", || async {
        let ends = history.logs(&behind(0)).await.unwrap().ends;
        let at: Vec<_> = ends.iter().map(|end| (end.run, end.offset)).collect();
        at == [(run, 14)]
    })
    .await;
    let none = LogQuery {
        tail: Some(0),
        ..all()
    };
    assert_eq!(history.logs(&none).await.unwrap().last, 5);
    let anew = history.logs(&behind(1_000)).await.unwrap();
    assert_eq!((anew.last, anew.more), (5, false));
}

/// Line `number` of 999 characters.
fn text(number: u64) -> String {
    format!("{number:06}{}", "x".repeat(993))
}

fn sixty_lines(first: u64) -> LogBlock {
    LogBlock {
        run: RunId(Uuid::from_u128(1)),
        offset: first * 1000,
        lines: (first..first + 60)
            .map(|number| (Timestamp::now(), text(number)))
            .collect(),
    }
}

#[tokio::test]
async fn output_larger_than_an_answer_comes_in_pages_and_goes_on_from_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let Manager { bus, .. } = Manager::started(&server.url, "m1", quick()).await;
    let slot = Slot::new(name("web"), name("main"), 0);
    let subject = subject::logs(&slot, &name("n1"), "stdout");
    let publish = async |first: u64| {
        let (headers, payload) = sixty_lines(first).encode().unwrap();
        let published = bus.publish(&subject, payload, &headers);
        published.await.unwrap();
    };
    for block in 0..100 {
        publish(block * 60).await;
    }
    let history = History::new(&bus);
    let after = |after| LogQuery {
        filter: "web.>".to_owned(),
        after: Some(after),
        ..LogQuery::default()
    };
    let last = |count| LogQuery {
        filter: "web.>".to_owned(),
        tail: Some(count),
        ..LogQuery::default()
    };
    until("all is kept", || async {
        let answer = history.logs(&last(1)).await.unwrap();
        answer.lines.iter().any(|line| line.text == text(5999))
    })
    .await;
    let (mut place, mut pages, mut next) = (0, 0, 0);
    loop {
        let page = history.logs(&after(place)).await.unwrap();
        for line in &page.lines {
            assert_eq!(line.text, text(next));
            next += 1;
        }
        assert!(page.last > place);
        (place, pages) = (page.last, pages + 1);
        if !page.more {
            break;
        }
    }
    assert_eq!(next, 6000);
    assert!(pages > 1, "6 MB in one answer");
    let nothing = history.logs(&after(place)).await.unwrap();
    assert!(nothing.lines.is_empty() && !nothing.more);
    assert_eq!(nothing.last, place);
    publish(6000).await;
    until("what came later is there", || async {
        history.logs(&after(place)).await.unwrap().lines.len() == 60
    })
    .await;

    let few = history.logs(&last(100)).await.unwrap();
    assert_eq!((few.lines.len(), few.more), (100, false));
    assert_eq!(few.lines[0].text, text(5960));
    let most = history.logs(&last(5900)).await.unwrap();
    assert!(most.more && most.lines.len() < 5900, "{}", most.lines.len());
    assert_eq!(most.lines.last().unwrap().text, text(6059));
    let none = history.logs(&last(0)).await.unwrap();
    assert_eq!((none.lines.len(), none.last), (0, place + 1));
}

/// The stream of an earlier build, which knew no events of the whole cluster.
#[tokio::test]
async fn a_history_of_an_earlier_build_takes_what_has_come_since() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let of = ["job", "task", "node", "manager", "queue"];
    let config = async_nats::jetstream::stream::Config {
        name: "ORCH_EVENTS".to_owned(),
        subjects: of.map(|of| format!("orch.events.{of}.>")).into(),
        max_bytes: 32 << 20,
        ..Default::default()
    };
    js.create_stream(config).await.unwrap();
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let position = leader.replica.position.clone();
    let log = leader.log.clone();
    let relay = Relay::start(&leader.bus, log, &position, RelayOptions::default());
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let commit = loom_bus::log::Commit {
        events: vec![Event::new(at, About::Cluster, "rebalancing")],
        ..Default::default()
    };
    let committed = leader.append(commit).await.unwrap();
    relay.committed(&committed);
    let history = History::new(&leader.bus);
    until("it is told", || async {
        history.last_event().await.is_ok_and(|number| number == 1)
    })
    .await;
    let query = EventQuery {
        filter: Some("cluster.>".to_owned()),
        ..EventQuery::default()
    };
    assert_eq!(history.events(&query).await.unwrap().events.len(), 1);
    let mut stream = js.get_stream("ORCH_EVENTS").await.unwrap();
    let config = &stream.info().await.unwrap().config;
    // What somebody set stays.
    assert_eq!((config.subjects.len(), config.max_bytes), (6, 32 << 20));
    // Another manager finds it as it is to be.
    drop(Manager::started(&server.url, "m2", quick()).await);
}
