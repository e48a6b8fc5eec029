//! Laws of entries, replicas and snapshot files, over any input.

use bytes::Bytes;
use imbl::OrdMap;
use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::wire::FORMAT;
use proptest::collection::vec;
use proptest::prelude::*;

use super::entry::{
    Change, Checksum, ENTRY_BYTES_MAX, Entry, EntryError, EntryKind, Lead, Restored, SnapshotMark,
    event_message,
};
use super::replica::{ApplyError, Fold, Replica};
use super::snapshot::{self, FileError};

/// Records as they are.
#[derive(Clone, Debug, Default, PartialEq)]
struct Records(OrdMap<String, Bytes>);

impl Fold for Records {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.to_owned(), Bytes::copy_from_slice(value));
    }
    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
        Box::new(
            self.0
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        )
    }
}

/// Writes entries as a leader would, without a server.
#[derive(Default)]
struct Author {
    replica: Replica<Records>,
    log: Vec<Bytes>,
}

impl Author {
    fn next(&self) -> Entry {
        let position = &self.replica.position;
        Entry {
            incarnation: position.incarnation,
            epoch: position.lead_sequence,
            previous: position.checksum,
            events_before: position.events,
            ..Entry::empty(Timestamp::UNIX_EPOCH)
        }
    }

    fn write(&mut self, entry: &Entry) {
        let raw = entry.encode().unwrap();
        self.replica.apply(self.log.len() as u64 + 1, &raw).unwrap();
        self.log.push(raw);
    }

    fn lead(&mut self, manager: &str) {
        let entry = Entry {
            kind: EntryKind::Lead,
            incarnation: self.replica.position.incarnation.max(1),
            epoch: self.log.len() as u64 + 1,
            lead: Some(Lead {
                manager: Name::new(manager).unwrap(),
                format: FORMAT,
                cluster: "c".to_owned(),
            }),
            ..self.next()
        };
        self.write(&entry);
    }

    fn commit(&mut self, changes: Vec<Change>, events: usize) {
        let job = Name::new("web").unwrap();
        let event = Event::new(Timestamp::UNIX_EPOCH, About::Job { job }, "accepted");
        let event = event_message(&event).unwrap();
        let entry = Entry {
            kind: EntryKind::Commit,
            changes,
            events: vec![event; events],
            ..self.next()
        };
        self.write(&entry);
    }

    fn folded(log: &[Bytes]) -> Replica<Records> {
        let mut replica = Replica::default();
        for (sequence, raw) in (1..).zip(log) {
            replica.apply(sequence, raw).unwrap();
        }
        replica
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = prop_oneof![
        1 => Just(None),
        3 => vec(any::<u8>(), 0..40).prop_map(|bytes| Some(Bytes::from(bytes))),
    ];
    vec(
        ("[a-d]", value).prop_map(|(key, value)| Change { key, value }),
        0..6,
    )
}

fn history() -> impl Strategy<Value = Vec<(Vec<Change>, usize)>> {
    vec((changes(), 0_usize..3), 1..12)
}

fn author(history: &[(Vec<Change>, usize)]) -> Author {
    let mut author = Author::default();
    author.lead("m1");
    for (changes, events) in history {
        author.commit(changes.clone(), *events);
    }
    author
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_log_gives_the_same_replica(history in history()) {
        let author = author(&history);
        let other = Author::folded(&author.log);
        prop_assert_eq!(&other.position, &author.replica.position);
        prop_assert_eq!(other.hash(), author.replica.hash());
        prop_assert_eq!(other.state, author.replica.state);
    }

    #[test]
    fn the_hash_depends_on_the_records_and_not_on_the_way_to_them(history in history()) {
        let author = author(&history);
        let mut direct = Replica::<Records>::at(author.replica.position.clone());
        for (key, value) in author.replica.state.records() {
            direct.put(&key, &value);
        }
        prop_assert_eq!(direct.hash(), author.replica.hash());
        direct.put("another", b"record");
        prop_assert_ne!(direct.hash(), author.replica.hash());
    }

    #[test]
    fn only_the_next_entry_of_the_same_log_is_applied(
        history in history(), sequence in 0_u64..20, flipped in any::<prop::sample::Index>(),
    ) {
        let mut author = author(&history);
        let before = (author.replica.position.clone(), author.replica.hash());
        let next = author.log.len() as u64 + 1;
        let raw = Entry { kind: EntryKind::Commit, ..author.next() }.encode().unwrap();
        if sequence != next {
            let refused = author.replica.apply(sequence, &raw);
            let out_of_order = matches!(refused, Err(ApplyError::OutOfOrder { .. }));
            prop_assert!(out_of_order);
        }
        let mut changed = raw.to_vec();
        let place = flipped.index(changed.len());
        changed[place] ^= 0x10;
        // Some bits may be flipped unnoticed (the time, the id); then the next entry shows it.
        if author.replica.clone().apply(next, &changed).is_ok() {
            prop_assert_ne!(Checksum::of(&changed), Checksum::of(&raw));
        }
        prop_assert_eq!(before, (author.replica.position.clone(), author.replica.hash()));
        author.replica.apply(next, &raw).unwrap();
    }

    #[test]
    fn garbage_is_refused_and_never_panics(garbage in vec(any::<u8>(), 0..300), lead in 0_u8..4) {
        let mut raw = vec![lead];
        raw.extend(&garbage);
        let _ = Entry::decode(&raw);
        let _ = Entry::decode(&garbage);
        let _ = snapshot::read::<Records>(garbage.as_slice());
    }

    #[test]
    fn an_entry_that_was_cut_short_is_no_entry(history in history(), cut in 1_usize..40) {
        let author = author(&history);
        let raw = author.log.last().unwrap();
        let cut = cut.min(raw.len());
        prop_assert!(Entry::decode(&raw[..raw.len() - cut]).is_err());
        let mut longer = raw.to_vec();
        longer.push(0xc0);
        prop_assert!(matches!(Entry::decode(&longer), Err(EntryError::Trailing(1))));
    }

    #[test]
    fn a_snapshot_and_the_rest_give_what_the_whole_log_gives(
        history in history(), at in any::<prop::sample::Index>(),
    ) {
        let author = author(&history);
        let at = at.index(author.log.len()) + 1;
        let mut file = Vec::new();
        snapshot::write(&Author::folded(&author.log[..at]), &mut file).unwrap();
        let mut replica: Replica<Records> = snapshot::read(file.as_slice()).unwrap();
        for (sequence, raw) in (at as u64 + 1..).zip(&author.log[at..]) {
            replica.apply(sequence, raw).unwrap();
        }
        prop_assert_eq!(&replica.position, &author.replica.position);
        prop_assert_eq!(replica.hash(), author.replica.hash());
    }

    #[test]
    fn a_damaged_snapshot_is_never_taken_for_a_state(
        history in history(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let author = author(&history);
        let mut file = Vec::new();
        snapshot::write(&author.replica, &mut file).unwrap();
        let place = place.index(file.len());
        prop_assert!(snapshot::read::<Records>(&file[..place]).is_err());
        file[place] ^= 1 << bit;
        if let Ok(read) = snapshot::read::<Records>(file.as_slice()) {
            // A bit of the frame that says nothing about the content.
            prop_assert_eq!(read.hash(), author.replica.hash());
        }
    }
}

#[test]
fn large_entries_are_compressed_and_come_back() {
    let mut author = Author::default();
    author.lead("m1");
    let text = Bytes::from("all work and no play ".repeat(5_000));
    author.commit(vec![Change::put("a", text.clone())], 1);
    assert!(author.log[1].len() < text.len() / 10);
    assert_eq!(author.replica.state.0["a"], text);
}

#[test]
fn what_no_message_can_carry_is_refused() {
    let mut entry = Entry::empty(Timestamp::UNIX_EPOCH);
    entry.changes = vec![Change::put("a", vec![0; ENTRY_BYTES_MAX])];
    assert!(matches!(entry.encode(), Err(EntryError::TooLarge { .. })));
    let bomb = zstd::bulk::compress(&vec![0; ENTRY_BYTES_MAX + 1], 1).unwrap();
    let raw = [&[2_u8][..], &bomb].concat();
    assert!(matches!(
        Entry::decode(&raw),
        Err(EntryError::Compression(_))
    ));
}

#[test]
fn kinds_and_fields_of_a_newer_build_pass_through() {
    #[derive(serde::Serialize)]
    struct Newer {
        format: u32,
        incarnation: u64,
        epoch: u64,
        id: uuid::Uuid,
        previous: Checksum,
        at: Timestamp,
        events_before: u64,
        kind: &'static str,
        changes: Vec<Change>,
        held: Vec<(u64, String)>,
    }
    let mut author = Author::default();
    author.lead("m1");
    let like = author.next();
    let newer = Newer {
        format: like.format,
        incarnation: like.incarnation,
        epoch: like.epoch,
        id: like.id,
        previous: like.previous,
        at: like.at,
        events_before: like.events_before,
        kind: "gang",
        changes: vec![Change::put("gang/1", &b"x"[..])],
        held: vec![(1, "y".to_owned())],
    };
    let raw = [&[1_u8][..], &rmp_serde::to_vec_named(&newer).unwrap()].concat();
    let read = author.replica.apply(2, &raw).unwrap();
    assert_eq!(read.entry.kind, EntryKind::Unknown);
    assert_eq!(author.replica.state.0["gang/1"], Bytes::from("x"));
}

#[test]
fn an_entry_in_a_newer_format_is_refused() {
    let mut author = Author::default();
    author.lead("m1");
    let entry = Entry {
        format: FORMAT + 1,
        ..author.next()
    };
    let refused = author.replica.apply(2, &entry.encode().unwrap());
    assert!(matches!(refused, Err(ApplyError::Newer { .. })));
}

#[test]
fn a_snapshot_in_a_newer_format_is_told_from_none() {
    let mut author = Author::default();
    author.lead("m1");
    let mut file = Vec::new();
    snapshot::write(&author.replica, &mut file).unwrap();
    file[8] += 1;
    let refused = snapshot::read::<Records>(file.as_slice());
    assert!(matches!(refused, Err(FileError::Newer(2))));
    file[0] += 1;
    let refused = snapshot::read::<Records>(file.as_slice());
    assert!(matches!(refused, Err(FileError::Magic)));
}

#[test]
fn an_entry_of_a_deposed_leader_does_not_fit() {
    let mut author = Author::default();
    author.lead("m1");
    let old = Entry {
        kind: EntryKind::Commit,
        ..author.next()
    };
    author.lead("m2");
    let mut late = old.clone();
    late.previous = author.replica.position.checksum;
    let refused = author
        .replica
        .apply(3, &late.encode().unwrap())
        .unwrap_err();
    assert!(refused.is_rewound(), "{refused}");
    assert_eq!(
        author.replica.position.leader,
        Some(Name::new("m2").unwrap())
    );
    assert_eq!(author.replica.position.epoch().sequence, 2);
}

#[test]
fn the_last_two_snapshots_are_known() {
    let mut author = Author::default();
    author.lead("m1");
    for sequence in [1, 2, 3] {
        let mark = SnapshotMark {
            name: format!("1-{sequence}"),
            incarnation: 1,
            sequence,
            digest: String::new(),
            bytes: 0,
        };
        let entry = Entry {
            kind: EntryKind::Snapshot,
            snapshot: Some(mark),
            ..author.next()
        };
        author.write(&entry);
    }
    let known: Vec<u64> = author
        .replica
        .position
        .snapshots
        .iter()
        .map(|mark| mark.sequence)
        .collect();
    assert_eq!(known, [2, 3]);
}

#[test]
fn a_restore_replaces_the_whole_state_wherever_it_is_read() {
    let mut author = Author::default();
    author.lead("m1");
    author.commit(vec![Change::put("a", &b"old"[..])], 2);
    let mut truth = author.replica.clone();
    truth.put("b", b"from the backup");
    let entry = Entry {
        kind: EntryKind::Restored,
        incarnation: 9,
        events_before: 5,
        restored: Some(Restored {
            incarnation: 9,
            object: "restored-9".to_owned(),
            digest: String::new(),
        }),
        ..Entry::empty(Timestamp::UNIX_EPOCH)
    };
    let raw = entry.encode().unwrap();
    let wants = author.replica.apply(3, &raw);
    assert!(matches!(wants, Err(ApplyError::Restores { .. })));
    for mut replica in [author.replica.clone(), Replica::default()] {
        replica.restore(3, &raw, truth.clone()).unwrap();
        let position = &replica.position;
        assert_eq!(
            (position.incarnation, position.sequence, position.events),
            (9, 3, 5)
        );
        assert_eq!(position.leader, None);
        assert_eq!(replica.state.0["b"], Bytes::from("from the backup"));
    }
    let again = Entry {
        incarnation: 1,
        restored: Some(Restored {
            incarnation: 1,
            object: String::new(),
            digest: String::new(),
        }),
        ..entry
    };
    let refused = author.replica.restore(3, &again.encode().unwrap(), truth);
    assert!(refused.is_err(), "the incarnation must rise");
}

#[test]
fn a_fold_that_gives_back_other_bytes_is_not_snapshotted() {
    #[derive(Clone, Default)]
    struct Forgetful;
    impl Fold for Forgetful {
        fn put(&mut self, _: &str, _: &[u8]) {}
        fn delete(&mut self, _: &str) {}
        fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
            Box::new(std::iter::empty())
        }
    }
    let mut replica = Replica::<Forgetful>::default();
    replica.put("a", b"b");
    let refused = snapshot::write(&replica, std::io::sink());
    assert!(matches!(refused, Err(snapshot::FileError::Hash { .. })));
}
