//! The job file as people write it. The documentation of each field is also its description in the
//! JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::depend::{AfterFile, DependsOnFile};
use super::field::{Cores, Entries, Field, Form, Rate, Scalar, Size, Span, Text, Whole};
use super::placement::{AffinityFile, SpreadFile, TolerationFile};
use super::resources::IndexFile;
use super::schedule::ScheduleFile;
use super::update::UpdateFile;
use super::vars::VarFile;
use super::{Network, Protocol, Pull, RestartOn};
use crate::ids::Name;
use crate::words::{Kind, Strategy};

/// The fields of a job beside those of its only task.
pub(crate) const JOB_FIELDS: [&str; 12] = [
    "name",
    "owner",
    "kind",
    "priority",
    "datacenters",
    "strategy",
    "schedule",
    "depends_on",
    "vars",
    "update",
    "labels",
    "tasks",
];

/// The fields of a task.
pub(crate) const TASK_FIELDS: [&str; 36] = [
    "image",
    "bash",
    "python",
    "go",
    "exec",
    "job",
    "command",
    "args",
    "replicas",
    "per_index",
    "gang",
    "env",
    "params",
    "result",
    "workdir",
    "user",
    "network",
    "cpu",
    "cpu_limit",
    "memory",
    "disk",
    "disk_rate",
    "pids",
    "gpus",
    "ports",
    "constraints",
    "affinities",
    "spread",
    "tolerations",
    "restart",
    "stop",
    "timeout",
    "after",
    "health",
    "logs",
    "sim",
];

/// A job: what is wanted, as one task at the top level or several under `tasks`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Job")]
pub(crate) struct JobFile {
    /// Unique in the cluster: a lower-case letter, then up to 62 lower-case letters, digits or
    /// hyphens. `all` is reserved. Required.
    pub(crate) name: Field<Name>,
    /// Whom the job belongs to. Default: the caller.
    pub(crate) owner: Field<String>,
    /// `service` runs until stopped, `batch` to completion, `system` once on every node it may run
    /// on. Default: `service`, with `schedule` `batch`.
    pub(crate) kind: Field<Kind>,
    /// Who goes first where not all have room: from 0 to 100. Default: 50.
    #[schemars(range(max = 100))]
    pub(crate) priority: Field<Whole>,
    /// The datacenters it may run in. Default: any.
    #[schemars(length(min = 1, max = 64))]
    pub(crate) datacenters: Field<Vec<Field<Text>>>,
    /// How nodes are chosen for its tasks. Default: as the managers were started.
    pub(crate) strategy: Field<Strategy>,
    /// When it runs again and again: a cron expression, or a map. Default: never.
    pub(crate) schedule: Field<Form<String, ScheduleFile>>,
    /// The jobs it waits for: each a name, or a map. Default: none.
    #[schemars(length(max = 1000))]
    pub(crate) depends_on: Field<Vec<Field<Form<Name, DependsOnFile>>>>,
    /// The values it is submitted with, by name: each its default, or a map. Default: none.
    pub(crate) vars: Field<Entries<Form<Scalar, VarFile>>>,
    /// How a changed job takes the place of the one before.
    pub(crate) update: Field<UpdateFile>,
    /// Labels, for selectors. Default: none.
    pub(crate) labels: Field<Entries<Text>>,
    /// The tasks by name, where there are several; the fields of a single task stand at the top.
    pub(crate) tasks: Field<Entries<TaskFile>>,
}

/// A task: exactly one of `image`, `bash`, `python`, `go`, `exec` and `job` says what it runs; a
/// script may stand beside `image`, and then runs in its container.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Task")]
pub(crate) struct TaskFile {
    /// The image of a container: its name, or a map. Alone it runs the image's own program, beside a
    /// script that script.
    pub(crate) image: Field<Form<String, ImageFile>>,
    /// A shell script: the text, or `{file: path}`.
    pub(crate) bash: Field<Form<String, ScriptFile>>,
    /// A Python script: the text, or `{file: path}`.
    pub(crate) python: Field<Form<String, ScriptFile>>,
    /// A Go program in one file: the text, or `{file: path}`.
    pub(crate) go: Field<Form<String, ScriptFile>>,
    /// A program and its arguments, never through a shell.
    #[schemars(length(min = 1, max = 1000))]
    pub(crate) exec: Field<Vec<Field<Text>>>,
    /// The name of a job that is dispatched with this task's params; its run is the task's.
    pub(crate) job: Field<Name>,
    /// The interpreter of a script in place of the usual one, with its arguments: `[bash, -eu]`; the
    /// program of an image in place of its own (its entry point).
    #[schemars(length(min = 1, max = 1000))]
    pub(crate) command: Field<Vec<Field<Text>>>,
    /// Arguments after the program or script. Default: none; the image's own where neither they nor
    /// `command` are given.
    #[schemars(length(max = 1000))]
    pub(crate) args: Field<Vec<Field<Text>>>,
    /// How many of it run. Default: 1.
    #[schemars(range(max = 10_000))]
    pub(crate) replicas: Field<Whole>,
    /// What single replicas have otherwise, by index. Default: nothing.
    pub(crate) per_index: Field<Entries<IndexFile>>,
    /// Whether all replicas start together or not at all. Default: false.
    pub(crate) gang: Field<bool>,
    /// Environment variables beside those that Loom sets. Default: none.
    pub(crate) env: Field<Entries<Text>>,
    /// Values handed to it as `LOOM_PARAM_<NAME>`. Default: none.
    pub(crate) params: Field<Entries<Text>>,
    /// Whether what it leaves in `$LOOM_RESULT` is kept, also where it is a container without a script
    /// and no other task refers to it. Default: false.
    pub(crate) result: Field<bool>,
    /// The absolute path it starts in. Default: the image's, or the run's own directory.
    pub(crate) workdir: Field<Text>,
    /// `user` or `user:group`, by name or number. Default: the image's, or the agent's own.
    pub(crate) user: Field<Text>,
    /// The network of a container: `bridge`, `host`, or `none` (a loopback of its own; starts in half
    /// the time). Default: `bridge`.
    pub(crate) network: Field<Network>,
    /// Reserved cores. Default: 0.1.
    pub(crate) cpu: Field<Cores>,
    /// Hard cap on cores, at least `cpu`. Default: none.
    pub(crate) cpu_limit: Field<Cores>,
    /// Reserved memory, and the limit. Default: 128MiB.
    pub(crate) memory: Field<Size>,
    /// Reserved disk, and the most that its files take. Default: none, and no limit.
    pub(crate) disk: Field<Size>,
    /// Reserved of what is read, and of what is written, in a second, and the limit. Default: none, and
    /// no limit.
    pub(crate) disk_rate: Field<Rate>,
    /// Reserved processes and threads, and the limit. Default: none, and a limit of 512.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub(crate) pids: Field<Whole>,
    /// Gpus of its own: how many of any name, or a map of names to counts. Default: 0.
    #[schemars(range(max = 64))]
    pub(crate) gpus: Field<Form<Whole, Entries<Whole>>>,
    /// Ports by name: the container's port, or a map. Default: none.
    pub(crate) ports: Field<Entries<Form<Whole, PortFile>>>,
    /// What its nodes have to be: each `attribute op value`, such as `arch == amd64`. Default: none.
    #[schemars(length(max = 64))]
    pub(crate) constraints: Field<Vec<Field<Text>>>,
    /// What its nodes would better be: each as a constraint, or a map. Default: none.
    #[schemars(length(max = 64))]
    pub(crate) affinities: Field<Vec<Field<Form<String, AffinityFile>>>>,
    /// Attributes of nodes over whose values its replicas are spread: each its name, or a map.
    /// Default: over nodes.
    #[schemars(length(max = 64))]
    pub(crate) spread: Field<Vec<Field<Form<String, SpreadFile>>>>,
    /// The taints of nodes that it puts up with: each `key`, `key=value` or `key=value:effect`, or a
    /// map. Default: none.
    #[schemars(length(max = 64))]
    pub(crate) tolerations: Field<Vec<Field<Form<Text, TolerationFile>>>>,
    /// Restarts on the same node: a map, or only its `on`.
    pub(crate) restart: Field<Form<RestartOn, RestartFile>>,
    /// How it is asked to end.
    pub(crate) stop: Field<StopFile>,
    /// Time limit of one run: a duration, or a map. Default: none.
    pub(crate) timeout: Field<Form<Span, TimeoutFile>>,
    /// The tasks of the job it waits for: each a name, or a map. Default: none.
    #[schemars(length(max = 1000))]
    pub(crate) after: Field<Vec<Field<Form<Name, AfterFile>>>>,
    /// How its node finds out whether it does its work: one of `http`, `tcp` and `exec`.
    pub(crate) health: Field<HealthFile>,
    /// What is kept of its output.
    pub(crate) logs: Field<LogsFile>,
    /// What the `sim` driver plays for it; only nodes with that driver take such a task.
    pub(crate) sim: Field<SimFile>,
}

/// An image.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Image")]
pub(crate) struct ImageFile {
    /// Its name, such as `nginx:1.27`; without a tag `latest` is meant. Required.
    pub(crate) name: Field<String>,
    /// `always`, `missing` (where the node does not have it, whatever its tag) or `never`. Default:
    /// `missing`.
    pub(crate) pull: Field<Pull>,
}

/// A script that stands in a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Script")]
pub(crate) struct ScriptFile {
    /// Its path, relative to the job file.
    pub(crate) file: Field<String>,
    /// What was in the file; `loomctl` puts it in when it submits the job.
    pub(crate) text: Field<String>,
}

/// A port.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Port")]
pub(crate) struct PortFile {
    /// The port inside a container; a plain process listens on the host port.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: Field<Whole>,
    /// A fixed port of the node. Default: one of the node's range.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) host: Field<Whole>,
    /// `tcp` or `udp`. Default: `tcp`.
    pub(crate) protocol: Field<Protocol>,
}

/// Restarts on the same node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Restart")]
pub(crate) struct RestartFile {
    /// After which ends: `any`, `failure`, `never`. Default: `any` for a service, `failure` for a
    /// batch.
    pub(crate) on: Field<RestartOn>,
    /// How many starts within `window`, the first included. Default: 3.
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) attempts: Field<Whole>,
    /// The pause before the first restart; it doubles with each. Default: 1s.
    pub(crate) delay: Field<Span>,
    /// The longest pause. Default: 60s.
    pub(crate) max_delay: Field<Span>,
    /// Attempts older than this do not count. Default: 5m for a service, none for a batch.
    pub(crate) window: Field<Span>,
}

/// How a task is asked to end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Stop")]
pub(crate) struct StopFile {
    /// The first signal, by name. Default: SIGTERM.
    pub(crate) signal: Field<String>,
    /// How long until SIGKILL. Default: 10s.
    pub(crate) grace: Field<Span>,
}

/// Time limit of one run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Timeout")]
pub(crate) struct TimeoutFile {
    /// The run is stopped after so long and ends `failed: timed out`. Required.
    pub(crate) after: Field<Span>,
    /// A signal before that. Default: none.
    pub(crate) warn: Field<WarnFile>,
}

/// A signal some time before a time limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TimeoutWarning")]
pub(crate) struct WarnFile {
    /// The signal, by name. Required.
    pub(crate) signal: Field<String>,
    /// How long before the limit. Required.
    pub(crate) before: Field<Span>,
}

/// A health check: exactly one of `http`, `tcp` and `exec` says what is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Health")]
pub(crate) struct HealthFile {
    /// A path to `GET`; healthy if the answer's status is from 200 to 399.
    pub(crate) http: Field<Text>,
    /// The port that `http` asks, by name. Default: the task's only one.
    pub(crate) port: Field<Name>,
    /// The name of a port to connect to.
    pub(crate) tcp: Field<Name>,
    /// A program and its arguments, run beside the task; healthy if it ends with exit code 0.
    #[schemars(length(min = 1, max = 1000))]
    pub(crate) exec: Field<Vec<Field<Text>>>,
    /// From one check to the next. Default: 10s.
    pub(crate) interval: Field<Span>,
    /// A check that takes longer has failed. Default: 2s.
    pub(crate) timeout: Field<Span>,
    /// So many failures in a row make a run unhealthy. Default: 3.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) retries: Field<Whole>,
    /// Failures so soon after the start do not count, until the first success. Default: 10s, or
    /// `interval` if that is more.
    pub(crate) start_period: Field<Span>,
}

/// What is kept of a task's output.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Logs")]
pub(crate) struct LogsFile {
    /// A file is rotated past this size. Default: 10MiB.
    pub(crate) max_size: Field<Size>,
    /// How many files are kept. Default: 5.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) keep: Field<Whole>,
    /// Whether the lines are published and kept on the bus. Default: true.
    pub(crate) ship: Field<bool>,
    /// Where the files are on the node, an absolute path. Default: the run's own directory.
    pub(crate) to: Field<Text>,
}

/// What the `sim` driver plays.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Sim")]
pub(crate) struct SimFile {
    /// How long a start takes. Default: 0s.
    pub(crate) start: Field<Span>,
    /// How long it runs. Default: until stopped.
    pub(crate) run: Field<Span>,
    /// The exit code after that. Default: 0.
    #[schemars(range(max = 255))]
    pub(crate) exit: Field<Whole>,
    /// The error a start ends with. Default: none.
    pub(crate) start_error: Field<String>,
    /// Whether only SIGKILL ends it. Default: false.
    pub(crate) ignore_stop: Field<bool>,
    /// Health checks fail until it has run so long. Default: 0s.
    pub(crate) healthy_after: Field<Span>,
    /// Health checks fail once it has run so long. Default: never.
    pub(crate) unhealthy_after: Field<Span>,
}
