//! Values that are handed to tasks, as a user sees it.

use loom_tests::cluster::Dev;

#[test]
fn values_are_set_at_the_submission_and_reach_the_task_as_they_are() {
    let dev = Dev::start(&[]);
    let job = "name: greet\nkind: batch\nvars:\n  greeting: hello\n  \
               count: {int: {min: 1, max: 3}, default: 1}\n  whom: {string: {}}\n\
               params: {whom: \"${var.whom}\"}\n\
               bash: |\n  echo ${var.greeting} \"$LOOM_PARAM_WHOM\" ${var.count}\n  \
               echo '{\"greeted\": true}' > \"$LOOM_RESULT\"\n";
    let said = dev.run(job, &["--once"]).expect_code(125);
    let missing = "7:9: vars.whom: `whom` has no value; set it with `--set whom=...`";
    assert!(
        said.err.contains("`whom` has no value"),
        "{} {missing}",
        said.err
    );
    let said = dev
        .run(job, &["--set", "whom=x", "--set", "cuont=2"])
        .expect_code(1);
    assert!(said.err.contains("did you mean `count`?"), "{}", said.err);
    let said = dev
        .run(job, &["--set", "whom=x", "--set", "count=4"])
        .expect_code(1);
    assert!(said.err.contains("from 1 to 3"), "{}", said.err);

    let whom = "whom=$(id) \"and\" 'others' ${HOME}";
    let said = dev.run(job, &["--once", "--set", whom]).expect_code(0);
    assert_eq!(said.out, "hello $(id) \"and\" 'others' ${HOME} 1\n");
    let job_view = dev.job("greet");
    let slot = &job_view["slots"][0];
    let run = if slot["current"].is_null() {
        &slot["ended"][0]
    } else {
        &slot["current"]
    };
    assert_eq!(run["result"], "{\"greeted\": true}");
    assert_eq!(run["filled"]["var.greeting"], "hello");
    let said = dev.ctl(&["status", "greet/0"]).expect_code(0);
    assert!(said.out.contains("var.greeting = hello"), "{}", said.out);

    // Other values are another version.
    let said = dev.run(job, &["--set", "whom=x", "--set", "count=2"]);
    let said = said.expect_code(0);
    assert!(said.err.contains("version 2"), "{}", said.err);
    // What was set is kept with the version: the file alone is not all of it.
    let said = dev.ctl(&["history", "greet"]).expect_code(0);
    assert!(said.out.contains("count=2 whom=x"), "{}", said.out);
    let said = dev.ctl(&["export", "greet"]).expect_code(0);
    assert_eq!(said.out, job);
    let note = "version 2 was submitted with --set count=2 --set whom=x: without that the text has \
                the defaults of its vars";
    assert!(said.err.contains(note), "{}", said.err);
    let whom = "version 1 was submitted with --set whom=$(id)";
    let said = dev.ctl(&["export", "greet", "--version", "1"]);
    assert!(said.expect_code(0).err.contains(whom));
}

#[test]
fn a_result_that_is_not_json_fails_the_run() {
    let dev = Dev::start(&[]);
    let job = "name: bad\nkind: batch\nrestart: never\nbash: echo yes > $LOOM_RESULT\n";
    let said = dev.run(job, &[]).expect_code(1);
    let why = "its result is not JSON: expected value at line 1 column 1";
    assert!(said.err.contains(why), "{}", said.err);
}

#[test]
fn a_run_whose_files_grow_past_its_disk_is_ended() {
    let dev = Dev::start(&[]);
    let job = "name: big\nkind: batch\nrestart: never\ndisk: 4MiB\nstop: {grace: 1s}\n\
               bash: head -c 8M /dev/zero > big; exec sleep 300\n";
    let said = dev.run(job, &[]).expect_code(1);
    assert!(said.err.contains("disk: its files take 8"), "{}", said.err);
}
