//! Images: there already, or pulled.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt as _;
use loom_schemas::spec::image::ImageName;
use loom_schemas::spec::{ImageSpec, Pull};

use super::credentials::{self, Trouble};
use super::engine::Engine;
use super::trouble;
use crate::driver::{DriverError, Tell};

/// How often it is said how far a pull is: each time is a commit of the cluster's log.
const SAY: Duration = Duration::from_secs(5);

/// What progress is told in, in bytes.
const MIB: u64 = 1 << 20;

/// A pull that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_mins(5);

/// Gets the image by its pull policy; returns which one it is: by digest, else by the engine's id.
pub(super) async fn get(
    engine: &Engine,
    image: &ImageSpec,
    tell: &Tell,
) -> Result<String, DriverError> {
    let docker = engine.docker().await?;
    let name = ImageName::parse(&image.name).map_err(|(what, help)| {
        DriverError::Rejected(format!("image `{}`: {what}: {help}", image.name))
    })?;
    if image.pull != Pull::Always
        && let Some(found) = find(engine, &docker, &image.name).await?
    {
        return Ok(identity(&name, &found));
    }
    if image.pull == Pull::Never {
        return Err(DriverError::Rejected(format!(
            "image `{}` is not on this node, and `pull: never` says not to get it: load it there, or \
             leave out `pull`",
            image.name
        )));
    }
    pull(engine, &docker, &image.name, &name, tell).await?;
    match find(engine, &docker, &image.name).await? {
        Some(found) => Ok(identity(&name, &found)),
        None => Err(DriverError::Unavailable(format!(
            "image `{}`: it was pulled and is gone: is the node's disk being cleaned?",
            image.name
        ))),
    }
}

/// The image, if the node has it.
pub(super) async fn find(
    engine: &Engine,
    docker: &Docker,
    image: &str,
) -> Result<Option<ImageInspect>, DriverError> {
    match docker.inspect_image(image).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if trouble::is_missing(&error) => Ok(None),
        Err(error) => Err(engine.failed(&format!("look for image `{image}`"), &error)),
    }
}

/// What tells an image from others of its name.
pub(super) fn identity(name: &ImageName<'_>, found: &ImageInspect) -> String {
    let own = format!("{name}@");
    let library = format!("library/{name}@");
    let digests = found.repo_digests.iter().flatten();
    let digest = digests
        .filter(|digest| digest.starts_with(&own) || digest.starts_with(&library))
        .min();
    let id = || found.id.clone().unwrap_or_default();
    digest.cloned().unwrap_or_else(id)
}

async fn pull(
    engine: &Engine,
    docker: &Docker,
    image: &str,
    name: &ImageName<'_>,
    tell: &Tell,
) -> Result<(), DriverError> {
    tell(format!("pulling image `{image}`"));
    let credentials = credentials::of(name).await.map_err(|trouble| {
        let registry = name.registry();
        let said = |why| {
            format!("image `{image}`: the credentials of registry {registry} cannot be read: {why}")
        };
        match trouble {
            Trouble::Configuration(why) => DriverError::Rejected(said(why)),
            Trouble::Helper(why) => DriverError::Unavailable(said(why)),
        }
    })?;
    let options = CreateImageOptions {
        from_image: Some(name.to_string()),
        tag: Some(name.reference().to_owned()),
        ..CreateImageOptions::default()
    };
    let mut events = docker.create_image(Some(options), None, credentials);
    let mut progress = Progress::default();
    let failed = |error: &Error| trouble::of_pull(engine.socket(), image, name, error);
    loop {
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(event)) => event.map_err(|error| failed(&error))?,
            Ok(None) => return Ok(()),
            Err(_) => {
                return Err(DriverError::Unavailable(format!(
                    "image `{image}`: the pull from registry {} stands still: given up after \
                     {SILENCE:?}",
                    name.registry()
                )));
            }
        };
        if let Some(detail) = &event.error_detail {
            let error = detail.message.clone().unwrap_or_default();
            return Err(failed(&Error::DockerStreamError { error }));
        }
        if let Some(doing) = progress.take(&event, Instant::now()) {
            tell(format!("pulling image `{image}`: {doing}"));
        }
    }
}

/// How far a pull is, over its layers.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that are here, and bytes in all, by layer.
    layers: HashMap<String, (u64, u64)>,
    said: Option<Instant>,
}

impl Progress {
    /// Takes an event; what is to be said now, if anything.
    fn take(&mut self, event: &CreateImageInfo, now: Instant) -> Option<String> {
        let (id, detail) = (event.id.as_ref()?, event.progress_detail.as_ref()?);
        if event.status.as_deref() != Some("Downloading") {
            return None;
        }
        let size = |size: Option<i64>| u64::try_from(size.unwrap_or(0)).unwrap_or(0);
        let layer = (size(detail.current), size(detail.total));
        self.layers.insert(id.clone(), layer);
        // Of a pull that is over at once nothing is said.
        let said = *self.said.get_or_insert(now);
        if now.saturating_duration_since(said) < SAY {
            return None;
        }
        self.said = Some(now);
        let here: u64 = self.layers.values().map(|layer| layer.0).sum();
        let all: u64 = self.layers.values().map(|layer| layer.1).sum();
        Some(format!("{} of {} MiB", here / MIB, all.div_ceil(MIB)))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn an_image_is_known_by_the_digest_of_its_own_repository() {
        let name = ImageName::parse("r.example/web:1").unwrap();
        let mut found = ImageInspect {
            id: Some("sha256:1".into()),
            ..ImageInspect::default()
        };
        assert_eq!(identity(&name, &found), "sha256:1");
        found.repo_digests = Some(vec![
            "other.example/web@sha256:2".into(),
            "r.example/web@sha256:3".into(),
        ]);
        assert_eq!(identity(&name, &found), "r.example/web@sha256:3");
    }

    #[test]
    fn progress_is_said_now_and_then_over_all_layers() {
        let mut progress = Progress::default();
        let begun = Instant::now();
        let event = |id: &str, current: i64| CreateImageInfo {
            id: Some(id.into()),
            status: Some("Downloading".into()),
            progress_detail: Some(ProgressDetail {
                current: Some(current << 20),
                total: Some(10 << 20),
            }),
            ..CreateImageInfo::default()
        };
        assert_eq!(progress.take(&event("a", 1), begun), None);
        assert_eq!(progress.take(&event("b", 2), begun), None);
        let later = begun + SAY;
        let said = progress.take(&event("a", 4), later);
        assert_eq!(said.as_deref(), Some("6 of 20 MiB"));
        assert_eq!(progress.take(&event("a", 5), later), None);
    }
}
