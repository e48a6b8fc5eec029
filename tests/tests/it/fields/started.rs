//! What a task runs, with which words, where and as whom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use loom_tests::cluster::Dev;

use super::wait_for_output;

/// `go build -o OUT FILE` where the source is a program already.
const FAKE_GO: &str = "#!/bin/sh\n[ \"$#\" = 4 ] && cp \"$4\" \"$3\" && chmod +x \"$3\"\n";

fn executable(dev: &Dev, name: &str, text: &str) {
    fs::write(dev.path(name), text).unwrap();
    fs::set_permissions(dev.path(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_process_has_the_words_place_and_user_of_its_task() {
    let dev = Dev::start(&[]);
    let job = r#"
name: say
kind: batch
tasks:
  argv: {bash: 'printf "%s|" "$@"', args: [one, "two words", 3, "$HOME"]}
  place: {bash: pwd, workdir: /proc}
  surroundings: {bash: 'echo "$COLOUR $LOOM_TASK"', env: {COLOUR: red}}
"#;
    dev.run(job, &[]).expect_code(0);
    wait_for_output(&dev, "say/argv", "one|two words|3|$HOME|\n");
    wait_for_output(&dev, "say/place", "/proc\n");
    wait_for_output(&dev, "say/surroundings", "red surroundings\n");

    // An interpreter that stops at what fails.
    let job = "name: strict\nkind: batch\nrestart: never\ncommand: [bash, -eu]\n\
               bash: echo begins; false; echo goes on\n";
    dev.run(job, &[]).expect_code(1);
    wait_for_output(&dev, "strict", "begins\n");

    if nix::unistd::Uid::effective().is_root() {
        // Others may enter what is above the data directory, as the field wants it.
        fs::set_permissions(dev.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        let job = "name: whom\nkind: batch\nuser: 65533:65534\nbash: |\n  id -u; id -g\n  \
                   echo own > file; cat file\n  cat ../output.log 2>/dev/null || echo closed\n";
        dev.run(job, &[]).expect_code(0);
        wait_for_output(&dev, "whom", "65533\n65534\nown\nclosed\n");
    } else {
        eprintln!("SKIPPED: not root");
    }
}

#[test]
fn a_script_in_a_file_runs_as_it_was_when_it_was_submitted() {
    let dev = Dev::start(&[]);
    executable(&dev, "go", FAKE_GO);
    for (name, text) in [
        ("a.sh", "echo from a shell"),
        ("b.py", "print('from python')"),
        ("c.go", "#!/bin/sh\necho from go\n"),
    ] {
        fs::write(dev.path(name), text).unwrap();
    }
    let job = format!(
        "name: files\nkind: batch\ntasks:\n  shell: {{bash: {{file: a.sh}}}}\n  \
         snake: {{python: {{file: b.py}}}}\n  \
         built: {{go: {{file: c.go}}, env: {{PATH: '{}:/usr/bin:/bin'}}}}\n",
        dev.path("").display()
    );
    let path = dev.path("job.yaml");
    fs::write(&path, job).unwrap();
    dev.ctl(&["run", path.to_str().unwrap()]).expect_code(0);
    wait_for_output(&dev, "files/shell", "from a shell\n");
    wait_for_output(&dev, "files/snake", "from python\n");
    wait_for_output(&dev, "files/built", "from go\n");
    // The text went with the job: what becomes of the file is nothing to it.
    fs::write(dev.path("a.sh"), "echo something else").unwrap();
    dev.ctl(&["dispatch", "files"]).expect_code(0);
    let children = dev.job("files")["children"].clone();
    let child = children[0]["job"]["name"].as_str().unwrap();
    wait_for_output(&dev, &format!("{child}/shell"), "from a shell\n");
}
