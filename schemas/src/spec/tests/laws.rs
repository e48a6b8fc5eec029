//! What holds for every text and every job.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use proptest::prelude::{Strategy, *};
use proptest::sample::Index;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value as Json, json};

use super::*;

const GOOD: [(Syntax, &str); 6] = [
    (
        Syntax::Yaml,
        "name: every\nkind: batch\npriority: 7\ndatacenters: [a]\ndepends_on: [b, {job: c, task: d, on: \
         healthy}]\nvars: {x: 1, y: {enum: [p, q], default: p}}\nlabels: {a: b}\ntasks:\n  \
         one: {bash: 'echo ${var.x}', disk: 1GiB, disk_rate: 5MiB/s, result: true}\n  \
         two: {exec: [a, '${task.one.result.k.0}'], after: [{task: one}], replicas: 2, \
         per_index: {1: {args: [x], cpu: 1, env: {A: b}}}, params: {p: '${node.label.z}'}}\n",
    ),
    (Syntax::Yaml, include_str!("../../../../examples/web.yaml")),
    (Syntax::Yaml, include_str!("../../../../examples/sim.yaml")),
    (
        Syntax::Yaml,
        include_str!("../../../../examples/pipeline.yaml"),
    ),
    (
        Syntax::Toml,
        include_str!("../../../../examples/hello.toml"),
    ),
    (
        Syntax::Json,
        include_str!("../../../../examples/hello.json"),
    ),
];

const SYNTAXES: [Syntax; 4] = [
    Syntax::Yaml,
    Syntax::Toml,
    Syntax::Json,
    Syntax::MessagePack,
];

/// A change to a good file.
#[derive(Clone, Debug)]
enum Mutation {
    Remove(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
    Replace(usize, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let piece = prop_oneof![
        "[\\[\\]{}:,#&*!|>'\"%@`=?~ \t\n\r-]{1,4}",
        "\\PC{1,3}",
        Just("\n- ".to_owned()),
        Just("0x".to_owned()),
        Just("${".to_owned()),
        Just("\n---\n".to_owned()),
    ];
    prop_oneof![
        (any::<usize>(), 1..20_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<usize>(), piece).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (any::<usize>(), 1..60_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
    ]
}

fn mutate(text: &mut Vec<u8>, mutation: Mutation) {
    let at = |at: usize| at % text.len().max(1);
    match mutation {
        Mutation::Remove(from, length) => {
            let from = at(from);
            let to = (from + length).min(text.len());
            text.drain(from.min(to)..to);
        }
        Mutation::Insert(from, piece) => {
            let from = at(from).min(text.len());
            text.splice(from..from, piece.into_bytes());
        }
        Mutation::Repeat(from, length) => {
            let from = at(from).min(text.len());
            let to = (from + length).min(text.len());
            let piece = text[from..to].to_vec();
            text.splice(from..from, piece);
        }
        Mutation::Replace(from, byte) => {
            let from = at(from);
            if let Some(old) = text.get_mut(from) {
                *old = byte;
            }
        }
    }
}

/// A job keeps its form, and a report names only places that the text has.
fn check(text: &[u8], syntax: Syntax) {
    let read = read_with_files(text, syntax, "job", &Sets::new(), &mut |_| {
        Ok("print()".to_owned())
    });
    let report = match read {
        Ok(spec) => return keeps_its_form(&spec),
        Err(report) => report,
    };
    assert!(!report.problems.is_empty());
    let lines = text.split(|byte| *byte == b'\n' || *byte == b'\r').count();
    for problem in &report.problems {
        assert!(problem.line as usize <= lines + 1, "{report}");
        assert!(problem.column as usize <= text.len() + 2, "{report}");
        assert!(!problem.message.contains('\n'), "{report}");
    }
}

/// How many cases a law tries.
const CASES: u32 = 2_000;

/// The same where `LOOM_LONG` is set: about a quarter of an hour a law.
const CASES_LONG: u32 = 500_000;

/// Tries a law on cases by chance: a few, with `LOOM_LONG=1` many, with `LOOM_FUZZ_SECONDS` for as long
/// as that says. `LOOM_SEED` tries the same ones again.
fn holds<S: Strategy>(cases: S, law: impl Fn(S::Value)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LOOM_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    eprintln!("LOOM_SEED={seed} tries the same cases again");
    let until = Instant::now() + Duration::from_secs(number("LOOM_FUZZ_SECONDS").unwrap_or(0));
    let long = std::env::var_os("LOOM_LONG").is_some();
    let rounds = (0_u64..).take_while(|round| *round == 0 || Instant::now() < until);
    let tried = Cell::new(0_u64);
    for round in rounds {
        // A runner of its own each time: one that has had its cases tries no more.
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(seed.wrapping_add(round)),
            ..ProptestConfig::with_cases(if long { CASES_LONG } else { CASES })
        });
        let ran = runner.run(&cases, |case| {
            law(case);
            tried.set(tried.get() + 1);
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("LOOM_SEED={} {error}", seed.wrapping_add(round)));
    }
    eprintln!("{} cases", tried.get());
}

/// Every good file there is: those above, the examples, and what the documents show.
fn corpus() -> Vec<(Syntax, Vec<u8>)> {
    let above = GOOD.map(|(syntax, text)| (syntax, text.as_bytes().to_vec()));
    above
        .into_iter()
        .chain(super::documents::good_texts())
        .collect()
}

#[test]
fn no_bytes_panic() {
    holds(prop::collection::vec(any::<u8>(), 0..200), |bytes| {
        check(&bytes, Syntax::guess(&bytes));
        for syntax in SYNTAXES {
            check(&bytes, syntax);
        }
    });
}

#[test]
fn no_marks_panic() {
    let texts = "[\\[\\]{}:,#&*!|>'\"%@`=?~ \t\n\rab0-]{0,60}";
    holds(texts, |text| {
        for syntax in SYNTAXES {
            check(text.as_bytes(), syntax);
        }
    });
}

#[test]
fn no_mutation_of_a_good_file_panics() {
    let corpus = corpus();
    let mutations = prop::collection::vec(mutation(), 1..8);
    holds((any::<Index>(), mutations), |(which, mutations)| {
        let (syntax, text) = which.get(&corpus);
        let mut text = text.clone();
        for change in mutations {
            mutate(&mut text, change);
        }
        check(&text, *syntax);
    });
}

/// What passes the syntax and means nothing: values in places of others, of this file and of others.
#[test]
fn no_mutation_of_a_tree_panics() {
    let corpus: Vec<Json> = corpus()
        .iter()
        .filter_map(|(syntax, text)| tree_of(*syntax, text))
        .collect();
    assert!(corpus.len() >= 40, "{}", corpus.len());
    let grafts = prop::collection::vec(graft(corpus.len()), 1..5);
    holds((any::<Index>(), grafts), |(which, grafts)| {
        let mut tree = which.get(&corpus).clone();
        for Graft { at, from } in grafts {
            let new = match from {
                Donor::Odd(value) => value,
                Donor::Of(other, place) => {
                    let mut donor = corpus[other].clone();
                    pick(&mut donor, place).take()
                }
            };
            *pick(&mut tree, at) = new;
        }
        let json = serde_json::to_vec(&tree).unwrap();
        check(&json, Syntax::Json);
        let packed = rmp_serde::to_vec_named(&tree).unwrap();
        check(&packed, Syntax::MessagePack);
    });
}

#[test]
fn no_mutation_of_a_packed_job_panics() {
    let mutations = prop::collection::vec(mutation(), 0..4);
    holds((any::<Index>(), mutations), |(which, mutations)| {
        let (syntax, text) = which.get(&GOOD);
        let spec = good(text, *syntax);
        let mut packed = rmp_serde::to_vec_named(&spec).unwrap();
        for change in mutations {
            mutate(&mut packed, change);
        }
        check(&packed, Syntax::MessagePack);
        let _ = rmp_serde::from_slice::<JobSpec>(&packed);
    });
}

/// A value of a tree that another one takes the place of.
#[derive(Clone, Debug)]
struct Graft {
    at: Index,
    from: Donor,
}

#[derive(Clone, Debug)]
enum Donor {
    Odd(Json),
    /// A value of another tree.
    Of(usize, Index),
}

fn graft(trees: usize) -> impl Strategy<Value = Graft> {
    let odd = prop::sample::select(odd());
    let from = prop_oneof![
        odd.prop_map(Donor::Odd),
        (0..trees, any::<Index>()).prop_map(|(tree, at)| Donor::Of(tree, at)),
    ];
    (any::<Index>(), from).prop_map(|(at, from)| Graft { at, from })
}

/// Texts at the edges of what the fields take.
const ODD: &[&str] = &[
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "99999999999GiB",
    "0.0000001ms",
    "584942417y",
    "1GiB/s",
    "50%",
    "inf",
    "NaN",
    "${",
    "${}",
    "${var.}",
    "${var.x",
    "$${var.x}",
    "${task.one.result}",
    "${task.main.result.a.b.99999999999999999999}",
    "${node.label.\u{e4}}",
    "${slot}",
    "* * * * *",
    "60 24 32 13 8",
    "0 0 30 2 *",
    "*/0 * * * *",
    "5-1 * * * *",
    "Europe/Berlin",
    "a/b/c",
    "../..",
    "/",
    "\u{0}",
    "\u{feff}a",
    "\u{202e}b",
    "a\nb",
    "ALWAYS",
    "all_at_once",
    "http",
    "10.0.0.256",
    "[::1]:0",
    "0-65536",
    "80/tcp",
    "host",
    "reg/a:b@sha256:0",
    "arch == ",
    "a == b == c",
    "cpu >= 1e400",
    "x regexp (",
    "x regexp a{99999}",
    "x version >= 1.2.3.4",
    "!",
    "--",
    "HUP",
    "SIGRTMAX+99",
];

/// Values at the edges of what the fields take.
fn odd() -> Vec<Json> {
    let long = ["a".repeat(300), "${var.x}".repeat(40), "[".repeat(100)];
    let texts = ODD.iter().map(|text| Json::from(*text));
    let numbers = [0.5, -0.0, 1e308, 5e-324].map(Json::from);
    let integers = [0, 1, -1, 65_536, i64::MAX, i64::MIN].map(Json::from);
    let others = [
        Json::Null,
        Json::from(true),
        Json::from(u64::MAX),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"": 1}),
        json!({"a b": {"c": []}}),
    ];
    texts
        .chain(long.map(Json::from))
        .chain(numbers)
        .chain(integers)
        .chain(others)
        .collect()
}

/// The values of a good file, without their places.
fn tree_of(syntax: Syntax, text: &[u8]) -> Option<Json> {
    let text = std::str::from_utf8(text).ok()?;
    let node = match syntax {
        Syntax::Yaml => super::super::yaml::parse(text).ok()?,
        Syntax::Toml => super::super::toml::parse(text).ok()?,
        Syntax::Json => super::super::json::parse(text).ok()?,
        Syntax::MessagePack => return None,
    };
    Some(node.to_json())
}

/// One of the values of a tree, each as likely as any other.
fn pick(tree: &mut Json, index: Index) -> &mut Json {
    let nth = index.index(count(tree));
    find(tree, &mut { nth }).expect("fewer than there are")
}

fn count(tree: &Json) -> usize {
    1 + match tree {
        Json::Array(items) => items.iter().map(count).sum(),
        Json::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value so many further on, from the root down.
fn find<'a>(tree: &'a mut Json, left: &mut usize) -> Option<&'a mut Json> {
    if *left == 0 {
        return Some(tree);
    }
    *left -= 1;
    match tree {
        Json::Array(items) => items.iter_mut().find_map(|item| find(item, left)),
        Json::Object(fields) => fields.values_mut().find_map(|field| find(field, left)),
        _ => None,
    }
}

/// The canonical form is the same after the log and after the bus.
pub(super) fn keeps_its_form(spec: &JobSpec) {
    let packed = rmp_serde::to_vec_named(spec).unwrap();
    assert_eq!(&rmp_serde::from_slice::<JobSpec>(&packed).unwrap(), spec);
    let json = serde_json::to_vec(spec).unwrap();
    assert_eq!(&serde_json::from_slice::<JobSpec>(&json).unwrap(), spec);
}

#[test]
fn a_canonical_job_keeps_its_form() {
    for (syntax, text) in GOOD {
        keeps_its_form(&good(text, syntax));
    }
}
