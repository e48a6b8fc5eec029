//! What the engine tells of containers as it happens: with which code one died, well before the
//! engine is through with it and answers that, and who had it killed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, Weak};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::create::RUN;
use super::engine::{Engine, LOOK, LOOK_MAX};

/// What was told of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// The signal that the engine last sent to it, because somebody asked it to.
    pub(super) killed: Option<i32>,
    /// Its exit code, and when it died.
    pub(super) died: Option<(i32, Timestamp)>,
}

/// Who wants to be told, by the engine's id of the container.
#[derive(Default)]
pub(super) struct Fates(Mutex<HashMap<String, watch::Sender<Fate>>>);

impl Fates {
    /// Hears of a container from now on, as long as the receiver lives.
    pub(super) fn of(&self, container: &str) -> watch::Receiver<Fate> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, fate| fate.receiver_count() > 0);
        let fate = all.entry(container.to_owned()).or_default();
        // What was told of an earlier life is not of this one.
        fate.send_replace(Fate::default());
        fate.subscribe()
    }

    fn take(&self, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fate) = actor.id.as_ref().and_then(|id| all.get(id)) else {
            return;
        };
        let attribute = |name: &str| {
            let attributes = actor.attributes.as_ref()?;
            attributes.get(name)?.parse::<i32>().ok()
        };
        match event.action.as_deref() {
            Some("kill") => fate.send_modify(|fate| fate.killed = attribute("signal")),
            Some("die") => {
                let at = event.time_nano.map(i128::from);
                let at = at.and_then(|at| Timestamp::from_nanosecond(at).ok());
                let died = attribute("exitCode");
                let died = died.map(|code| (code, at.unwrap_or_else(Timestamp::now)));
                fate.send_modify(|fate| fate.died = died);
            }
            _ => {}
        }
    }
}

/// Listens until nobody uses the engine any more. What is missed while it is away, or before the
/// first event can come, is asked for as it always can be.
pub(super) async fn listen(engine: Weak<Engine>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let options = EventsOptions {
        filters: Some(HashMap::from([
            ("type".to_owned(), words(&["container"])),
            ("event".to_owned(), words(&["kill", "die"])),
            ("label".to_owned(), words(&[RUN])),
        ])),
        ..EventsOptions::default()
    };
    let mut pause = LOOK;
    loop {
        let Some(known) = engine.upgrade() else {
            return;
        };
        let mut in_use = known.in_use();
        let mut finds = known.finds();
        let docker = known.docker().await;
        drop(known);
        if let Ok(docker) = docker {
            let mut events = Box::pin(docker.events(Some(options.clone())));
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    used = in_use.changed() => {
                        if used.is_err() {
                            return;
                        }
                        continue;
                    }
                };
                let (Some(Ok(event)), Some(known)) = (event, engine.upgrade()) else {
                    break;
                };
                known.fates.take(&event);
                pause = LOOK;
            }
        }
        tokio::select! {
            found = finds.changed() => {
                if found.is_err() {
                    return;
                }
                pause = LOOK;
            }
            () = sleep(pause) => pause = (pause * 2).min(LOOK_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(container: &str, action: &str, attribute: (&str, &str)) -> EventMessage {
        let (name, value) = attribute;
        EventMessage {
            action: Some(action.into()),
            actor: Some(EventActor {
                id: Some(container.into()),
                attributes: Some(HashMap::from([(name.into(), value.into())])),
            }),
            time_nano: Some(1_767_323_045_000_000_000),
            ..EventMessage::default()
        }
    }

    #[test]
    fn the_fate_of_a_container_is_told_to_whoever_follows_it() {
        let fates = Fates::default();
        let (one, other) = (fates.of("one"), fates.of("other"));
        fates.take(&event("one", "kill", ("signal", "9")));
        fates.take(&event("one", "die", ("exitCode", "137")));
        fates.take(&event("nobody", "die", ("exitCode", "0")));
        let fate = one.borrow().clone();
        assert_eq!(fate.killed, Some(9));
        assert_eq!(fate.died.map(|(code, _)| code), Some(137));
        assert_eq!(fate.died.unwrap().1.as_second(), 1_767_323_045);
        assert_eq!(*other.borrow(), Fate::default());
        // What nobody follows any longer is forgotten.
        drop(one);
        let _third = fates.of("third");
        assert_eq!(fates.0.lock().unwrap().len(), 2);
        fates.take(&event("other", "die", ("exitCode", "no number")));
        assert_eq!(other.borrow().died, None);
    }
}
