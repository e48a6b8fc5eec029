//! `loomctl node drain`, `undrain`, `label` and `taint`.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::units::Millis;
use loom_schemas::wire::{
    DrainRequest, LabelRequest, NodeChanged, NodeRequest, NodeView, TaintRequest,
};

use super::nodes::node_view;
use crate::cli::Global;
use crate::client;
use crate::exit::Failure;
use crate::output;

/// How often the node is looked at while its runs leave.
const LOOK: Duration = Duration::from_millis(500);

/// Have the runs of a node leave it.
///
/// No new run goes there. Services move as their update says (start-first or stop-first, at most
/// `parallel` at once), what runs to completion is let run, runs of system jobs go last; past the
/// deadline whatever is left is stopped. Follows until the last run has left; Ctrl-C only stops
/// following.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl node drain n1 --reason \"new kernel\"
  loomctl node drain n1 --deadline 10m --detach")]
pub(crate) struct NodeDrain {
    /// The node
    node: Name,
    /// Runs that are left after so long are stopped [default: 1h]
    #[arg(long, value_name = "TIME")]
    deadline: Option<Millis>,
    /// Let runs take as long as they need
    #[arg(long, conflicts_with = "deadline")]
    no_deadline: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Do not wait for the runs to leave
    #[arg(short, long)]
    detach: bool,
}

/// Have a node take runs again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl node undrain n1")]
pub(crate) struct NodeUndrain {
    /// The node
    node: Name,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

/// Set labels of a node, or take them away.
///
/// They stand in place of those its agent was started with, and stay when that is started again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl node label n1 disk=ssd rack=7
  loomctl node label n1 rack-")]
pub(crate) struct NodeLabel {
    /// The node
    node: Name,
    /// K=V to set, K- to take away
    #[arg(required = true, value_name = "K=V")]
    labels: Vec<String>,
}

/// Set taints of a node, or take them away.
///
/// Only tasks that tolerate a taint are placed on a node with `no-schedule`; with `prefer-not`
/// others are where no other node has room; with `evict` those that are there leave as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl node taint n1 gpu:no-schedule
  loomctl node taint n1 disk=failing:evict --after 10m
  loomctl node taint n1 gpu-")]
pub(crate) struct NodeTaint {
    /// The node
    node: Name,
    /// KEY:EFFECT or KEY=VALUE:EFFECT to set, KEY- or KEY:EFFECT- to take away
    #[arg(required = true, value_name = "KEY=VALUE:EFFECT")]
    taints: Vec<String>,
    /// With `evict`: give runs so long to move before they are stopped [default: 0s]
    #[arg(long, value_name = "TIME")]
    after: Option<Millis>,
}

/// Those that end in `-`, where that may be meant so, without it, and the others.
fn parted(words: Vec<String>, may: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    let (mut removed, mut set) = (Vec::new(), Vec::new());
    for word in words {
        match word.strip_suffix('-').filter(|bare| may(bare)) {
            Some(bare) => removed.push(bare.to_owned()),
            None => set.push(word),
        }
    }
    (removed, set)
}

async fn order<Q: serde::Serialize>(
    bus: &loom_bus::Bus,
    verb: &str,
    request: &Q,
) -> Result<NodeChanged, Failure> {
    client::tell(bus, &subject::admin("node", verb), request).await
}

fn say(global: &Global, done: &NodeChanged, what: &str) -> Result<(), Failure> {
    let already = if done.changed { "" } else { " already" };
    output::one(
        global.output,
        done,
        |done| done.node.to_string(),
        |_| format!("{}{already} {what}\n", done.node),
    )
}

impl NodeDrain {
    /// Tells the leader, and follows.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let request = DrainRequest {
            node: self.node,
            deadline_ms: self.deadline.map(|deadline| deadline.0),
            no_deadline: self.no_deadline,
            reason: self.reason,
        };
        let done = order(&bus, "drain", &request).await?;
        if self.detach || !global.output.is_for_people() {
            return say(global, &done, "is being drained");
        }
        let mut said = String::new();
        loop {
            let view = node_view(&bus, done.node.clone()).await?;
            let Some(drain) = &view.summary.node.drain else {
                return output::text(&format!("{} takes runs again\n", done.node));
            };
            if drain.done_at.is_some() {
                return output::text(&format!("{} is drained\n", done.node));
            }
            let line = progress(&view, drain.runs);
            if line != said {
                output::note(&line);
                said = line;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How far a drain is, with why the first run that waits does.
fn progress(view: &NodeView, runs: u32) -> String {
    let left = view.summary.runs;
    let mut waiting = view.runs.iter().filter_map(|run| {
        let why = run.waiting.as_ref().filter(|why| !why.is_empty())?;
        Some(format!("; {} waits: {why}", run.slot))
    });
    let why = waiting.next().unwrap_or_default();
    format!(
        "{}: {left} of {} runs left{why}",
        view.summary.node.name,
        runs.max(left)
    )
}

impl NodeUndrain {
    /// Tells the leader.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let request = NodeRequest {
            node: self.node,
            reason: self.reason,
        };
        let done = order(&bus, "undrain", &request).await?;
        let what = if done.changed {
            "takes runs again"
        } else {
            "takes runs"
        };
        say(global, &done, what)
    }
}

impl NodeLabel {
    /// Tells the leader.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let (remove, pairs) = parted(self.labels, |word| !word.contains('='));
        let pair = |text: &String| {
            let parsed = crate::address::parse_pair(text);
            parsed.map_err(|error| Failure::usage(format!("`{text}`: {error}")))
        };
        let set: BTreeMap<String, String> = pairs.iter().map(pair).collect::<Result<_, _>>()?;
        let bus = global.bus.connect().await?;
        let request = LabelRequest {
            node: self.node,
            set,
            remove,
        };
        let done = order(&bus, "label", &request).await?;
        say(global, &done, "is labelled")
    }
}

impl NodeTaint {
    /// Tells the leader.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let (remove, set) = parted(self.taints, |_| true);
        let bus = global.bus.connect().await?;
        let request = TaintRequest {
            node: self.node,
            set,
            remove,
            after_ms: self.after.map(|after| after.0),
        };
        let done = order(&bus, "taint", &request).await?;
        say(global, &done, "is tainted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_ends_in_a_hyphen_is_taken_away() {
        let (removed, set) = parted(words(&["disk=ssd", "rack-", "odd=a-"]), |word| {
            !word.contains('=')
        });
        assert_eq!(
            (removed, set),
            (words(&["rack"]), words(&["disk=ssd", "odd=a-"]))
        );
        let (removed, set) = parted(words(&["gpu:evict", "gpu-", "a:evict-"]), |_| true);
        assert_eq!(
            (removed, set),
            (words(&["gpu", "a:evict"]), words(&["gpu:evict"]))
        );
    }
}
