//! What a task reserves, and what single slots of it have otherwise; their lowering.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Cores, Entries, Field, Form, Rate, Size, Text, Whole};
use super::file::TaskFile;
use super::lower::{Lowering, REPLICAS_MAX, entries};
use super::problem::shown;
use super::program::Texts;
use super::{Gpus, TaskSpec};
use crate::ids::Index;
use crate::units::{Bytes, MilliCores};
use crate::words::Kind;

const CORES_MAX: MilliCores = MilliCores(4_096_000);
const DISK_MAX: Bytes = Bytes(1 << 50);

/// What a task reserves on its node, each dimension apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Reserved cores.
    pub cpu: MilliCores,
    /// Hard cap on cores; none if it may use what is idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<MilliCores>,
    /// Reserved memory, and the limit.
    pub memory: Bytes,
    /// Reserved disk, and the limit where it is not 0.
    #[serde(default)]
    pub disk: Bytes,
    /// Reserved of what is read, and of what is written, in a second, and the limit; none of both if
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<Bytes>,
    /// Reserved processes and threads, and the limit; none reserved if none, and the limit is
    /// [`PIDS_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Gpus of its own; boxed, for few runs have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Box<Gpus>>,
}

/// The most processes and threads of a task that says nothing of them.
pub const PIDS_DEFAULT: u32 = 512;

impl Resources {
    /// The most processes and threads at once.
    pub fn most_pids(&self) -> u32 {
        self.pids.unwrap_or(PIDS_DEFAULT)
    }

    /// So much more of all that is reserved; limits are of one run and stay as they are.
    pub fn add(&mut self, other: &Self) {
        self.cpu.0 = self.cpu.0.saturating_add(other.cpu.0);
        self.memory.0 = self.memory.0.saturating_add(other.memory.0);
        self.disk.0 = self.disk.0.saturating_add(other.disk.0);
        if let Some(rate) = other.disk_rate {
            let sum = self.disk_rate.unwrap_or_default().0.saturating_add(rate.0);
            self.disk_rate = Some(Bytes(sum));
        }
        if let Some(pids) = other.pids {
            self.pids = Some(self.pids.unwrap_or_default().saturating_add(pids));
        }
        if !other.gpus().is_none() {
            self.gpus.get_or_insert_default().add(other.gpus());
        }
    }

    /// The gpus of its own.
    pub fn gpus(&self) -> &Gpus {
        self.gpus.as_deref().unwrap_or(Gpus::NONE)
    }
}

/// What one slot of a task has otherwise than the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// In place of the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Beside the task's, or in place of those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// In place of the task's.
    #[serde(default)]
    pub resources: ResourceChange,
}

/// Resources in place of others, each dimension apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceChange {
    /// Reserved cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCores>,
    /// Hard cap on cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<MilliCores>,
    /// Reserved memory, and the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Reserved disk, and the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Reserved of what is read, and of what is written, in a second, and the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<Bytes>,
    /// Reserved processes and threads, and the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Gpus of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
}

impl ResourceChange {
    /// The resources with this in place of theirs.
    #[must_use]
    pub fn over(&self, base: &Resources) -> Resources {
        Resources {
            cpu: self.cpu.unwrap_or(base.cpu),
            cpu_limit: self.cpu_limit.or(base.cpu_limit),
            memory: self.memory.unwrap_or(base.memory),
            disk: self.disk.unwrap_or(base.disk),
            disk_rate: self.disk_rate.or(base.disk_rate),
            pids: self.pids.or(base.pids),
            gpus: match &self.gpus {
                Some(own) => (!own.is_none()).then(|| Box::new(own.clone())),
                None => base.gpus.clone(),
            },
        }
    }
}

impl TaskSpec {
    /// Whether the slot of this index has anything otherwise than the others.
    pub fn has_own(&self, index: &Index) -> bool {
        index
            .number()
            .is_some_and(|index| self.per_index.contains_key(&index))
    }

    /// What the slot of this index reserves.
    pub fn resources_of(&self, index: &Index) -> Resources {
        match index.number().and_then(|index| self.per_index.get(&index)) {
            Some(own) => own.resources.over(&self.resources),
            None => self.resources.clone(),
        }
    }

    /// The task without what other slots than that of this index have otherwise.
    #[must_use]
    pub fn for_index(&self, index: &Index) -> Self {
        let mut task = self.clone();
        task.per_index.retain(|of, _| Some(*of) == index.number());
        task
    }

    /// The task as the slot of this index runs it; two versions of a slot are compared by it.
    #[must_use]
    pub fn of_index(&self, index: &Index) -> Self {
        let mut task = self.clone();
        let mut own = std::mem::take(&mut task.per_index);
        if let Some(own) = index.number().and_then(|index| own.remove(&index)) {
            task.resources = own.resources.over(&task.resources);
            task.args = own.args.unwrap_or(task.args);
            task.env.extend(own.env);
        }
        task
    }
}

/// What one slot of a task has otherwise than the others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Index")]
pub(crate) struct IndexFile {
    /// Arguments in place of the task's.
    #[schemars(length(max = 1000))]
    args: Field<Vec<Field<Text>>>,
    /// Variables beside the task's, or in place of those of the same name.
    env: Field<Entries<Text>>,
    /// Reserved cores.
    cpu: Field<Cores>,
    /// Hard cap on cores.
    cpu_limit: Field<Cores>,
    /// Reserved memory, and the limit.
    memory: Field<Size>,
    /// Reserved disk, and the limit.
    disk: Field<Size>,
    /// Reserved of what is read, and of what is written, in a second, and the limit.
    disk_rate: Field<Rate>,
    /// Reserved processes and threads, and the limit.
    #[schemars(range(min = 1, max = 4_194_304))]
    pids: Field<Whole>,
    /// Gpus of its own: how many of any name, or a map of names to counts.
    #[schemars(range(max = 64))]
    gpus: Field<Form<Whole, Entries<Whole>>>,
}

/// The fields that say what is reserved.
pub(super) struct Amounts<'a> {
    pub(super) cpu: &'a Field<Cores>,
    pub(super) cpu_limit: &'a Field<Cores>,
    pub(super) memory: &'a Field<Size>,
    pub(super) disk: &'a Field<Size>,
    pub(super) disk_rate: &'a Field<Rate>,
    pub(super) pids: &'a Field<Whole>,
    pub(super) gpus: &'a Field<Form<Whole, Entries<Whole>>>,
}

impl<'a> Amounts<'a> {
    pub(super) fn of(task: &'a TaskFile) -> Self {
        Self {
            cpu: &task.cpu,
            cpu_limit: &task.cpu_limit,
            memory: &task.memory,
            disk: &task.disk,
            disk_rate: &task.disk_rate,
            pids: &task.pids,
            gpus: &task.gpus,
        }
    }
}

impl Lowering<'_> {
    pub(super) fn resources(&mut self, amounts: &Amounts<'_>) -> Resources {
        let base = Resources {
            cpu: MilliCores(100),
            cpu_limit: None,
            memory: Bytes::mib(128),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            gpus: None,
        };
        self.change(amounts, &base).over(&base)
    }

    /// What is given of resources, to stand in place of `base`.
    fn change(&mut self, amounts: &Amounts<'_>, base: &Resources) -> ResourceChange {
        let mut cores = |field: &Field<Cores>| {
            let Cores(cores) = field.value?;
            if cores.0 == 0 || cores > CORES_MAX {
                let message = format!("`{cores}` cores are out of range");
                self.push(field.problem(message, format!("from 0.001 to {CORES_MAX}")));
            }
            Some(cores)
        };
        let cpu = cores(amounts.cpu);
        let cpu_limit = cores(amounts.cpu_limit);
        let reserved = cpu.unwrap_or(base.cpu);
        let limit = cpu_limit.or(base.cpu_limit);
        if let Some(limit) = limit.filter(|limit| *limit < reserved) {
            let message =
                format!("`{limit}` cores are less than the {reserved} that `cpu` reserves");
            let field = if cpu_limit.is_some() {
                amounts.cpu_limit
            } else {
                amounts.cpu
            };
            self.push(field.problem(message, "raise `cpu_limit` or lower `cpu`"));
        }
        let size = |field: &Field<Size>| field.value.map(|Size(size)| size);
        let rate = amounts.disk_rate.value.map(|Rate(rate)| rate);
        let least = Bytes(4096);
        if rate.is_some_and(|rate| !(least..=DISK_MAX).contains(&rate)) {
            let help = format!("from {least}/s to {DISK_MAX}/s");
            let message = format!("`{}/s` is out of range", rate.unwrap_or_default());
            self.push(amounts.disk_rate.problem(message, help));
        }
        let mib = Bytes::mib(1);
        self.size(amounts.memory, mib..=DISK_MAX, mib);
        self.size(amounts.disk, mib..=DISK_MAX, mib);
        let pids = self.whole(amounts.pids, 1..=4_194_304, PIDS_DEFAULT);
        ResourceChange {
            cpu,
            cpu_limit,
            memory: size(amounts.memory),
            disk: size(amounts.disk),
            disk_rate: rate,
            pids: amounts.pids.value.map(|_| pids),
            gpus: self.gpus(amounts.gpus),
        }
    }

    /// Whether the replicas of a task start together.
    pub(super) fn gang(&mut self, field: &Field<bool>, kind: Kind) -> bool {
        let gang = field.value == Some(true);
        if gang && kind == Kind::System {
            let message = "a system job has one on every node, each as soon as its node is there";
            self.push(field.problem(message, "remove `gang`"));
        }
        gang
    }

    /// What single slots of a task with so many replicas have otherwise.
    pub(super) fn per_index(
        &mut self,
        field: Field<Entries<IndexFile>>,
        base: &Resources,
        replicas: u32,
        texts: &Texts<'_>,
    ) -> BTreeMap<u32, IndexSpec> {
        let most = usize::try_from(REPLICAS_MAX).unwrap_or(usize::MAX);
        self.count(&field, most, "indexes");
        let mut all = BTreeMap::new();
        for (key, file) in entries(field) {
            let index = self.index(&key, replicas);
            let Some(file) = file.value else { continue };
            let amounts = Amounts {
                cpu: &file.cpu,
                cpu_limit: &file.cpu_limit,
                memory: &file.memory,
                disk: &file.disk,
                disk_rate: &file.disk_rate,
                pids: &file.pids,
                gpus: &file.gpus,
            };
            let resources = self.change(&amounts, base);
            let has_args = file.args.present;
            let args = self.words(file.args, texts, false);
            let spec = IndexSpec {
                args: has_args.then_some(args),
                env: self.env(file.env, texts),
                resources,
            };
            if let Some(index) = index {
                all.insert(index, spec);
            }
        }
        all
    }

    /// A key that has to be the index of a replica.
    fn index(&mut self, key: &Field<String>, replicas: u32) -> Option<u32> {
        let text = key.value.as_deref()?;
        let index = text.parse::<u32>().ok();
        let Some(index) = index.filter(|index| index.to_string() == text) else {
            let message = format!("`{}` is not an index", shown(text));
            self.push(key.problem(message, "indexes are whole numbers from 0"));
            return None;
        };
        if index >= replicas {
            let message = format!("there is no index {index}");
            let help = match replicas {
                0 => "the task has no replicas".to_owned(),
                1 => "the task has one replica, of index 0".to_owned(),
                _ => format!("the task's replicas are 0 to {}", replicas - 1),
            };
            self.push(key.problem(message, help));
        }
        Some(index)
    }
}
