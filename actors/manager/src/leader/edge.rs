//! The doors of a leader: open only while it leads, so that without one everybody knows at once.

use jiff::Timestamp;
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::subject;
use ractor::{ActorProcessingErr, ActorRef};

use super::wish::{Asked, JOB_VERBS, read_word};
use super::{Leading, ManagerMessage};
use crate::serve::discovery::Service;
use crate::serve::door::{Door, Next, Rest};

/// The largest job file, in bytes.
const JOB_MAX: usize = 4 * 1024 * 1024;

/// The largest call of a node, in bytes: its whole inventory.
const CALL_MAX: usize = 8 * 1024 * 1024;

impl Leading {
    /// Opens every door.
    pub(super) async fn open_doors(&mut self) -> Result<(), ActorProcessingErr> {
        let bus = self.context.control.clone();
        // A group of its own: in a shared one a member that hangs would swallow requests.
        let group = self.context.name().as_str().to_owned();
        let limits = &self.context.options.limits;
        let writes = ServeLimits {
            max_in_flight: limits.writes,
            max_payload: JOB_MAX,
            ..ServeLimits::default()
        };
        let calls = ServeLimits {
            max_in_flight: limits.nodes,
            max_payload: CALL_MAX,
            ..ServeLimits::default()
        };
        let rest = Rest::Refused;
        let mut endpoints = Vec::new();
        for verb in JOB_VERBS {
            let manager = self.myself.clone();
            let subject = subject::job(verb);
            let take = move |request| take_wish(&manager, request);
            let door = Door::serve(&bus, &subject, Some(&group), writes, rest, take).await?;
            endpoints.push((verb, door.tally()));
            self.doors.push(door);
        }
        let epoch = self.durable.position.epoch();
        let service = Service {
            id: format!("{group}-{}-{}", epoch.incarnation, epoch.sequence),
            group: group.clone(),
            started: Timestamp::now(),
            endpoints,
        };
        self.doors.extend(service.answer(&bus).await?);
        let manager = self.myself.clone();
        let take = move |request| take_word(&manager, request);
        let door = Door::serve(&bus, subject::CTL_ALL, Some(&group), calls, rest, take).await?;
        self.doors.push(door);
        let manager = self.myself.clone();
        let take = move |request| take_wish(&manager, request);
        let door = Door::serve(&bus, subject::ADMIN_ALL, Some(&group), writes, rest, take);
        self.doors.push(door.await?);
        Ok(())
    }
}

fn take_wish(manager: &ActorRef<ManagerMessage>, request: Request) -> Next {
    match Asked::read(request) {
        Ok(asked) => hand_on(manager, ManagerMessage::Asked(Box::new(asked))),
        Err(refused) => refuse(refused.0, refused.1),
    }
}

fn take_word(manager: &ActorRef<ManagerMessage>, request: Request) -> Next {
    match read_word(&request) {
        Ok((node, word)) => hand_on(manager, ManagerMessage::Said(Box::new(request), node, word)),
        Err(error) => refuse(request, error),
    }
}

/// What cannot be read is no question of who leads.
fn refuse(request: Request, error: loom_schemas::error::WireError) -> Next {
    tokio::spawn(request.refuse(error));
    Next::GoOn
}

fn hand_on(manager: &ActorRef<ManagerMessage>, message: ManagerMessage) -> Next {
    match manager.cast(message) {
        Ok(()) => Next::GoOn,
        Err(_) => Next::Close,
    }
}
