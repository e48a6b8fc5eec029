use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::{assign, epoch, name, progress, report, run};
use loom_schemas::words::RunState;

const LEAST: u64 = 4096;

fn open(directory: &Path, node: &str) -> Result<(Store, Ledger, mpsc::Receiver<()>), StoreError> {
    let (alive_by, alive) = mpsc::channel(1);
    let (store, ledger) = Store::open(directory, &name(node), 10, LEAST, alive_by)?;
    Ok((store, ledger, alive))
}

async fn close(store: Store, mut alive: mpsc::Receiver<()>) {
    drop(store);
    assert!(alive.recv().await.is_none());
}

#[tokio::test]
async fn what_is_kept_is_there_for_the_next_agent() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut ledger, alive) = open(directory.path(), "node-1").unwrap();
    let record = Record::Assign(assign(epoch(1, 1), None, 1, &[1, 2], &[]));
    store.append([&record]);
    ledger.apply(record);
    store.kept().await.unwrap();
    assert_eq!(store.reload().await.unwrap(), ledger);
    close(store, alive).await;
    let (_store, again, _alive) = open(directory.path(), "node-1").unwrap();
    assert_eq!(again, ledger);
}

#[tokio::test]
async fn only_the_agents_user_reads_what_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("node-1");
    let state = directory.join(FILE);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let open_up = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (store, ledger, alive) = open(&directory, "node-1").unwrap();
    assert_eq!((mode(&directory), mode(&state)), (0o711, 0o600));
    store.renew(ledger);
    store.kept().await.unwrap();
    assert_eq!(mode(&state), 0o600);
    close(store, alive).await;

    // An earlier build left them open.
    open_up(&directory, 0o755);
    open_up(&state, 0o644);
    let (store, _, alive) = open(&directory, "node-1").unwrap();
    assert_eq!((mode(&directory), mode(&state)), (0o711, 0o600));
    close(store, alive).await;

    // What is no node's own is left as it is.
    open_up(&directory, 0o755);
    let refused = open(&directory, "node-2").err().unwrap();
    assert!(matches!(refused, StoreError::OtherNode { .. }), "{refused}");
    assert_eq!(mode(&directory), 0o755);
}

#[tokio::test]
async fn a_file_that_has_grown_is_written_anew_and_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut ledger, _alive) = open(directory.path(), "node-1").unwrap();
    let assign = Record::Assign(assign(epoch(1, 1), None, 1, &[1], &[]));
    store.append([&assign]);
    ledger.apply(assign);
    let mut longest = 0;
    for change in 0..500_u64 {
        let state = RunState::Running;
        let mut report = report(1, 1, state);
        report.reason = Some(change.to_string());
        let record = Record::Report {
            report,
            progress: progress(1, 1, state),
        };
        store.append([&record]);
        ledger.apply(record);
        if store.wants_renewal() {
            store.renew(ledger.clone());
        }
        store.kept().await.unwrap();
        longest = longest.max(std::fs::metadata(&*store.path).unwrap().len());
    }
    assert!(longest < 4 * LEAST, "{longest}");
    assert_eq!(store.reload().await.unwrap(), ledger);
    assert!(ledger.places.contains_key(&run(1)));
}

#[tokio::test]
async fn a_directory_has_one_agent_of_one_name() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, alive) = open(directory.path(), "node-1").unwrap();
    assert!(matches!(
        open(directory.path(), "node-1"),
        Err(StoreError::Locked { .. })
    ));
    close(store, alive).await;
    let error = open(directory.path(), "node-2").unwrap_err().to_string();
    assert!(
        error.ends_with("belongs to node `node-1`, not to `node-2`"),
        "{error}"
    );
}

#[tokio::test]
async fn another_format_and_damage_are_clear_lines() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, alive) = open(directory.path(), "node-1").unwrap();
    let path = store.path.to_path_buf();
    close(store, alive).await;
    let good = std::fs::read(&path).unwrap();
    let mut other = good.clone();
    other[8] = 7;
    std::fs::write(&path, &other).unwrap();
    let error = open(directory.path(), "node-1").unwrap_err();
    assert!(
        matches!(error, StoreError::Format { found: 7, .. }),
        "{error}"
    );
    std::fs::write(&path, b"what is this").unwrap();
    let error = open(directory.path(), "node-1").unwrap_err().to_string();
    assert!(error.contains("is not the state of a Loom node"), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = open(&file.join("below"), "node-1").unwrap_err();
    assert!(error.to_string().ends_with("making it"), "{error}");
    let read_only = directory.path().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o555)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        let error = open(&read_only, "node-1").unwrap_err();
        assert!(error.to_string().ends_with("writing its state"), "{error}");
    }
}
