//! References in texts.

use super::*;

fn fill(text: &str, context: Context) -> Result<String, ReferenceError> {
    Ok(Template::parse(text, context)?.fill(|reference| format!("<{reference}>")))
}

#[test]
fn references_of_an_argument_are_filled_and_escapes_undone() {
    for (text, filled) in [
        ("", ""),
        ("plain $HOME $ {x} }", "plain $HOME $ {x} }"),
        ("${job.name}", "<job.name>"),
        ("a${task.name}-${task.index}b", "a<task.name>-<task.index>b"),
        ("${port.http-2}:${node.ip}", "<port.http-2>:<node.ip>"),
        ("$${job.name}", "${job.name}"),
        ("$${HOME}", "${HOME}"),
        ("$$${job.name}", "$${job.name}"),
        ("ä${node.name}ß${job.version}", "ä<node.name>ß<job.version>"),
    ] {
        assert_eq!(
            fill(text, Context::Argument).as_deref(),
            Ok(filled),
            "{text}"
        );
    }
}

#[test]
fn every_reference_is_shown_as_it_is_written() {
    for text in [
        "job.version",
        "node.label.disk/type",
        "var.a-b",
        "task.build.result.images.0.tag",
    ] {
        let parsed = fill(&format!("${{{text}}}"), Context::Script);
        assert_eq!(parsed.as_deref(), Ok(&*format!("<{text}>")));
    }
}

#[test]
fn a_value_of_a_result_is_text_or_json() {
    let result = r#"{"a": "x", "b": {"c": [1, {"d": true}]}, "e": null}"#;
    for (key, value) in [
        ("a", Some("x")),
        ("b.c.0", Some("1")),
        ("b.c.1.d", Some("true")),
        ("b.c", Some(r#"[1,{"d":true}]"#)),
        ("e", Some("null")),
        ("f", None),
        ("a.x", None),
        ("b.c.2", None),
        ("b.c.x", None),
    ] {
        let of = ResultUse {
            task: Name::main(),
            key: key.into(),
        };
        assert_eq!(of.of(result).as_deref(), value, "{key}");
    }
}

#[test]
fn a_script_keeps_what_is_its_own() {
    for (text, filled) in [
        ("echo ${HOME} ${job} ${task[0]} ${x:-y}", None),
        ("echo $${HOME} $$ ${", None),
        ("echo ${job.name} ${HOME}", Some("echo <job.name> ${HOME}")),
        ("echo $${job.name}", Some("echo ${job.name}")),
    ] {
        let filled = filled.unwrap_or(text);
        assert_eq!(fill(text, Context::Script).as_deref(), Ok(filled), "{text}");
    }
}

#[test]
fn what_is_no_reference_is_an_error_with_help() {
    for (text, message, help) in [
        (
            "${job.nme}",
            "unknown reference `${job.nme}`",
            "did you mean `${job.name}`?",
        ),
        (
            "${HOME",
            "`${` is not closed by `}`",
            "write `$${` for a plain `${`",
        ),
        (
            "${arg.x}",
            "the reference `${arg.x}` is not supported yet",
            "known so far: job.name, job.version, task.name, task.index, node.name, node.ip, \
             node.label.<key>, port.<name>, var.<name>, task.<name>.result.<key>",
        ),
    ] {
        let error = Template::parse(text, Context::Argument).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.help(), help);
    }
    for text in [
        "${}",
        "${HOME}",
        "${port.}",
        "${port.A}",
        "${job.${x}}",
        "${var.A}",
        "${node.label.}",
        "${node.label.a b}",
        "${task.a.result.}",
        "${task.a.result.b..c}",
        "${task.A.result.b}",
    ] {
        let error = Template::parse(text, Context::Argument).unwrap_err();
        assert!(matches!(error, ReferenceError::Unknown(_)), "{text}");
    }
}

#[test]
fn a_text_that_looks_like_a_reference_once_filled_is_not_filled_again() {
    let template = Template::parse("${job.name}", Context::Argument).unwrap();
    assert_eq!(template.fill(|_| "${node.ip}".into()), "${node.ip}");
}
