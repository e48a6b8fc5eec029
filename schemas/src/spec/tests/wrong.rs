//! Wrong job files, each with every line of its report; and hostile ones.

use super::super::tree::{DEPTH_MAX, VALUES_MAX};
use super::*;

/// Cases as `### title (syntax)`, the file, `>>>`, the report.
const CASES: &str = include_str!("wrong.txt");

struct Case<'a> {
    title: &'a str,
    syntax: Syntax,
    text: &'a str,
    report: &'a str,
}

fn cases() -> Vec<Case<'static>> {
    let parse = |case: &'static str| {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, report) = rest.split_once(">>>\n").unwrap_or((rest, ""));
        let syntax = [Syntax::Yaml, Syntax::Toml, Syntax::Json]
            .into_iter()
            .find(|syntax| title.ends_with(&format!("({})", syntax.as_str().to_lowercase())));
        Case {
            title,
            syntax: syntax.unwrap(),
            text,
            report,
        }
    };
    CASES.split("### ").skip(1).map(parse).collect()
}

#[test]
fn every_wrong_file_is_refused_with_place_and_help() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let report = read(case.text.as_bytes(), case.syntax, "job").unwrap_err();
        let report = format!("{report}\n");
        if report != case.report {
            wrong.extend([case.title, "\n", &report]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The report on a wrong job.
fn refused(text: &[u8], syntax: Syntax) -> String {
    read(text, syntax, "job").unwrap_err().to_string()
}

#[test]
fn a_file_of_ten_megabytes_is_too_large() {
    let text = format!("name: a\nbash: \"{}\"", "x".repeat(10_000_000));
    for syntax in [
        Syntax::Yaml,
        Syntax::Toml,
        Syntax::Json,
        Syntax::MessagePack,
    ] {
        let report = read(text.as_bytes(), syntax, "job").unwrap_err();
        assert_eq!(
            report.to_string(),
            "job: the job has 9.54MiB, at most 2MiB are read"
        );
        assert_eq!(report.code(), crate::error::ErrorCode::TooLarge);
    }
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    let deep = format!("the file is nested deeper than {DEPTH_MAX} levels");
    for depth in [40, 10_000, 300_000] {
        let open = "[".repeat(depth);
        let lists = format!("{open}{}", "]".repeat(depth));
        let maps = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let dotted = format!("{}a = 1", "a.".repeat(depth));
        let mut packed = vec![0x91; depth];
        packed.push(1);
        for (text, syntax) in [
            (lists.as_bytes(), Syntax::Yaml),
            (open.as_bytes(), Syntax::Yaml),
            (maps.as_bytes(), Syntax::Yaml),
            ("- ".repeat(depth).as_bytes(), Syntax::Yaml),
            (lists.as_bytes(), Syntax::Json),
            (maps.as_bytes(), Syntax::Json),
            (dotted.as_bytes(), Syntax::Toml),
            (format!("a = {lists}").as_bytes(), Syntax::Toml),
            (&packed, Syntax::MessagePack),
        ] {
            let report = refused(text, syntax);
            let start = &report[..report.len().min(200)];
            assert!(report.contains(&deep), "{syntax:?} {depth}: {start}");
        }
    }
}

/// Tables in tables, as deep as the `toml` crate lets them be: its limits multiply.
#[test]
fn tables_of_dotted_keys_in_tables_are_refused_without_a_stack_overflow() {
    let dotted = format!("{}a = {{", "a.".repeat(78));
    for depth in [10, 78] {
        let text = format!("{}{}", dotted.repeat(depth), "}".repeat(depth));
        let report = refused(text.as_bytes(), Syntax::Toml);
        assert!(report.contains("nested deeper than"), "{report}");
    }
}

#[test]
fn very_many_values_are_refused() {
    let many = format!("the file has more than {VALUES_MAX} values");
    let list = format!("[{}1]", "1,".repeat(100_000));
    for (text, syntax) in [
        (list.clone(), Syntax::Json),
        (list.clone(), Syntax::Yaml),
        (format!("a = {list}"), Syntax::Toml),
    ] {
        let report = refused(text.as_bytes(), syntax);
        assert!(report.ends_with(&many), "{report}");
    }
}

#[test]
fn very_many_unknown_fields_make_a_short_report() {
    let fields = (0..40_000).map(|n| format!("f{n}: 1\n"));
    let text: String = fields.collect();
    let report = read(text.as_bytes(), Syntax::Yaml, "job").unwrap_err();
    assert_eq!(report.problems.len(), 100);
}

#[test]
fn what_is_not_text_has_its_place() {
    for syntax in [Syntax::Yaml, Syntax::Toml, Syntax::Json] {
        let report = refused(b"name: \xc3\xa4\nb\xc3\xa4sh: \xff", syntax);
        assert_eq!(
            report,
            "job:2:7: the text is not UTF-8; save the file as UTF-8"
        );
    }
}

#[test]
fn messagepack_problems_have_paths() {
    let job = serde_json::json!({"name": "a", "tasks": {"b": {"bash": "x", "memory": 5}}});
    let packed = rmp_serde::to_vec_named(&job).unwrap();
    assert_eq!(
        refused(&packed, Syntax::MessagePack),
        "job: tasks.b.memory: `5` has no unit; write `5MiB`, or another unit: B, KiB, GiB, TiB"
    );
    let twice = b"\x82\xa4name\xa1a\xa4name\xa1b";
    assert_eq!(
        refused(twice, Syntax::MessagePack),
        "job: `name` is there twice; remove one of the two"
    );
    for garbage in [
        &b""[..],
        b"\x81",
        b"\xdf\xff\xff\xff\xff",
        b"\xc1",
        b"\x80\x80",
    ] {
        assert!(refused(garbage, Syntax::MessagePack).starts_with("job: not MessagePack: "));
    }
}

#[test]
fn a_report_answers_a_request_with_its_code() {
    use crate::error::{ErrorCode, WireError};
    for (text, code) in [
        ("name: a\nplugin: b", ErrorCode::NotYet),
        ("name: a\nbash: x\nimag: b", ErrorCode::Invalid),
        (
            "name: a\nbash: x\ntasks: {}\nvolumes: []",
            ErrorCode::Invalid,
        ),
    ] {
        let report = read(text.as_bytes(), Syntax::Yaml, "job").unwrap_err();
        assert_eq!(WireError::from(report).code, code, "{text}");
    }
}

/// A job of so many tasks, each with these lines of one map.
fn many_tasks(count: usize, task: impl Fn(usize) -> String) -> String {
    let tasks = (0..count).map(|n| format!("  t{n}: {{{}}}\n", task(n)));
    format!(
        "name: a\nkind: batch\ntasks:\n{}",
        tasks.collect::<String>()
    )
}

#[test]
fn a_job_at_its_limits_is_taken_and_past_them_refused_with_the_limit() {
    let chain = |n: usize| match n {
        0 => "bash: x".to_owned(),
        n => format!("bash: x, after: [t{}]", n - 1),
    };
    let job = good(&many_tasks(TASKS_MAX, chain), Syntax::Yaml);
    assert_eq!((job.tasks.len(), job.tasks["t999"].after.len()), (1000, 1));
    assert_eq!(
        refused(
            many_tasks(10_000, |_| "bash: x".into()).as_bytes(),
            Syntax::Yaml
        ),
        "job:4:3: tasks: 10000 tasks; at most 1000"
    );

    let replicas = |count: u32| format!("name: a\nbash: x\nreplicas: {count}");
    assert_eq!(
        good(&replicas(10_000), Syntax::Yaml).tasks["main"].replicas,
        10_000
    );
    assert_eq!(
        refused(replicas(100_000).as_bytes(), Syntax::Yaml),
        "job:3:11: replicas: `100000` is out of range; from 0 to 10000"
    );
    let shared = many_tasks(11, |_| "bash: x, replicas: 10000".into());
    assert_eq!(
        refused(shared.as_bytes(), Syntax::Yaml),
        "job:4:3: tasks: the tasks have 110000 replicas together; at most 10000 a job"
    );

    let depends = |count: usize| {
        let jobs: Vec<String> = (0..count).map(|n| format!("j{n}")).collect();
        format!("name: a\nbash: x\ndepends_on: [{}]", jobs.join(", "))
    };
    let job = good(&depends(DEPENDENCIES_MAX), Syntax::Yaml);
    assert_eq!(job.depends_on.len(), 1000);
    assert_eq!(
        refused(depends(1001).as_bytes(), Syntax::Yaml),
        "job:3:13: depends_on: 1001 dependencies; at most 1000"
    );
    let all = many_tasks(TASKS_MAX, |n| {
        let others: Vec<String> = (0..n.min(45)).map(|of| format!("t{of}")).collect();
        format!("bash: x, after: [{}]", others.join(", "))
    });
    assert_eq!(good(&all, Syntax::Yaml).tasks["t999"].after.len(), 45);
    let circle = |n: usize| format!("bash: x, after: [t{}]", (n + 1) % TASKS_MAX);
    let report = refused(many_tasks(TASKS_MAX, circle).as_bytes(), Syntax::Yaml);
    assert!(
        report.contains("the tasks wait for each other: "),
        "{report}"
    );
}
