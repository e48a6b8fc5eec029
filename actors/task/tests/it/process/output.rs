//! Output: what is kept, in which form, and how it is read.

use std::fs;
use std::path::Path;
use std::process::Command;

use loom_schemas::units::Bytes;
use loom_task::driver::Driver;
use loom_task::output::{OutputReader, Stream, tail};
use nix::sys::signal::Signal;

use super::rig::{PATIENCE, Rig, is_root, pids, sh, until};

fn size_of_logs(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("output.log")
        })
        .filter_map(|entry| entry.metadata().ok())
        .map(|data| data.len())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_have_time_stream_and_text() {
    let rig = Rig::new();
    let wanted = sh("echo one; echo two >&2; printf 'no\\0 \\377 end'");
    let started = rig.start(&wanted).await;
    rig.end(wanted.run).await;
    let lines = rig.output(wanted.run).await;
    let stdout: Vec<_> = lines
        .iter()
        .filter(|line| line.stream == Stream::Stdout)
        .collect();
    assert_eq!(stdout[0].text, "one");
    assert_eq!(stdout[1].text, "no\0 \u{fffd} end");
    assert!(stdout[1].partial, "its end never came");
    assert!(
        lines
            .iter()
            .any(|line| line.stream == Stream::Stderr && line.text == "two")
    );
    assert!(lines.iter().all(|line| line.at
        >= started.at.round(jiff::Unit::Second).unwrap() - jiff::SignedDuration::from_secs(1)));
    let file = fs::read(rig.directory_of(wanted.run).join("output.log")).unwrap();
    let first = String::from_utf8_lossy(&file)
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let words: Vec<_> = first.split(' ').collect();
    assert_eq!(
        (words[0].len(), words[0].ends_with('Z')),
        (27, true),
        "{first}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_seen_while_it_is_written() {
    let rig = Rig::new();
    let wanted = sh("printf 'password: '; read -r x < /proc/self/fd/9 || sleep 300");
    rig.start(&wanted).await;
    let mut reader = OutputReader::open(&rig.directory_of(wanted.run), 0).unwrap();
    let batch = tokio::time::timeout(PATIENCE, reader.next_batch())
        .await
        .unwrap()
        .unwrap();
    let prompt = batch.iter().find(|line| line.stream == Stream::Stdout);
    let prompt = match prompt {
        Some(prompt) => prompt.clone(),
        None => reader.next_batch().await.unwrap().remove(0),
    };
    assert_eq!((prompt.text.as_str(), prompt.partial), ("password: ", true));
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    let end = async { while reader.next_batch().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end)
        .await
        .expect("the end of the output");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_on_disk_and_ends_whole() {
    let rig = Rig::new();
    // 100 MB of lines of 100 bytes.
    let mut wanted = sh("yes \"$(printf %099d 0)\" 2>/dev/null | head -c 100000000; echo last");
    wanted.logs.max_size = Bytes::mib(2);
    wanted.logs.keep = 3;
    let begun = std::time::Instant::now();
    rig.run(&wanted).await;
    eprintln!("100 MB of output: {:?}", begun.elapsed());
    let directory = rig.directory_of(wanted.run);
    let size = size_of_logs(&directory);
    assert!(size <= 3 * Bytes::mib(2).0, "{size}");
    let last = tail(&directory, 3).unwrap();
    assert_eq!(last[2].text, "last");
    assert_eq!(last[1].text.len(), 99);
    let all = rig.output(wanted.run).await;
    assert_eq!(all.last().unwrap().offset, last[2].offset);
    assert!(all.windows(2).all(|two| two[0].offset < two[1].offset));
    // Nothing is missing among those that are kept.
    let step = all[1].offset - all[0].offset;
    for two in all.windows(2) {
        assert_eq!(two[1].offset - two[0].offset, step, "{two:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_over_rotations_and_loses_nothing() {
    let rig = Rig::new();
    let mut wanted = sh("i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i+1)); done");
    wanted.logs.max_size = Bytes(4096);
    wanted.logs.keep = 1000;
    rig.start(&wanted).await;
    let text = rig.text(wanted.run).await;
    let expected: Vec<_> = (0..3000).map(|number| format!("line {number}")).collect();
    assert_eq!(text, expected);
    // The same once more from the middle, and from the end backwards.
    rig.end(wanted.run).await;
    let all = rig.output(wanted.run).await;
    let mut reader = OutputReader::open(&rig.directory_of(wanted.run), all[1500].offset).unwrap();
    assert_eq!(reader.next_batch().await.unwrap()[0], all[1500]);
    let last = tail(&rig.directory_of(wanted.run), 700).unwrap();
    assert_eq!(last, all[2300..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlong_line_comes_in_pieces_and_is_one_in_the_tail() {
    let rig = Rig::new();
    let wanted = sh("head -c 200000 /dev/zero | tr '\\0' x; echo; echo after");
    rig.run(&wanted).await;
    let text = rig.text(wanted.run).await;
    assert!(text.iter().all(|line| line.len() <= 64 * 1024));
    let last = tail(&rig.directory_of(wanted.run), 2).unwrap();
    assert_eq!(
        (last[0].text.len(), last[1].text.as_str()),
        (200_000, "after")
    );
    assert!(!last[0].partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_at_the_end() {
    let rig = Rig::new();
    // What the dying tree wrote last is still in the pipe.
    for _ in 0..20 {
        let wanted = sh("(i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done); kill -9 $$");
        rig.run(&wanted).await;
        let text = rig.text(wanted.run).await;
        assert_eq!(
            (text.len(), text.last().map(String::as_str)),
            (200, Some("199"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_where_the_job_wants_it() {
    let rig = Rig::new();
    let logs = rig.directory.path().join("logs/web-0.log");
    let mut first = sh("echo first; sleep 300");
    first.logs.to = Some(logs.display().to_string());
    rig.start(&first).await;
    until("the line", || {
        fs::read_to_string(&logs).is_ok_and(|text| text.ends_with("stdout F first\n"))
    })
    .await;
    // A second writer is turned away to its own directory, and says so.
    let mut second = sh("echo second");
    second.logs.to.clone_from(&first.logs.to);
    let started = rig.start(&second).await;
    assert!(
        started
            .unenforced
            .iter()
            .any(|phrase| phrase.contains("another run writes to it"))
    );
    rig.end(second.run).await;
    assert_eq!(rig.text(second.run).await, ["second"]);
    rig.driver
        .signal(first.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    rig.end(first.run).await;
    // The next run goes on in the same file, and each is read alone.
    let mut third = sh("echo third");
    third.logs.to.clone_from(&first.logs.to);
    rig.run(&third).await;
    let text = fs::read_to_string(&logs).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    let lines = rig.output(third.run).await;
    assert_eq!(
        (lines.len(), lines[0].text.as_str(), lines[0].offset),
        (1, "third", 0)
    );
    assert_eq!(tail(&rig.directory_of(third.run), 9).unwrap(), lines);
    assert_eq!(
        tail(&rig.directory_of(first.run), 9).unwrap()[0].text,
        "first"
    );
    assert_eq!(rig.text(first.run).await, ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_output_stays_as_it_is_and_no_link_is_followed() {
    let rig = Rig::new();
    let there = rig.directory.path().canonicalize().unwrap();
    let secret = there.join("passwd");
    fs::write(&secret, "root:x:0:0\n").unwrap();
    fs::create_dir(there.join("logs")).unwrap();
    std::os::unix::fs::symlink(&secret, there.join("logs/link.log")).unwrap();
    std::os::unix::fs::symlink(&there, there.join("logs/away")).unwrap();
    for to in [
        "passwd",
        "logs/link.log",
        "logs/away/new.log",
        "logs/../passwd",
    ] {
        let mut wanted = sh("echo said; yes | head -c 20000");
        wanted.logs.to = Some(format!("{}/{to}", there.display()));
        wanted.logs.max_size = Bytes(4096);
        wanted.logs.keep = 1;
        let started = rig.start(&wanted).await;
        let note = started.unenforced.iter().find(|note| note.contains(to));
        assert!(note.is_some(), "{to}: {:?}", started.unenforced);
        rig.end(wanted.run).await;
        // Its output is kept all the same, in its own directory.
        assert_eq!(rig.text(wanted.run).await.last().unwrap(), "y", "{to}");
        assert!(rig.directory_of(wanted.run).join("output.log").exists());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root:x:0:0\n");
        assert!(!there.join("new.log").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_in_the_place_of_output_is_not_read() {
    let rig = Rig::new();
    let there = rig.directory.path().canonicalize().unwrap();
    let secret = there.join("secret");
    fs::write(&secret, "2026-01-02T03:04:05.000006Z stdout F secret\n").unwrap();
    let logs = there.join("logs/a.log");
    let mut wanted = sh("echo said");
    wanted.logs.to = Some(logs.display().to_string());
    rig.run(&wanted).await;
    assert_eq!(rig.text(wanted.run).await, ["said"]);
    fs::remove_file(&logs).unwrap();
    std::os::unix::fs::symlink(&secret, &logs).unwrap();
    assert_eq!(tail(&rig.directory_of(wanted.run), 9).unwrap(), []);
    assert_eq!(rig.text(wanted.run).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_may_be_all_that_is_kept() {
    let rig = Rig::new();
    let mut wanted = sh("i=0; while [ $i -lt 2000 ]; do echo \"line $i\"; i=$((i+1)); done");
    wanted.logs.max_size = Bytes(8192);
    wanted.logs.keep = 1;
    rig.run(&wanted).await;
    assert!(size_of_logs(&rig.directory_of(wanted.run)) <= 8192);
    assert_eq!(rig.text(wanted.run).await.last().unwrap(), "line 1999");
}

/// A small file system, unmounted with it.
struct SmallDisk(std::path::PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_and_not_the_task() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let disk = SmallDisk(rig.directory.path().join("small"));
    fs::create_dir(&disk.0).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "small"])
        .arg(&disk.0)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: tmpfs cannot be mounted here");
        return;
    }
    fs::write(disk.0.join("filler"), vec![0; 100_000]).unwrap();
    let mut wanted = sh(
        "i=0; while [ $i -lt 5000 ]; do echo \"a line of text, number $i\"; \
                         i=$((i+1)); done; echo done > done; while ! [ -e room ]; do sleep 0.01; \
                         done; echo there is room",
    );
    wanted.logs.to = Some(disk.0.join("out.log").display().to_string());
    rig.start(&wanted).await;
    let work = rig.directory_of(wanted.run).join("work");
    until("the task went through the full disk", || {
        work.join("done").exists()
    })
    .await;
    fs::remove_file(disk.0.join("filler")).unwrap();
    fs::write(work.join("room"), "").unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(0));
    let text = rig.text(wanted.run).await;
    assert_eq!(text.last().unwrap(), "there is room");
    let note = text
        .iter()
        .find(|line| line.starts_with("loom: "))
        .expect("a note of the loss");
    assert!(note.contains("lines dropped: No space left"), "{note}");
    let dropped: usize = note.split(' ').nth(1).unwrap().parse().unwrap();
    let kept = text
        .iter()
        .filter(|line| line.starts_with("a line of text, number "))
        .count();
    let torn = text.len() - kept - 2;
    assert!(
        torn <= 1 && dropped + kept + torn >= 5000,
        "{dropped} {kept} {torn}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_reader_and_an_idle_shim_do_nothing() {
    let rig = Rig::new();
    let wanted = sh("echo x; sleep 300");
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    let mut reader = OutputReader::open(&directory, 0).unwrap();
    assert_eq!(reader.next_batch().await.unwrap()[0].text, "x");
    let (shim, _) = pids(&directory).unwrap();
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
        let lines = status
            .lines()
            .filter(|line| line.contains("voluntary_ctxt_switches"));
        lines
            .map(|line| line.split('\t').nth(1).unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    };
    // It settles once the last line is written.
    let waiting = tokio::spawn(async move { reader.next_batch().await });
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let before = switches();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(switches(), before, "the shim sleeps");
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap()
            .unwrap(),
        None
    );
}
