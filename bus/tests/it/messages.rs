//! No message can make its reader panic: every type of the wire, as MessagePack and as JSON.
//!
//! Values are made from the types themselves: a deserializer that throws dice for whatever a type
//! asks for, and tries again where the type refuses it. Their encodings are then broken at random.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use loom_bus::codec::{self, Form};
use loom_bus::log::Entry;
use loom_bus::log::entry::EntryError;
use loom_schemas::error::WireError;
use loom_schemas::wire::JobDependency;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dice;

/// How many cases are tried; each breaks a message of every type in both forms.
const CASES: u32 = 50;

/// One way to break bytes: what to do, where, and with which byte.
type Break = (u8, u16, u8);

/// Bytes that begin something in one of the forms.
const TELLING: [u8; 14] = [
    0xdf, 0xdd, 0xdb, 0xc6, 0xc9, 0xc1, 0x9f, 0x8f, 0xff, 0x00, b'{', b'[', b'"', b'\\',
];

fn broken(bytes: &[u8], breaks: &[Break]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (what, at, byte) in breaks {
        let at = usize::from(*at) % (bytes.len() + 1);
        match what % 7 {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            2 if at < bytes.len() => bytes[at] = TELLING[usize::from(*byte) % TELLING.len()],
            3 => bytes.insert(at, *byte),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..bytes.len().min(at + usize::from(*byte)))),
            _ => {
                let part = bytes[at..bytes.len().min(at + usize::from(*byte))].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// What is done with each type in one case.
struct Case<'a> {
    seed: u64,
    breaks: &'a [Break],
    noise: &'a [u8],
    /// Types of which a value could be made.
    made: BTreeSet<&'static str>,
}

impl Case<'_> {
    fn of<T: Serialize + DeserializeOwned>(&mut self, name: &'static str) {
        self.tries(name, dice::value::<T>(self.seed));
    }

    fn tries<T: Serialize + DeserializeOwned>(&mut self, name: &'static str, value: Option<T>) {
        let mut messages = Vec::new();
        if let Some(value) = value {
            self.made.insert(name);
            for form in [Form::MessagePack, Form::Json] {
                let bytes = codec::encode(form, &value).unwrap();
                let read = |bytes: &[u8]| -> T {
                    codec::decode(form, bytes)
                        .unwrap_or_else(|error| panic!("{name} as {form:?}: {error}: {bytes:?}"))
                };
                // A null within a value and nothing at all are the same once it was read.
                let settled = codec::encode(form, &read(&bytes)).unwrap();
                let again = codec::encode(form, &read(&settled)).unwrap();
                assert_eq!(again, settled, "{name}: what is read is what was written");
                messages.push((form, broken(&bytes, self.breaks)));
            }
        }
        messages.extend([Form::MessagePack, Form::Json].map(|form| (form, self.noise.to_vec())));
        for (form, bytes) in messages {
            match codec::decode::<T>(form, &bytes) {
                Ok(value) => drop(codec::encode(Form::MessagePack, &value).unwrap()),
                Err(error) => assert!(!WireError::from(error).message.is_empty()),
            }
        }
    }
}

/// Calls `of` with every type that goes over the wire or stands in the log.
macro_rules! every_message {
    ($case:ident: $($module:ident::{$($name:ident),+ $(,)?}),+ $(,)?) => {
        $($($case.of::<loom_schemas::$module::$name>(stringify!($name));)+)+
    };
}

fn all(case: &mut Case<'_>) {
    every_message!(case:
        error::{WireError},
        event::{EventBody, CommandEvent},
        record::{
            JobRecord, VersionRecord, SlotRecord, ClusterRecord, ManagerRecord, CommandRecord,
            NodeRecord, UseRecord,
        },
        wire::{
            Assign, AssignReply, Assigned, BusView, Bye, Caller, CommandReply, CommandRow, Committed,
            DispatchRequest, DrainRequest, EventList, EventQuery, EventRow, Heartbeat, Hello, HelloPart, Holding,
            Inspect, Inventory, InventoryQuery, JobAddress, JobGet, JobList,
            JobListQuery, JobPlan, JobRequest, JobSummary, JobView, LabelRequest, LogEnd, LogLine, LogLines,
            LogQuery, ManagerRole, ManagerView, NodeChanged, NodeGet, NodeList, NodeListQuery,
            MoveView, NodeRequest, NodeSummary, NodeUsage, NodeView, PlanAction, Pong,
            RebalanceProgress, RebalanceRequest, RebalanceView, RollbackRequest,
            RunGet, RunReport, RunView, ScaleRequest, SlotCursor, SpecChange, Standing, Stats,
            StatusReport, StatusTaken, SubmitOutcome, Submitted, TaintRequest, TaskCommand, TaskPlan,
            TaskStanding, UpdateRequest, UpdateVerb, UpstreamJob, VersionGet, VersionList,
            VersionSummary, Welcome, WholeChange,
        },
    );
    // Flattened: serde does not say which fields it wants.
    let dependency =
        r#"{"job":"web","task":"api","on":"healthy","standing":"failed","reason":"r"}"#;
    let dependency: Option<JobDependency> = serde_json::from_str(dependency).ok();
    case.tries("JobDependency", dependency);
    if let Some(entry) = dice::value::<Entry>(case.seed) {
        case.made.insert("Entry");
        let bytes = entry.encode().unwrap();
        match Entry::decode(&bytes) {
            Ok(again) => assert_eq!(again, entry),
            Err(EntryError::Incomplete(_)) => {}
            Err(error) => panic!("Entry: {error}: {bytes:?}"),
        }
        drop(Entry::decode(&broken(&bytes, case.breaks)));
    }
    drop(Entry::decode(case.noise));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn config(seed: u64) -> Config {
    Config {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    }
}

/// With a seed from the environment, else one that nobody had before.
/// `LOOM_FUZZ_SECONDS=3600` goes on for an hour.
#[test]
fn no_message_makes_its_reader_panic() {
    let seed = number("LOOM_SEED").unwrap_or_else(rand::random);
    let until = Instant::now() + Duration::from_secs(number("LOOM_FUZZ_SECONDS").unwrap_or(0));
    let breaks = prop::collection::vec(any::<Break>(), 0..6);
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let made = std::cell::RefCell::new(BTreeSet::new());
    let tried = std::cell::Cell::new(0_u64);
    for round in 0.. {
        // A runner of its own each time: one that has had its cases tries no more.
        let seed = seed.wrapping_add(round);
        eprintln!("LOOM_SEED={seed} tries the same cases again");
        let mut runner = TestRunner::new(config(seed));
        let ran = runner.run(&(any::<u64>(), &breaks, &noise), |(seed, breaks, noise)| {
            let mut case = Case {
                seed,
                breaks: &breaks,
                noise: &noise,
                made: BTreeSet::new(),
            };
            all(&mut case);
            made.borrow_mut().append(&mut case.made);
            tried.set(tried.get() + 1);
            Ok(())
        });
        if let Err(error) = ran {
            panic!("{error}");
        }
        if Instant::now() >= until {
            break;
        }
    }
    eprintln!("{} cases of every type", tried.get());
    let made = made.into_inner();
    let missing: Vec<String> = declared()
        .into_iter()
        .filter(|name| !made.contains(name.as_str()))
        .collect();
    assert_eq!(missing, [""; 0], "no message of these was made");
}

/// The names of all types that the modules of the wire declare.
fn declared() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/src/wire");
    let mut names: BTreeMap<String, bool> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut is_message = false;
        for line in text.lines() {
            if line.contains("derive(") {
                is_message = line.contains("Deserialize");
            }
            let declared = line
                .strip_prefix("pub struct ")
                .or(line.strip_prefix("pub enum "));
            if let Some(declared) = declared {
                let name = declared.split(|c: char| !c.is_alphanumeric()).next();
                names.insert(name.unwrap_or_default().to_owned(), is_message);
            }
        }
    }
    let names: BTreeSet<String> = names
        .into_iter()
        .filter_map(|(name, is_message)| is_message.then_some(name))
        .collect();
    assert!(names.len() > 50, "the sources are where they were");
    names
}
