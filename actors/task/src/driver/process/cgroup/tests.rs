use super::*;

#[test]
fn mounts_of_both_versions_are_found() {
    let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    let found = mounts(text);
    let paths: Vec<_> = found
        .iter()
        .map(|m| (m.path.to_str().unwrap(), m.version2))
        .collect();
    assert_eq!(
        paths,
        [
            ("/sys/fs/cgroup/cpu,cpuacct", false),
            ("/sys/fs/cgroup/blkio", false),
            ("/sys/fs/cgroup/freezer", false),
            ("/sys/fs/cgroup/unified", true)
        ]
    );
}

#[test]
fn without_groups_every_limit_is_said_not_to_hold() {
    let mut none = Cgroups::default();
    none.why = "no cgroup".into();
    let wanted = Resources {
        cpu: loom_schemas::units::MilliCores(100),
        cpu_limit: Some(loom_schemas::units::MilliCores(200)),
        memory: loom_schemas::units::Bytes::mib(1),
        pids: Some(5),
        ..Resources::default()
    };
    let made = none.make("r", &wanted);
    assert_eq!(
        made.unenforced,
        [
            "cpu share: no cgroup",
            "cpu limit: no cgroup",
            "memory limit: no cgroup",
            "pids limit: no cgroup",
            "pause: by SIGSTOP, no cgroup",
        ]
    );
}
