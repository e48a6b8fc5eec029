//! `loomctl node ls`, `node status` and `node lost`.

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::NodeStatus;
use loom_schemas::subject;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{
    NodeChanged, NodeGet, NodeList, NodeListQuery, NodeRequest, NodeSummary, NodeView,
};

use crate::cli::Global;
use crate::client;
use crate::exit::Failure;
use crate::output::{self, table, time};

/// List the nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl node ls -o wide")]
pub(crate) struct NodeLs {}

/// Show one node.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl node status node-1")]
pub(crate) struct NodeStatusVerb {
    /// The node
    node: Name,
}

/// Say that a node is not coming back as it was.
///
/// Its runs count as lost and are placed elsewhere, and a cluster that recovers from a rewound log
/// waits for it no longer. A node that is heard is not given up: stop its agent first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl node lost n3 --reason \"its disk is gone\"")]
pub(crate) struct NodeLost {
    /// The node
    node: Name,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl NodeLost {
    /// Tells the leader.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let request = NodeRequest {
            node: self.node,
            reason: self.reason,
        };
        let subject = subject::admin("node", "lost");
        let done: NodeChanged = client::tell(&bus, &subject, &request).await?;
        let already = if done.changed { "" } else { " already" };
        output::text(&format!("{} is{already} given up\n", done.node))
    }
}

impl NodeLs {
    /// Asks a manager.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        let bus = global.bus.connect().await?;
        let list = node_list(&bus).await?;
        output::list(
            global.output,
            &list.nodes,
            |view| view.node.name.to_string(),
            |wide| rows(&list.nodes, wide),
        )
    }
}

impl NodeStatusVerb {
    /// Asks a manager.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let view = node_view(&bus, self.node).await?;
        output::one(
            global.output,
            &view,
            |view| view.summary.node.name.to_string(),
            |_| detail(&view, Timestamp::now()),
        )
    }
}

/// All nodes, page by page.
pub(crate) async fn node_list(bus: &loom_bus::Bus) -> Result<NodeList, Failure> {
    let subject = subject::api("node", "list");
    let mut list: NodeList = client::ask(bus, &subject, &NodeListQuery::default()).await?;
    while let Some(next) = list.next.take() {
        let query = NodeListQuery { after: Some(next) };
        let page: NodeList = client::ask(bus, &subject, &query).await?;
        list.nodes.extend(page.nodes);
        list.next = page.next;
    }
    Ok(list)
}

/// One node with all its runs, page by page.
async fn node_view(bus: &loom_bus::Bus, node: Name) -> Result<NodeView, Failure> {
    let subject = subject::api("node", "get");
    let mut get = NodeGet { node, after: None };
    let mut view: NodeView = client::ask(bus, &subject, &get).await?;
    while let Some(next) = view.next.take() {
        get.after = Some(next);
        let page: NodeView = client::ask(bus, &subject, &get).await?;
        view.runs.extend(page.runs);
        view.next = page.next;
    }
    Ok(view)
}

fn status(view: &NodeSummary) -> &'static str {
    match view.node.status {
        NodeStatus::Down if view.node.lost => "lost",
        NodeStatus::Up => "up",
        NodeStatus::Down => "down",
        NodeStatus::Unknown => "unknown",
    }
}

fn reserved(view: &NodeSummary) -> (String, String) {
    let capacity = &view.node.info.capacity;
    (
        format!("{}/{}", MilliCores(view.reserved_cpu_millis), capacity.cpu),
        format!("{}/{}", Bytes(view.reserved_memory), capacity.memory),
    )
}

fn drivers(view: &NodeSummary) -> String {
    let drivers: Vec<&str> = view
        .node
        .info
        .drivers
        .iter()
        .map(|driver| driver.as_str())
        .collect();
    drivers.join(",")
}

fn rows(nodes: &[NodeSummary], wide: bool) -> String {
    let mut heads = vec!["node", "status", "runs", "cpu", "memory", "drivers"];
    if wide {
        heads.extend(["address", "arch", "os", "version", "datacenter", "labels"]);
    }
    let mut table = table::new(&heads);
    for view in nodes {
        let (cpu, memory) = reserved(view);
        let info = &view.node.info;
        let mut cells = vec![
            view.node.name.to_string(),
            status(view).to_owned(),
            view.runs.to_string(),
            cpu,
            memory,
            drivers(view),
        ];
        if wide {
            let labels: Vec<String> = info
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            cells.extend([
                info.address.clone(),
                info.arch.clone(),
                info.os.clone(),
                info.agent.clone(),
                info.datacenter.clone().unwrap_or_default(),
                labels.join(","),
            ]);
        }
        table.add_row(cells);
    }
    table::render(table)
}

fn detail(whole: &NodeView, now: Timestamp) -> String {
    let view = &whole.summary;
    let info = &view.node.info;
    let (cpu, memory) = reserved(view);
    let mut text = String::new();
    let since = time::age(Some(view.node.since), now);
    table::field(&mut text, "Node", view.node.name.as_str());
    table::field(
        &mut text,
        "Status",
        &format!("{} for {since}", status(view)),
    );
    table::field(
        &mut text,
        "Reason",
        view.node.reason.as_deref().unwrap_or_default(),
    );
    table::field(
        &mut text,
        "Host",
        &format!("{} ({})", info.hostname, info.address),
    );
    table::field(
        &mut text,
        "System",
        &format!("{}, kernel {}, {}", info.os, info.kernel, info.arch),
    );
    table::field(&mut text, "Agent", &info.agent);
    table::field(&mut text, "Drivers", &drivers(view));
    table::field(
        &mut text,
        "Datacenter",
        info.datacenter.as_deref().unwrap_or_default(),
    );
    for (key, value) in &info.labels {
        table::field(&mut text, "Label", &format!("{key}={value}"));
    }
    table::field(&mut text, "Cpu", &format!("{cpu} cores reserved"));
    table::field(&mut text, "Memory", &format!("{memory} reserved"));
    let ports = format!("{}-{}", info.capacity.ports_from, info.capacity.ports_to);
    table::field(&mut text, "Ports", &ports);
    if let Some(heartbeat) = &view.heartbeat {
        let usage = heartbeat.usage;
        let line = format!(
            "{} cores, {} memory, {} ago",
            MilliCores(usage.cpu_millis),
            Bytes(usage.memory),
            time::age(Some(heartbeat.at), now)
        );
        table::field(&mut text, "In use", &line);
    }
    if whole.runs.is_empty() {
        return text;
    }
    let mut table = table::new(&["task", "state", "run", "age"]);
    for run in &whole.runs {
        table.add_row([
            run.slot.to_string(),
            table::run_state(run.run.state, run.run.marks.paused, run.run.marks.unknown),
            run.run.run.short(),
            time::age(run.run.started_at, now),
        ]);
    }
    text.push('\n');
    text + &table::render(table)
}
