//! What clients ask.

use std::time::Instant;

use jiff::Timestamp;
use loom_bus::serve::Request;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::CommandOutcome;
use loom_schemas::wire::SubmitOutcome;
use uuid::Uuid;

use super::Leading;
use super::effect::{self, Answer};
use super::wish::{Asked, Wish, is_admin, not_yet};
use crate::decide::{self, Asker, Submission};
use crate::plan::{PlanOptions, preview};
use crate::state::Draft;

impl Leading {
    /// Decides about a wish; the answer waits for the commit.
    pub(super) fn asked(&mut self, wanted: Asked) {
        let Asked {
            request,
            wish,
            command,
        } = wanted;
        if let Some(error) = self.no_room() {
            return effect::refuse([request], &error);
        }
        if let Some(error) = self.cannot_yet(&wish) {
            return effect::refuse([request], &error);
        }
        let wish = match wish {
            Wish::Plan(submission) => return self.previewed(request, *submission),
            Wish::Rebalance(wanted) => return self.rebalanced(request, wanted, command),
            Wish::Relocate(found, wanted) => {
                return self.relocated(request, *found, &wanted, command);
            }
            wish => wish,
        };
        let user = request.caller.user.clone();
        let id = request.command_id().map(str::to_owned);
        self.decide_or_refuse(request, move |draft| {
            if let Some(command) = &command
                && let Some(first) = decide::repeated(draft.state(), command)?
            {
                return Ok(Answer::Done(first));
            }
            let asker = Asker {
                user: &user,
                admin: is_admin(&user),
                request: id.as_deref(),
            };
            let now = Timestamp::now();
            let outcome = grant(draft, wish, asker, now)?;
            if let Some(command) = &command {
                decide::remember(draft, command, &outcome, now);
            }
            Ok(Answer::Done(outcome))
        });
    }

    /// Says what a submission would do. It changes nothing, so it waits for no commit.
    fn previewed(&self, request: Box<Request>, submission: Submission) {
        let state = self.head.clone();
        let options = PlanOptions {
            strategy: self.context.options.strategy,
            lost_after: self.lost_after(),
            measured: self.context.hearts.cores(),
            ..PlanOptions::default()
        };
        let user = request.caller.user.clone();
        let find = move || {
            let asker = Asker {
                user: &user,
                admin: is_admin(&user),
                request: None,
            };
            let mut ids = || RunId(Uuid::now_v7());
            let now = Timestamp::now();
            preview(&state, submission, asker, &options, now, &mut ids)
        };
        tokio::spawn(async move {
            match tokio::task::spawn_blocking(find).await {
                Ok(Ok(plan)) => request.reply(&plan).await,
                Ok(Err(error)) => request.refuse(error).await,
                Err(error) => {
                    let message = format!("the plan was not made: {error}");
                    request
                        .refuse(WireError::new(ErrorCode::Internal, message))
                        .await;
                }
            }
        });
    }

    /// What stands against a wish now, apart from the state it is decided against.
    fn cannot_yet(&self, wish: &Wish) -> Option<WireError> {
        match wish {
            Wish::NodeLost(request) => self.is_alive(&request.node),
            _ if self.is_recovering() => {
                let awaited = match self.awaited().as_str() {
                    "" => String::new(),
                    awaited => format!(" (awaiting {awaited})"),
                };
                let message = format!(
                    "the state was restored and not every node has said hello yet{awaited}: see \
                     `loomctl node ls`, and `loomctl node lost` for those that are gone"
                );
                Some(WireError::unavailable(message))
            }
            _ => None,
        }
    }

    /// The runs of a node that lives would run twice if it were given up.
    fn is_alive(&self, node: &Name) -> Option<WireError> {
        let now = Instant::now();
        let alive = self.liveness.is_heard(node, now) && !self.head.awaits(node);
        alive.then(|| {
            let seconds = self.liveness.silence(node, now).as_secs();
            let message = format!(
                "node {node} was heard {seconds} s ago: stop its agent first, or its runs would \
                 run twice"
            );
            WireError::new(ErrorCode::Conflict, message)
        })
    }
}

/// Carries out a wish on a draft.
pub(super) fn grant(
    draft: &mut Draft,
    wish: Wish,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<CommandOutcome, WireError> {
    let committed = |job: Name, changed| CommandOutcome::Committed { job, changed };
    match wish {
        Wish::Submit(submission) => {
            let accepted = decide::submit(draft, *submission, asker, now)?;
            Ok(CommandOutcome::Submitted {
                job: accepted.job,
                version: accepted.version,
                outcome: accepted.outcome,
                rolled_back_to: None,
            })
        }
        Wish::Stop(request) => {
            let changed = decide::stop(draft, &request, asker, now)?;
            Ok(committed(request.address.job, changed))
        }
        Wish::Restart(request) => {
            let changed = decide::restart(draft, &request, asker, now)?;
            Ok(committed(request.address.job, changed))
        }
        Wish::Scale(request) => {
            let changed = decide::scale(draft, &request, asker, now)?;
            Ok(committed(request.job, changed))
        }
        Wish::Dispatch(request) => {
            let accepted = decide::dispatch(draft, &request, asker, now)?;
            Ok(CommandOutcome::Submitted {
                job: accepted.job,
                version: accepted.version,
                outcome: accepted.outcome,
                rolled_back_to: None,
            })
        }
        Wish::Rollback(request) => {
            let (version, to) = decide::rollback(draft, &request, asker, now)?;
            Ok(CommandOutcome::Submitted {
                job: request.job,
                version,
                outcome: SubmitOutcome::Updated,
                rolled_back_to: Some(to),
            })
        }
        Wish::Update(request) => {
            let changed = decide::steer(draft, &request, asker, now)?;
            Ok(committed(request.job, changed))
        }
        // Asked for apart; the queue takes no questions.
        Wish::Plan(_) => Err(not_yet("a plan by the queue")),
        wish => grant_of_node(draft, wish, asker, now),
    }
}

/// The same of a wish about a node.
fn grant_of_node(
    draft: &mut Draft,
    wish: Wish,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<CommandOutcome, WireError> {
    let (node, changed) = match wish {
        Wish::NodeLost(request) => {
            let reason = request.reason.as_deref();
            decide::check_reason(reason)?;
            let changed = decide::node_lost(draft, &request.node, asker.user, reason, now)?;
            (request.node, changed)
        }
        Wish::Drain(request) => {
            let changed = decide::drain(draft, &request, asker, now)?;
            (request.node, changed)
        }
        Wish::Undrain(request) => {
            let changed = decide::undrain(draft, &request, asker, now)?;
            (request.node, changed)
        }
        Wish::Label(request) => {
            let changed = decide::label(draft, &request, asker, now)?;
            (request.node, changed)
        }
        Wish::Taint(request) => {
            let changed = decide::taint(draft, &request, asker, now)?;
            (request.node, changed)
        }
        _ => return Err(not_yet("what is asked")),
    };
    Ok(CommandOutcome::Node { node, changed })
}
