//! What clients ask.

use jiff::Timestamp;
use loom_bus::serve::Request;
use loom_schemas::error::WireError;
use loom_schemas::ids::Name;

use super::Leading;
use super::effect::{self, Answer};
use super::wish::{Wish, is_admin};
use crate::decide::{self, Asker};
use crate::state::Draft;

impl Leading {
    /// Decides about a job; the answer waits for the commit.
    pub(super) fn asked(&mut self, request: Box<Request>, wish: Wish) {
        if self.is_full() {
            let error = WireError::unavailable("the log has no room, nothing is taken in");
            return effect::refuse([request], &error);
        }
        if self.is_recovering() {
            let message = "the state was restored and not every node has said hello yet";
            return effect::refuse([request], &WireError::unavailable(message));
        }
        let user = request.caller.user.clone();
        let command = request.command_id().map(str::to_owned);
        self.decide_or_refuse(request, move |draft| {
            let asker = Asker {
                user: &user,
                admin: is_admin(&user),
                request: command.as_deref(),
            };
            grant(draft, wish, asker)
        });
    }
}

/// Carries out a wish on a draft.
pub(super) fn grant(draft: &mut Draft, wish: Wish, asker: Asker<'_>) -> Result<Answer, WireError> {
    let now = Timestamp::now();
    let committed = |job: &Name, changed| Answer::Committed {
        job: job.clone(),
        changed,
    };
    match wish {
        Wish::Submit(submission) => {
            decide::submit(draft, *submission, asker, now).map(|accepted| Answer::Submitted {
                job: accepted.job,
                version: accepted.version,
                outcome: accepted.outcome,
            })
        }
        Wish::Stop(request) => {
            let changed = decide::stop(draft, &request, asker)?;
            Ok(committed(&request.address.job, changed))
        }
        Wish::Restart(request) => {
            let changed = decide::restart(draft, &request, asker, now)?;
            Ok(committed(&request.address.job, changed))
        }
        Wish::Scale(request) => {
            let changed = decide::scale(draft, &request, asker, now)?;
            Ok(committed(&request.job, changed))
        }
    }
}
