//! What holds for every text and every job.

use proptest::prelude::{Strategy, *};

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

/// A report names only places that the text has.
fn check(text: &[u8], syntax: Syntax) {
    let Err(report) = read(text, syntax, "job") else {
        return;
    };
    assert!(!report.problems.is_empty());
    let lines = text.split(|byte| *byte == b'\n' || *byte == b'\r').count();
    for problem in &report.problems {
        assert!(problem.line as usize <= lines + 1, "{report}");
        assert!(problem.column as usize <= text.len() + 2, "{report}");
        assert!(!problem.message.contains('\n'), "{report}");
    }
}

/// A few cases; with `LOOM_LONG=1` so many that it takes about a quarter of an hour a test.
fn cases() -> ProptestConfig {
    let long = std::env::var_os("LOOM_LONG").is_some();
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if long { 500_000 } else { 512 })
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes, Syntax::guess(&bytes));
        for syntax in SYNTAXES {
            check(&bytes, syntax);
        }
    }

    #[test]
    fn no_marks_panic(text in "[\\[\\]{}:,#&*!|>'\"%@`=?~ \t\n\rab0-]{0,60}") {
        for syntax in SYNTAXES {
            check(text.as_bytes(), syntax);
        }
    }

    #[test]
    fn no_mutation_of_a_good_file_panics(
        which in 0..GOOD.len(),
        mutations in prop::collection::vec(mutation(), 1..8),
    ) {
        let (syntax, text) = GOOD[which];
        let mut text = text.as_bytes().to_vec();
        for change in mutations {
            mutate(&mut text, change);
        }
        check(&text, syntax);
        if let Ok(spec) = read(&text, syntax, "job") {
            keeps_its_form(&spec);
        }
    }

    #[test]
    fn no_mutation_of_a_packed_job_panics(
        which in 0..GOOD.len(),
        mutations in prop::collection::vec(mutation(), 0..4),
    ) {
        let (syntax, text) = GOOD[which];
        let spec = good(text, syntax);
        let mut packed = rmp_serde::to_vec_named(&spec).unwrap();
        for change in mutations {
            mutate(&mut packed, change);
        }
        check(&packed, Syntax::MessagePack);
        let _ = rmp_serde::from_slice::<JobSpec>(&packed);
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
