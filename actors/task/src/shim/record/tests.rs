use super::*;
use crate::shim::tree::TreeKind;

fn launch() -> ShimLaunch {
    ShimLaunch {
        run: "r".into(),
        program: "/bin/sh".into(),
        argv: vec![
            "sh".into(),
            "-c".into(),
            "echo a\nb=\"c\"".into(),
            OsString::new(),
        ],
        env: vec![
            "A=b=c".into(),
            "B=".into(),
            OsString::from_vec(b"C=\xff\n".to_vec()),
        ],
        workdir: "/tmp".into(),
        uid: Some(7),
        gid: None,
        output: "/tmp/o".into(),
        max_size: 10,
        keep: 3,
        enter: vec!["/e".into(), "/f".into()],
        leave: vec![],
        tree: Some(Tree {
            path: "/t".into(),
            kind: TreeKind::V2,
        }),
        oom: Some("/o".into()),
        groups: vec!["/g".into()],
        unenforced: vec!["memory limit: no cgroup".into()],
    }
}

#[test]
fn what_is_written_is_read_again() {
    assert_eq!(ShimLaunch::decode(&launch().encode()), Some(launch()));
    let started = StartedRecord {
        shim: Process { pid: 3, ticks: 4 },
        main: Process { pid: 5, ticks: 6 },
        boot: "b".into(),
        at: Timestamp::from_nanosecond(1_234_567_891_234_567_891).unwrap(),
        output: "/o".into(),
        base: 9,
        notes: vec!["x".into()],
    };
    assert_eq!(StartedRecord::decode(&started.encode()), Some(started));
    let status = StatusRecord {
        signal: Some(9),
        oom: true,
        ..Default::default()
    };
    assert_eq!(StatusRecord::decode(&status.encode()), Some(status));
}

#[test]
fn a_torn_or_foreign_file_does_not_count() {
    let whole = launch().encode();
    for length in 0..whole.len() {
        assert_eq!(ShimLaunch::decode(&whole[..length]), None);
    }
    assert_eq!(StatusRecord::decode(&whole), None);
    assert_eq!(
        StatusRecord::decode(b"loom-status 2\0code=0\0oom=0\0at=0\0end\0"),
        None
    );
    assert_eq!(
        StatusRecord::decode(b"loom-status 1\0oom=0\0at=0\0end\0"),
        None
    );
    assert_eq!(StatusRecord::decode(b"\xff\0\0end\0"), None);
}

#[test]
fn the_format_is_frozen() {
    let status = b"loom-status 1\0later=x\0code=3\0oom=0\0at=1500000000\0note=n\0end\0";
    let read = StatusRecord::decode(status).unwrap();
    assert_eq!(
        (read.code, read.at.as_second(), read.notes.len()),
        (Some(3), 1, 1)
    );
    let started = b"loom-started 1\0shim=1 2\0main=3 4\0boot=b\0at=0\0output=/o\0base=7\0end\0";
    let read = StartedRecord::decode(started).unwrap();
    assert_eq!((read.main.pid, read.main.ticks, read.base), (3, 4, 7));
}

#[test]
fn a_process_name_may_look_like_fields() {
    let stat = b"12 (a) R 1 (x) S 1 12 12 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
    assert_eq!(stat_field(stat, 22), Some(4242));
    assert_eq!(stat_field(stat, 6), Some(12));
    assert!(start_ticks(std::process::id()).is_some());
    assert_eq!(start_ticks(u32::MAX), None);
}
