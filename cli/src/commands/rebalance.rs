//! `loomctl node rebalance`.

use std::fmt::Write;
use std::time::Duration;

use loom_schemas::subject;
use loom_schemas::wire::{RebalanceProgress, RebalanceRequest, RebalanceView};

use crate::cli::Global;
use crate::client;
use crate::exit::Failure;
use crate::output::{self, table};

/// How often it is looked at while runs are moved.
const LOOK: Duration = Duration::from_millis(500);

/// Move runs of services to nodes where they cost less.
///
/// A run is moved only where that lowers its cost by the margin, by `epvm` also that of all nodes together,
/// or off a node with a taint `prefer-not`; and as an update would replace it:
/// with start-first another runs there and counts before it ends; with stop-first no more than
/// `parallel` replicas of its task are down. What runs to completion, gangs, system jobs and jobs
/// that are being updated stay. Follows until the last one is moved; Ctrl-C only stops following.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl node rebalance --dry-run
  loomctl node rebalance --margin 25 --at-once 1
  loomctl node rebalance --stop")]
pub(crate) struct NodeRebalance {
    /// Only show what would be moved
    #[arg(long)]
    dry_run: bool,
    /// By how much a move lowers the cost at least: by `epvm` of what the run costs where it is, by
    /// the other strategies of a node [default: 10]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=90))]
    margin: Option<u8>,
    /// At most so many moves [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    most: Option<u32>,
    /// So many at once [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64),
          conflicts_with = "dry_run")]
    at_once: Option<u32>,
    /// Begin no further move; those that are begun are brought to their end
    #[arg(long, conflicts_with_all = ["dry_run", "margin", "most", "at_once"])]
    stop: bool,
    /// Do not wait for the runs to be moved
    #[arg(short, long, conflicts_with = "dry_run")]
    detach: bool,
}

impl NodeRebalance {
    /// Tells the leader, and follows.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let subject = subject::admin("node", "rebalance");
        let request = RebalanceRequest {
            dry_run: self.dry_run,
            stop: self.stop,
            margin_percent: self.margin,
            most: self.most,
            at_once: self.at_once,
        };
        let view: RebalanceView = client::tell(&bus, &subject, &request).await?;
        let name = |_: &RebalanceView| "rebalance".to_owned();
        output::one(global.output, &view, name, |_| shown(&view, &request))?;
        if self.detach || self.dry_run || !global.output.is_for_people() {
            return Ok(());
        }
        let mut said = String::new();
        let mut seen = view.last.filter(|it| it.done_at.is_none());
        let look = RebalanceRequest {
            dry_run: true,
            most: Some(0),
            ..RebalanceRequest::default()
        };
        while let Some(now) = &seen {
            if now.done_at.is_some() {
                return output::text(&done(now));
            }
            let line = progress(now);
            if line != said {
                output::note(&line);
                said = line;
            }
            tokio::time::sleep(LOOK).await;
            let view: RebalanceView = client::ask(&bus, &subject, &look).await?;
            seen = view.last;
        }
        Ok(())
    }
}

fn shown(view: &RebalanceView, request: &RebalanceRequest) -> String {
    if request.stop {
        return match view.last.as_ref().filter(|it| it.done_at.is_none()) {
            Some(left) => format!("no further move is begun; {}\n", progress(left)),
            None => "no move is under way\n".to_owned(),
        };
    }
    if let Some(moves) = view.repeated {
        return format!("{} begun already\n", counted(moves));
    }
    let mut text = String::new();
    let (movable, margin) = (view.movable, view.margin_percent);
    if movable == 0 {
        text.push_str("nothing to move: no run may be moved\n");
    } else if view.moves.is_empty() {
        let looked = view.looked;
        let _ = writeln!(
            text,
            "nothing to move: none of {looked} runs would cost {margin} % less elsewhere"
        );
    } else {
        text = listed(view);
    }
    if view.looked < movable {
        let looked = view.looked;
        let _ = writeln!(
            text,
            "looked at {looked} of {movable} runs, some of each node: ask again for others"
        );
    } else if view.more {
        text.push_str("there may be more: ask again when these are moved\n");
    }
    if !view.stay.is_empty() {
        let stay = view
            .stay
            .iter()
            .map(|(why, count)| format!("{count} {why}"));
        let stay: Vec<String> = stay.collect();
        let _ = writeln!(text, "not looked at: {}", stay.join(", "));
    }
    text
}

/// The moves, and what they come to.
fn listed(view: &RebalanceView) -> String {
    let (movable, margin) = (view.movable, view.margin_percent);
    let mut moves = table::new(&["Slot", "From", "To", "Cost", "There", "Strategy"]);
    for it in &view.moves {
        moves.add_row([
            it.slot.to_string(),
            it.from.to_string(),
            it.to.to_string(),
            table::score(it.here),
            table::score(it.there),
            it.strategy.to_string(),
        ]);
    }
    let mut text = table::render(moves);
    let avoid = view.moves.iter().filter(|it| it.avoids).count();
    let cost = view.moves.len() - avoid;
    let (before, after) = (
        table::score(view.cost_before),
        table::score(view.cost_after),
    );
    let mut lines = Vec::new();
    if cost > 0 {
        let verb = if cost == 1 { "costs" } else { "cost" };
        lines.push(format!(
            "{cost} of {movable} runs {verb} at least {margin} % less elsewhere"
        ));
    }
    if avoid > 0 {
        let verb = if avoid == 1 { "leaves" } else { "leave" };
        lines.push(format!(
            "{avoid} of {movable} runs {verb} nodes that are to be avoided (prefer-not)"
        ));
    }
    lines.push(format!("all nodes cost {before} now and {after} then"));
    let _ = writeln!(text, "{}", lines.join("; "));
    text
}

/// So many moves were.
fn counted(moves: u32) -> String {
    match moves {
        1 => "1 move was".to_owned(),
        moves => format!("{moves} moves were"),
    }
}

fn done(it: &RebalanceProgress) -> String {
    match it.dropped {
        0 => format!("{}\n", runs_moved(it.moved)),
        not => format!("{}, {not} not\n", runs_moved(it.moved)),
    }
}

fn runs_moved(count: u32) -> String {
    match count {
        1 => "1 run was moved".to_owned(),
        count => format!("{count} runs were moved"),
    }
}

fn progress(it: &RebalanceProgress) -> String {
    let mut line = format!("{} moved", it.moved);
    let under_way = it.under_way.len();
    let _ = write!(line, ", {under_way} under way, {} to come", it.pending);
    if it.dropped > 0 {
        let _ = write!(line, ", {} not moved", it.dropped);
    }
    if let Some(first) = it.under_way.first() {
        let _ = write!(
            line,
            "; {} goes from {} to {}",
            first.slot, first.from, first.to
        );
    }
    line
}
