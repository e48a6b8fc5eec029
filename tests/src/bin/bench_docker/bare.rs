//! Containers by bollard alone.

use std::collections::HashMap;
use std::time::Instant;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
};
use futures::StreamExt as _;
use loom_tests::docker::IMAGE;

use crate::{BARE, MANY, SCRIPT, ms};

/// bollard and nothing else.
pub(crate) struct Bare {
    pub(crate) docker: Docker,
    pub(crate) network: String,
}

impl Bare {
    pub(crate) fn new(network: &str) -> Self {
        let docker = Docker::connect_with_unix(
            "/var/run/docker.sock",
            120,
            &bollard::ClientVersion {
                major_version: 1,
                minor_version: 41,
            },
        );
        Self {
            docker: docker.expect("a client"),
            network: network.to_owned(),
        }
    }

    pub(crate) async fn create(&self, name: &str) {
        let words = ["sh", "-c", SCRIPT].map(str::to_owned).to_vec();
        let none = self.network == "none";
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            entrypoint: Some(words),
            labels: Some(HashMap::from([(BARE.to_owned(), String::new())])),
            network_disabled: none.then_some(true),
            host_config: Some(HostConfig {
                network_mode: (!none).then(|| self.network.clone()),
                memory: Some(32 << 20),
                memory_swap: Some(32 << 20),
                pids_limit: Some(64),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        let created = self.docker.create_container(Some(options), body).await;
        created.expect("created");
    }

    pub(crate) async fn start(&self, name: &str) {
        self.create(name).await;
        let started = self
            .docker
            .start_container(name, None::<StartContainerOptions>)
            .await;
        started.expect("started");
    }

    pub(crate) async fn remove(&self, name: &str) {
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        let removed = self.docker.remove_container(name, Some(options)).await;
        removed.expect("removed");
    }

    /// Kills one and starts another as soon as it is dead; the time of that.
    pub(crate) async fn back(&self) -> f64 {
        let [killed, next] = ["killed", "next"].map(|name| format!("{BARE}-{name}"));
        self.start(&killed).await;
        let begun = Instant::now();
        self.docker
            .kill_container(&killed, None)
            .await
            .expect("killed");
        self.start(&next).await;
        let took = ms(begun);
        self.remove(&killed).await;
        self.remove(&next).await;
        took
    }

    /// Starts many, so many at once; the time of all.
    pub(crate) async fn start_many(&self, at_once: usize) -> f64 {
        let begun = Instant::now();
        let starts = (0..MANY).map(|number| async move {
            self.start(&format!("{BARE}-{number}")).await;
        });
        futures::stream::iter(starts)
            .buffer_unordered(at_once)
            .collect::<Vec<()>>()
            .await;
        ms(begun)
    }

    pub(crate) async fn remove_many(&self, at_once: usize) -> f64 {
        let begun = Instant::now();
        let removals = (0..MANY).map(|number| async move {
            self.remove(&format!("{BARE}-{number}")).await;
        });
        futures::stream::iter(removals)
            .buffer_unordered(at_once)
            .collect::<Vec<()>>()
            .await;
        ms(begun)
    }

    /// Containers of a job that are there, running or not.
    pub(crate) async fn left(&self, job: &str) -> usize {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(
                "label".to_owned(),
                vec![format!("loom.job={job}")],
            )])),
            ..ListContainersOptions::default()
        };
        self.docker
            .list_containers(Some(options))
            .await
            .expect("a list")
            .len()
    }
}
