use std::collections::BTreeMap;

use loom_schemas::units::Millis;

use super::*;
use crate::machine::samples::{assigned, id};

fn launch(number: u128, script: SimScript) -> Launch {
    let assigned = assigned();
    Launch {
        run: id(number),
        slot: assigned.slot,
        argv: Vec::new(),
        needs: Vec::new(),
        env: BTreeMap::new(),
        container: None,
        files: Vec::new(),
        workdir: None,
        user: None,
        resources: assigned.task.resources,
        logs: assigned.task.logs,
        result: false,
        filled: BTreeMap::new(),
        sim: Some(script),
    }
}

fn runs_for(millis: u64, exit: i32) -> SimScript {
    SimScript {
        run: Some(Millis(millis)),
        exit,
        ..SimScript::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_script_is_played_to_its_end() {
    let driver = SimDriver::new();
    let begun = Instant::now();
    driver.start(launch(1, runs_for(90_000, 3))).await.unwrap();
    let ended = driver.wait(id(1)).await.unwrap();
    assert_eq!(ended.exit.code, Some(3));
    assert_eq!(begun.elapsed().as_secs(), 90);
    let again = driver.start(launch(1, runs_for(1, 0))).await;
    assert!(matches!(again, Err(DriverError::Ended(_))));
    driver.remove(id(1), true).await.unwrap();
    assert!(driver.inventory().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_start_error_rejects_after_the_time_a_start_takes() {
    let driver = SimDriver::new();
    let begun = Instant::now();
    let script = SimScript {
        start: Millis(5_000),
        start_error: Some("no such image".into()),
        ..SimScript::default()
    };
    let error = driver.start(launch(1, script)).await.unwrap_err();
    assert_eq!(error.to_string(), "no such image");
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(driver.adopt(id(1)).await.unwrap(), Adopted::Gone);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_its_time_and_its_signals() {
    let driver = SimDriver::new();
    driver.start(launch(1, runs_for(10_000, 0))).await.unwrap();
    driver.pause(id(1)).await.unwrap();
    tokio::time::advance(Duration::from_mins(1)).await;
    let adopted = driver.adopt(id(1)).await.unwrap();
    assert!(matches!(adopted, Adopted::Running { paused: true, .. }));
    driver.resume(id(1)).await.unwrap();
    let begun = Instant::now();
    assert_eq!(driver.wait(id(1)).await.unwrap().exit.code, Some(0));
    assert_eq!(begun.elapsed().as_secs(), 10);

    driver.start(launch(2, SimScript::default())).await.unwrap();
    driver.pause(id(2)).await.unwrap();
    driver.signal(id(2), Signal::SIGTERM, false).await.unwrap();
    assert!(matches!(
        driver.adopt(id(2)).await.unwrap(),
        Adopted::Running { .. }
    ));
    driver.resume(id(2)).await.unwrap();
    assert_eq!(driver.wait(id(2)).await.unwrap().exit.signal, Some(15));
}

#[tokio::test(start_paused = true)]
async fn only_kill_ends_what_ignores_the_stop() {
    let driver = SimDriver::new();
    let script = SimScript {
        ignore_stop: true,
        ..SimScript::default()
    };
    driver.start(launch(1, script)).await.unwrap();
    driver.signal(id(1), Signal::SIGTERM, false).await.unwrap();
    driver.signal(id(1), Signal::SIGHUP, false).await.unwrap();
    assert!(matches!(
        driver.adopt(id(1)).await.unwrap(),
        Adopted::Running { .. }
    ));
    driver.pause(id(1)).await.unwrap();
    let waiting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.wait(id(1)).await }
    });
    tokio::task::yield_now().await;
    driver.signal(id(1), Signal::SIGKILL, true).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().exit.code, Some(137));
    let after = driver.signal(id(1), Signal::SIGHUP, false).await;
    assert!(matches!(after, Err(DriverError::Ended(_))));
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_a_start_under_way() {
    let driver = SimDriver::new();
    let script = SimScript {
        start: Millis(60_000),
        ..SimScript::default()
    };
    let starting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.start(launch(1, script)).await }
    });
    tokio::task::yield_now().await;
    driver.signal(id(1), Signal::SIGKILL, true).await.unwrap();
    assert!(matches!(
        starting.await.unwrap(),
        Err(DriverError::Ended(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn health_is_played_from_the_start_of_the_run() {
    let driver = SimDriver::new();
    let script = SimScript {
        healthy_after: Millis(2_000),
        unhealthy_after: Some(Millis(10_000)),
        ..SimScript::default()
    };
    driver.start(launch(1, script)).await.unwrap();
    let health = |seconds| {
        let driver = driver.clone();
        async move {
            tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
            driver.played_health(id(1)).unwrap()
        }
    };
    assert_eq!(health(0).await, Err("not before 2s".into()));
    assert_eq!(health(2).await, Ok(()));
    assert_eq!(health(7).await, Ok(()));
    assert_eq!(health(1).await, Err("no longer after 10s".into()));
    assert!(driver.played_health(id(2)).unwrap().is_err());
}
