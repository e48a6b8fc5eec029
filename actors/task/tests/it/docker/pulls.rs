//! Pulls from a registry: what comes, what is refused, what breaks.

use std::sync::{Arc, Mutex};

use loom_schemas::spec::Pull;
use loom_task::driver::Driver;
use loom_tests::docker::{Registry, docker, is_there};

use super::rig::{Rig, launch};

fn registry(password: Option<&str>) -> Option<Registry> {
    is_there().then(|| Registry::start(password))?
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_its_policy_and_known_by_its_digest() {
    let Some(registry) = registry(None) else {
        return;
    };
    let rig = Rig::new().unwrap();
    let image = registry.push("team/app:1");
    let mut wanted = launch(&image, &["true"]);
    let said = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&said);
    let tell = Box::new(move |doing| told.lock().unwrap().push(doing));
    rig.driver.prepare(wanted.clone(), tell).await.unwrap();
    assert_eq!(*said.lock().unwrap(), [format!("pulling image `{image}`")]);
    let started = rig.driver.start(wanted.clone()).await.unwrap();
    let digest = started.container.unwrap().image;
    let repository = image.strip_suffix(":1").unwrap();
    assert!(
        digest.starts_with(&format!("{repository}@sha256:")),
        "{digest}"
    );
    rig.end(wanted.run).await;
    rig.driver.remove(wanted.run, true).await.unwrap();
    // By that digest it is pulled where it is not there.
    docker(&["image", "rm", &image]);
    let pinned = launch(&digest, &["true"]);
    let told = Arc::clone(&said);
    said.lock().unwrap().clear();
    let tell = Box::new(move |doing| told.lock().unwrap().push(doing));
    rig.driver.prepare(pinned.clone(), tell).await.unwrap();
    assert_eq!(*said.lock().unwrap(), [format!("pulling image `{digest}`")]);
    let started = rig.start(&pinned).await;
    assert_eq!(started.container.unwrap().image, digest);
    assert_eq!(rig.end(pinned.run).await.exit.code, Some(0));
    rig.driver.remove(pinned.run, true).await.unwrap();
    docker(&["image", "rm", &digest]);
    // What is there is not asked for again, but with `always`.
    drop(registry);
    docker(&["tag", loom_tests::docker::IMAGE, &image]);
    rig.driver
        .prepare(wanted.clone(), Box::new(drop))
        .await
        .unwrap();
    wanted.container.as_mut().unwrap().image.pull = Pull::Always;
    let (hopeless, why) = rig.refusal(&wanted).await;
    docker(&["image", "rm", &image]);
    assert!(!hopeless && why.contains("cannot be reached"), "{why}");
    assert!(why.contains("connection refused"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_does_not_have_is_named() {
    let Some(registry) = registry(None) else {
        return;
    };
    let rig = Rig::new().unwrap();
    let address = &registry.address;
    registry.push("team/app:1");
    for image in [
        format!("{address}/team/app:2"),
        format!("{address}/nobody/here"),
    ] {
        let (hopeless, why) = rig.refusal(&launch(&image, &[])).await;
        assert!(
            hopeless && why.contains(&format!("image `{image}`")),
            "{why}"
        );
        assert!(
            why.contains(address) && why.contains("check name and tag"),
            "{why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_login_says_so() {
    let Some(registry) = registry(Some("secret")) else {
        return;
    };
    let rig = Rig::new().unwrap();
    let image = format!("{}/team/app:1", registry.address);
    let (hopeless, why) = rig.refusal(&launch(&image, &[])).await;
    assert!(
        hopeless && why.contains(&format!("docker login {}", registry.address)),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_breaks_half_way_is_told_and_tried_again() {
    let Some(registry) = registry(None) else {
        return;
    };
    let rig = Rig::new().unwrap();
    let image = registry.push_new("team/app:1");
    let layer = largest_blob(&registry);
    let whole = std::fs::read(&layer).unwrap();
    std::fs::write(&layer, &whole[..whole.len() / 2]).unwrap();
    let wanted = launch(&image, &["true"]);
    let (hopeless, why) = rig.refusal(&wanted).await;
    assert!(
        !hopeless && why.contains(&format!("image `{image}`")),
        "{why}"
    );
    assert!(why.contains("broke off"), "{why}");
    std::fs::write(&layer, &whole).unwrap();
    rig.driver.prepare(wanted, Box::new(drop)).await.unwrap();
}

/// The layer of the one image that was pushed.
fn largest_blob(registry: &Registry) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut open = vec![registry.blobs()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.file_name() == "data" {
                found.push(entry.path());
            }
        }
    }
    let size = |path: &std::path::PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
    found.into_iter().max_by_key(size).expect("a layer")
}
