//! The start of a run: its directory, its groups, its shim.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::diagnose::{self, User};
use super::run::{Run, Shim};
use super::{Inner, adopt, failed, work};
use crate::driver::{DriverError, RESULT};
use crate::launch::{Launch, LaunchFile};
use crate::limits::{OPEN_FILES, open_files_before};
use crate::private::{self, OWN_DIRECTORY, OWN_FILE, PASSAGE, make_directory};
use crate::shim::SHIM_WORD;
use crate::shim::record::{LAUNCH, ShimLaunch, StartedRecord};

/// How long a shim may take to execute the program or say why not.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Starts a launch, or finds it started; blocks until the program was executed.
pub(super) fn start(inner: &Arc<Inner>, launch: &Launch) -> Result<Arc<Run>, DriverError> {
    let _claim = inner.claim(launch.run)?;
    if let Some(run) = inner.run(launch.run) {
        return Ok(run);
    }
    let directory = inner.directory_of(launch.run);
    if directory.join(LAUNCH).exists()
        && let Some(run) = adopt::look(inner, launch.run)
    {
        inner.runs().insert(launch.run, Arc::clone(&run));
        return Ok(run);
    }
    let run = start_new(inner, launch, &directory);
    match &run {
        Ok(run) => {
            inner.runs().insert(launch.run, Arc::clone(run));
        }
        Err(_) => {
            // Nothing of a run that never was stays behind.
            let _ = fs::remove_dir_all(&directory);
        }
    }
    run
}

fn start_new(
    inner: &Arc<Inner>,
    launch: &Launch,
    directory: &Path,
) -> Result<Arc<Run>, DriverError> {
    let shim_launch = plan(inner, launch, directory)?;
    let begin = || {
        let (mut child, answer) = run_shim(inner.shim.path(), directory, &shim_launch)?;
        let started =
            StartedRecord::decode(&answer).ok_or_else(|| diagnose::answer(&answer, &shim_launch));
        let fd = started.and_then(|started| {
            let fd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
            let context = || "watch the shim".to_owned();
            Ok((started, fd.map_err(|error| failed(context)(error.into()))?))
        });
        match fd {
            Ok((started, fd)) => Ok((
                started,
                Shim {
                    fd,
                    child: Some(child),
                },
            )),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    };
    match begin() {
        Ok((started, shim)) => Ok(Run::watched(
            launch.run,
            directory.to_path_buf(),
            inner.with_groups(shim_launch),
            started,
            shim,
        )),
        Err(error) => {
            // Also what a program may have begun in the moment before.
            inner.cgroups.clear(&shim_launch.run);
            Err(error)
        }
    }
}

/// Prepares everything but the process: user, directory, program and groups.
fn plan(inner: &Inner, launch: &Launch, directory: &Path) -> Result<ShimLaunch, DriverError> {
    let user = launch.user.as_deref().map(diagnose::user).transpose()?;
    prepare(directory, launch, user.as_ref())?;
    let workdir = launch.workdir.clone().unwrap_or_else(|| work(directory));
    diagnose::workdir(&workdir)?;
    let mut env = environment(&launch.env, user.as_ref(), &workdir);
    let result = work(directory).join(RESULT);
    env.insert("LOOM_RESULT".to_owned(), result.display().to_string());
    let argv = launch.argv_in(&work(directory));
    let program = diagnose::program(&argv, &env["PATH"], &workdir)?;
    for needed in &launch.needs {
        diagnose::program(&[needed.into()], &env["PATH"], &workdir)?;
    }
    check(&argv, &env)?;
    let env = env
        .iter()
        .map(|(name, value)| format!("{name}={value}").into())
        .collect();
    let output = match &launch.logs.to {
        Some(path) => workdir.join(path),
        None => directory.join("output.log"),
    };
    let groups = inner
        .cgroups
        .make(&launch.run.to_string(), &launch.resources);
    Ok(ShimLaunch {
        run: launch.run.to_string(),
        program,
        argv,
        env,
        workdir,
        uid: user.as_ref().map(|user| user.uid),
        gid: user.as_ref().map(|user| user.gid),
        output,
        max_size: launch.logs.max_size.0,
        keep: launch.logs.keep,
        enter: groups.enter,
        leave: groups.leave,
        tree: groups.tree,
        oom: groups.oom,
        groups: groups.groups,
        unenforced: groups.unenforced,
    })
}

/// Makes the run's directory and writes the launch's files.
fn prepare(directory: &Path, launch: &Launch, user: Option<&User>) -> Result<(), DriverError> {
    let work = work(directory);
    let context = || format!("make the directory {}", work.display());
    // What an earlier attempt left would be taken for this one's.
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(context)(error));
        }
        _ => {}
    }
    make_directory(directory, PASSAGE).map_err(failed(context))?;
    make_directory(&work, OWN_DIRECTORY).map_err(failed(context))?;
    let own = |path: &Path| match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    };
    own(&work).map_err(failed(context))?;
    for LaunchFile {
        name,
        contents,
        mode,
    } in &launch.files
    {
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || name.is_empty() {
            return Err(DriverError::Rejected(format!(
                "file `{name}`: expected a name relative to the run's directory"
            )));
        }
        let path = work.join(name);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            private::write(&path, contents)?;
            // For the task's user alone: a container's may be any.
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode & 0o700))?;
            own(&path)
        };
        write().map_err(failed(|| format!("write {}", path.display())))?;
    }
    Ok(())
}

/// The whole environment, with `PATH` and `HOME` where the launch sets none.
fn environment(
    wanted: &BTreeMap<String, String>,
    user: Option<&User>,
    workdir: &Path,
) -> BTreeMap<String, String> {
    let mut env = wanted.clone();
    let own = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    env.entry("PATH".into())
        .or_insert_with(|| own("PATH").unwrap_or_else(|| diagnose::DEFAULT_PATH.into()));
    env.entry("HOME".into()).or_insert_with(|| {
        let home = match user {
            Some(user) => user.home.clone(),
            None => own("HOME"),
        };
        home.unwrap_or_else(|| workdir.display().to_string())
    });
    env
}

/// Refuses what no program can be handed.
fn check(argv: &[OsString], env: &BTreeMap<String, String>) -> Result<(), DriverError> {
    let values = env
        .iter()
        .flat_map(|(name, value)| [OsStr::new(name), OsStr::new(value)]);
    let mut texts = argv.iter().map(OsString::as_os_str).chain(values);
    if let Some(text) = texts.find(|text| text.as_bytes().contains(&0)) {
        let shown: String = text.to_string_lossy().chars().take(40).collect();
        return Err(DriverError::Rejected(format!("{shown:?} holds a NUL byte")));
    }
    if let Some(name) = env
        .keys()
        .find(|name| name.is_empty() || name.contains('='))
    {
        return Err(DriverError::Rejected(format!(
            "env: `{name}` is not a name of a variable"
        )));
    }
    Ok(())
}

/// Starts the shim and reads its whole answer.
fn run_shim(
    shim: &Path,
    directory: &Path,
    launch: &ShimLaunch,
) -> Result<(Child, Vec<u8>), DriverError> {
    let path = directory.join(LAUNCH);
    let file = write_launch(&path, &launch.encode())
        .map_err(failed(|| format!("write {}", path.display())))?;
    let spawn = || {
        let mut child = Command::new(shim)
            .arg0("loom-shim")
            .arg(SHIM_WORD)
            .arg(directory)
            .env_clear()
            .envs(open_files_before().map(|limit| (OPEN_FILES, limit)))
            .stdin(Stdio::from(file))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        match read_answer(stdout) {
            Ok(answer) => Ok((child, answer)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    };
    spawn().map_err(failed(|| format!("start the shim {}", shim.display())))
}

/// The launch file, put in place whole, locked, and ready to be read: the shim's standard input.
fn write_launch(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        // Its environment may hold secrets.
        .mode(OWN_FILE)
        .open(&temporary)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(bytes)?;
    file.rewind()?;
    fs::rename(temporary, path)?;
    Ok(file)
}

fn read_answer(mut from: ChildStdout) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = START_PATIENCE.saturating_sub(begun.elapsed());
        let limit = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match from.read(&mut chunk)? {
            0 => return Ok(answer),
            count => answer.extend_from_slice(&chunk[..count]),
        }
    }
}
