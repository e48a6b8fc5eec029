//! What is asked of a rebalance: to look for moves, to carry them out, to stop.
//!
//! Looking for moves compares many runs on all nodes, so it is done off the manager's path, on the
//! state as it was; each move is looked at again before it is begun.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use loom_bus::serve::Request;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::record::CommandOutcome;
use loom_schemas::wire::{RebalanceRequest, RebalanceView};

use super::Leading;
use super::effect::{self, Answer};
use super::message::ManagerMessage;
use super::wish::{Asked, Wish};
use crate::decide::{self, Command};
use crate::plan::{self, Found, Search};

/// By how many percent a move has to lower the cost where nobody says.
const MARGIN: u8 = 10;
const MARGINS: RangeInclusive<u32> = 1..=90;

/// How many moves are looked for where nobody says, and at most: they are kept in one record.
const MOST: u32 = 100;
const MOST_MAX: u32 = 500;

/// How many runs are moved at once where nobody says, and at most.
const AT_ONCE: u32 = 4;
const AT_ONCE_RANGE: RangeInclusive<u32> = 1..=64;

impl Leading {
    /// Looks for moves; then has them carried out, unless only that was asked.
    pub(super) fn rebalanced(
        &mut self,
        request: Box<Request>,
        wanted: RebalanceRequest,
        command: Option<Command>,
    ) {
        if let Err(error) = check(&wanted) {
            return effect::refuse([request], &error);
        }
        let command = command.filter(|_| !wanted.dry_run);
        // Nothing is looked for that was asked before: it only has to be said what came of it.
        let first = command.as_ref();
        let first = first.map(|command| decide::repeated(&self.head, command));
        let is_new = matches!(first, None | Some(Ok(None)));
        if wanted.stop || !is_new {
            return self.relocated(request, Found::default(), &wanted, command);
        }
        let state = self.head.clone();
        let search = Search {
            strategy: self.context.options.strategy,
            margin_percent: wanted.margin_percent.unwrap_or(MARGIN),
            most: wanted.most.unwrap_or(MOST) as usize,
            looks: plan::LOOKS,
            now: Timestamp::now(),
        };
        let manager = self.myself.clone();
        let searches = self.searches.clone();
        let find = move || {
            let mut found = match search.most {
                0 => Found::default(),
                _ => plan::find(&state, &search),
            };
            found.view.last = plan::progress(&state);
            found
        };
        tokio::spawn(async move {
            let turn = match search.most {
                0 => None,
                _ => searches.acquire().await.ok(),
            };
            let found = tokio::task::spawn_blocking(find).await;
            drop(turn);
            match found {
                Ok(found) if wanted.dry_run => request.reply(&found.view).await,
                Ok(found) => {
                    let asked = Asked {
                        request,
                        wish: Wish::Relocate(Box::new(found), wanted),
                        command,
                    };
                    // Where it has ended meanwhile, whoever asks is refused as the request is dropped.
                    drop(manager.cast(ManagerMessage::Asked(Box::new(asked))));
                }
                Err(error) => {
                    let message = format!("no moves were looked for: {error}");
                    let error = WireError::new(ErrorCode::Internal, message);
                    request.refuse(error).await;
                }
            }
        });
    }

    /// Has moves that were found be carried out, or no more of them.
    pub(super) fn relocated(
        &mut self,
        request: Box<Request>,
        found: Found,
        wanted: &RebalanceRequest,
        command: Option<Command>,
    ) {
        let user = request.caller.user.clone();
        let (stop, at_once) = (wanted.stop, wanted.at_once.unwrap_or(AT_ONCE));
        self.decide_or_refuse(request, move |draft| {
            let now = Timestamp::now();
            let first = command.as_ref();
            let first = first.map(|command| decide::repeated(draft.state(), command));
            if let Some(CommandOutcome::Rebalanced { moves }) = first.transpose()?.flatten() {
                let view = RebalanceView {
                    repeated: Some(moves),
                    last: plan::progress(draft.state()),
                    ..RebalanceView::default()
                };
                return Ok(Answer::Rebalance(Box::new(view)));
            }
            let moves = if stop {
                plan::stop(draft, &user, now);
                0
            } else {
                plan::begin(draft, found.moves, at_once, &user, now)
            };
            if let Some(command) = &command {
                let moves = u32::try_from(moves).unwrap_or(u32::MAX);
                decide::remember(draft, command, &CommandOutcome::Rebalanced { moves }, now);
            }
            let last = plan::progress(draft.state());
            let view = RebalanceView { last, ..found.view };
            Ok(Answer::Rebalance(Box::new(view)))
        });
    }
}

fn check(wanted: &RebalanceRequest) -> Result<(), WireError> {
    let margin = wanted.margin_percent.map(u32::from);
    let fields = [
        ("margin_percent", margin, MARGINS),
        ("most", wanted.most, 0..=MOST_MAX),
        ("at_once", wanted.at_once, AT_ONCE_RANGE),
    ];
    for (field, value, range) in fields {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (least, most) = (range.start(), range.end());
            let message = format!("{field}: expected {least} to {most}, found {value}");
            return Err(WireError::invalid(message));
        }
    }
    Ok(())
}
