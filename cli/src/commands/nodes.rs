//! `loomctl node ls`, `node status` and `node lost`.

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{Gpu, NodeRecord, NodeStatus};
use loom_schemas::subject;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{
    NodeChanged, NodeGet, NodeList, NodeListQuery, NodeRequest, NodeSummary, NodeView,
};
use loom_schemas::words::TaintEffect;

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
pub(super) async fn node_view(bus: &loom_bus::Bus, node: Name) -> Result<NodeView, Failure> {
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
        NodeStatus::Up => match &view.node.drain {
            Some(drain) if drain.done_at.is_some() => "drained",
            Some(_) => "draining",
            None => "up",
        },
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
        heads.extend([
            "gpus",
            "address",
            "arch",
            "os",
            "version",
            "datacenter",
            "labels",
            "taints",
        ]);
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
            let labels = view.node.merged_labels();
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let taints: Vec<String> = view.node.taints.iter().map(ToString::to_string).collect();
            let gpus = &info.capacity.gpus;
            let gpus = match gpus.len() {
                0 => "-".to_owned(),
                all => format!("{}/{all}", view.reserved_gpus),
            };
            cells.extend([
                gpus,
                info.address.clone(),
                info.arch.clone(),
                info.os.clone(),
                info.agent.clone(),
                info.datacenter.clone().unwrap_or_default(),
                labels.join(","),
                taints.join(","),
            ]);
        }
        table.add_row(cells);
    }
    table::render(table)
}

/// What else there is to know of a node, and what people said of it.
fn told(text: &mut String, view: &NodeSummary, now: Timestamp) {
    let node = &view.node;
    for (key, value) in &node.info.attributes {
        table::field(text, "Attribute", &format!("{key}={value}"));
    }
    for directory in &node.info.log_dirs {
        table::field(text, "Output to", directory);
    }
    for (key, value) in node.merged_labels() {
        let agents = node.info.labels.get(&key);
        let from = match (node.labels.contains_key(&key), agents) {
            (true, Some(agents)) => format!(" (in place of the agent's {agents})"),
            _ => String::new(),
        };
        table::field(text, "Label", &format!("{key}={value}{from}"));
    }
    for taint in &node.taints {
        let since = time::age(Some(taint.at), now);
        let after = match (taint.effect, taint.after.is_zero()) {
            (TaintEffect::Evict, false) => format!(", stops runs after {}", taint.after),
            _ => String::new(),
        };
        let line = format!("{taint} by {} for {since}{after}", taint.by);
        table::field(text, "Taint", &line);
    }
    let Some(drain) = &node.drain else { return };
    let since = time::age(Some(drain.at), now);
    let left = view.runs;
    let stands = match (drain.done_at, drain.deadline) {
        (Some(_), _) => "done".to_owned(),
        (None, None) => format!("{left} of {} runs left", drain.runs.max(left)),
        (None, Some(deadline)) => format!(
            "{left} of {} runs left, stopped at {:.0}",
            drain.runs.max(left),
            deadline
        ),
    };
    let line = format!("{stands}; by {}, {since} ago", drain.by_whom());
    table::field(text, "Drain", &line);
}

/// Since when a node has the status that is shown of it.
fn status_since(node: &NodeRecord) -> Timestamp {
    match (&node.drain, node.status) {
        (Some(drain), NodeStatus::Up) => drain.done_at.unwrap_or(drain.at),
        _ => node.since,
    }
}

/// What a node has for its runs, and what is taken and used of it.
fn gives(text: &mut String, view: &NodeSummary, now: Timestamp) {
    let capacity = &view.node.info.capacity;
    let (cpu, memory) = reserved(view);
    table::field(text, "Cpu", &format!("{cpu} cores reserved"));
    table::field(text, "Memory", &format!("{memory} reserved"));
    let disk = format!("{}/{}", Bytes(view.reserved_disk), capacity.disk);
    table::field(text, "Disk", &format!("{disk} reserved"));
    if let Some(rate) = capacity.disk_rate {
        let line = format!("{}/s of {rate}/s reserved", Bytes(view.reserved_disk_rate));
        table::field(text, "Disk rate", &line);
    }
    if let Some(pids) = capacity.pids {
        let line = format!("{}/{pids} reserved", view.reserved_pids);
        table::field(text, "Pids", &line);
    }
    let ports = format!("{}-{}", capacity.ports_from, capacity.ports_to);
    table::field(text, "Ports", &ports);
    if !capacity.gpus.is_empty() {
        let counts = Gpu::counts(&capacity.gpus);
        let taken = view.reserved_gpus;
        table::field(text, "Gpus", &format!("{counts}; {taken} reserved"));
    }
    if let Some(heartbeat) = &view.heartbeat {
        let usage = heartbeat.usage;
        let line = format!(
            "{} cores, {} memory, {} ago",
            MilliCores(usage.cpu_millis),
            Bytes(usage.memory),
            time::age(Some(heartbeat.at), now)
        );
        table::field(text, "In use", &line);
    }
}

fn detail(whole: &NodeView, now: Timestamp) -> String {
    let view = &whole.summary;
    let info = &view.node.info;
    let mut text = String::new();
    table::field(&mut text, "Node", view.node.name.as_str());
    let since = time::age(Some(status_since(&view.node)), now);
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
    told(&mut text, view, now);
    gives(&mut text, view, now);
    if whole.runs.is_empty() {
        return text;
    }
    let waits = whole.runs.iter().any(|run| run.waiting.is_some());
    let mut heads = vec!["task", "state", "run", "age"];
    heads.extend(waits.then_some("waits"));
    let mut table = table::new(&heads);
    for run in &whole.runs {
        let mut cells = vec![
            run.slot.to_string(),
            table::run_state(run.run.state, run.run.marks.paused, run.run.marks.unknown),
            run.run.run.short(),
            time::age(run.run.started_at, now),
        ];
        cells.extend(waits.then(|| run.waiting.clone().unwrap_or_default()));
        table.add_row(cells);
    }
    text.push('\n');
    text + &table::render(table)
}
