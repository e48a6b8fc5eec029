//! Values that reach a task: of the submission, of a dispatch, of the task before it.

use loom_tests::cluster::Dev;

use super::wait_for_output;

#[test]
fn a_var_is_what_it_was_set_to_as_far_as_its_type_allows() {
    let dev = Dev::start(&[]);
    let job = "name: say\nkind: batch\nvars:\n  plain: usual\n  \
               text: {string: {max: 5}, default: abc, help: what is said}\n  \
               count: {int: {min: 1, max: 3}, default: 1}\n  \
               loud: {bool: {}, default: false}\n  \
               level: {enum: [low, high], default: low}\n  \
               whom: {string: {}, help: who is greeted}\n\
               bash: echo ${var.plain} ${var.text} ${var.count} ${var.loud} ${var.level} ${var.whom}\n";
    let said = dev.run(job, &[]).expect_code(1);
    let why = "vars.whom: `whom` has no value; set it with `--set whom=...`, or give it a `default` \
               (who is greeted)";
    assert!(said.err.contains(why), "{}", said.err);
    for (set, why) in [
        (
            "text=abcdef",
            "`abcdef` is too long; at most 5 bytes (what is said)",
        ),
        ("count=0", "`0` is out of range; from 1 to 3"),
        ("count=4", "`4` is out of range; from 1 to 3"),
        ("count=x", "`x` is not a whole number"),
        ("loud=yes", "`yes` is neither `true` nor `false`"),
        ("level=middle", "`middle` is none of its values"),
    ] {
        let said = dev.run(job, &["--set", "whom=x", "--set", set]);
        assert!(said.expect_code(1).err.contains(why), "{set}");
    }
    let said = dev.run(job, &["--once", "--set", "whom=ann"]);
    assert_eq!(said.expect_code(0).out, "usual abc 1 false low ann\n");
    let mut flags = vec!["--once"];
    for set in [
        "plain=x",
        "text=abcde",
        "count=3",
        "loud=true",
        "level=high",
        "whom=b",
    ] {
        flags.extend(["--set", set]);
    }
    let said = dev.run(job, &flags).expect_code(0);
    assert_eq!(said.out, "x abcde 3 true high b\n");
}

#[test]
fn params_are_what_the_dispatch_says_and_results_reach_the_tasks_after() {
    let dev = Dev::start(&[]);
    let job = "name: report\nkind: batch\ntasks:\n  \
               count:\n    params: {day: monday, its-size: \"${job.name}\"}\n    \
               bash: |\n      echo \"$LOOM_PARAM_DAY $LOOM_PARAM_ITS_SIZE\"\n      \
               echo '{\"rows\": [7, 8]}' > $LOOM_RESULT\n  \
               tell: {bash: 'echo ${task.count.result.rows.1} rows', after: [count]}\n";
    dev.run(job, &[]).expect_code(0);
    wait_for_output(&dev, "report/count", "monday report\n");
    wait_for_output(&dev, "report/tell", "8 rows\n");
    let said = dev.ctl(&[
        "dispatch",
        "report",
        "--param",
        "day=${job.name}",
        "--detach",
        "-o",
        "name",
    ]);
    let child = said.expect_code(0).out;
    let child = child.trim();
    dev.wait_for_job(child, "completed");
    wait_for_output(
        &dev,
        &format!("{child}/count"),
        &format!("${{job.name}} {child}\n"),
    );
    // Nobody submitted a text for it: whose that is stands beside it.
    let said = dev.ctl(&["export", child]).expect_code(0);
    assert_eq!(said.out, job);
    let note = format!(
        "{child} is a dispatch by dev: the text is that of the job it was made of; its params were \
         day=${{job.name}}, its-size=${{job.name}}\n"
    );
    assert_eq!(said.err, note);
}
