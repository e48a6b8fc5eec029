//! From the file's forms to the canonical one: defaults, and every check that needs more than the
//! type of a field.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::depend::AfterPlace;
use super::field::{Entries, Field, Form, Size, Text, Whole};
use super::file::{JobFile, PortFile, TaskFile};
use super::problem::{Problem, ProblemKind, Problems, shown};
use super::program::{Operators, Texts};
use super::reference::is_label;
use super::resources::Amounts;
use super::tree::Place;
use super::vars::{ResultPlace, Sets};
use super::{JOB_MAX, JobSpec, PRIORITY, PortSpec, TaskSpec, VarSpec};
use crate::ids::Name;
use crate::units::Bytes;
use crate::words::Kind;

/// The most tasks of a job.
pub const TASKS_MAX: usize = 1000;
/// The most replicas of a job's tasks together.
pub const REPLICAS_MAX: u64 = 10_000;
/// The most arguments, or variables, of a task.
pub const WORDS_MAX: usize = 1000;
/// The most ports of a task, and labels of a job.
pub const PORTS_MAX: usize = 64;
/// The longest argument or variable, in bytes; the kernel's own limit less the name.
pub const WORD_MAX: usize = 128 * 1024 - 256;

/// Gives the text of a script file, or why not.
pub(crate) type Files<'a> = dyn FnMut(&str) -> Result<String, String> + 'a;

/// Lowers one job.
pub(crate) struct Lowering<'a> {
    pub(crate) problems: Problems,
    pub(super) files: Option<&'a mut Files<'a>>,
    /// What may still come from script files, in bytes.
    pub(super) room: usize,
    /// What tasks wait for.
    pub(super) after: Vec<AfterPlace>,
    /// Whose results tasks use, and where.
    pub(super) results: Vec<ResultPlace>,
    /// What the vars are set to.
    pub(super) sets: &'a Sets,
    /// The vars of the job.
    pub(super) vars: Rc<BTreeMap<Name, VarSpec>>,
}

/// Where a task stands, for what is wrong with it as a whole.
pub(super) struct TaskPlace {
    /// Its name, if that reads.
    pub(super) name: Option<Name>,
    pub(super) place: Place,
    pub(super) path: String,
}

impl TaskPlace {
    pub(super) fn problem(&self, message: impl Into<String>, help: impl Into<String>) -> Problem {
        let Place { line, column } = self.place;
        Problem::new(message, help)
            .at(line, column)
            .on(self.path.clone())
    }

    /// The path of a field.
    pub(super) fn of(&self, field: &str) -> String {
        match self.path.as_str() {
            "" => field.to_owned(),
            path => format!("{path}.{field}"),
        }
    }
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(
        problems: Problems,
        files: Option<&'a mut Files<'a>>,
        sets: &'a Sets,
        size: usize,
    ) -> Self {
        Self {
            problems,
            files,
            room: JOB_MAX.saturating_sub(size),
            after: Vec::new(),
            results: Vec::new(),
            sets,
            vars: Rc::default(),
        }
    }

    /// The job; `main` is its only task, where the fields of one stand at the top. Not to be used
    /// if there are problems.
    pub(crate) fn job(
        &mut self,
        job: JobFile,
        main: Option<TaskFile>,
        top: Place,
    ) -> Option<JobSpec> {
        let top = TaskPlace {
            name: Some(Name::main()),
            place: top,
            path: String::new(),
        };
        if !job.name.present {
            self.push(top.problem("`name` is missing", "add a name, such as `name: web`"));
        }
        let (schedule, kind) = self.schedule(job.schedule, &job.kind);
        let priority = self.whole(&job.priority, 0..=100, PRIORITY);
        let datacenters = self.datacenters(job.datacenters);
        let depends_on = self.depends_on(job.depends_on, job.name.value.as_ref());
        self.vars = Rc::new(self.vars(job.vars, &top));
        let update = self.update(job.update);
        let owner = self.owner(job.owner);
        let labels = self.labels(job.labels);
        let tasks = match main {
            Some(task) => {
                let task = self.task(task, kind, &top);
                task.map(|task| (Name::main(), task)).into_iter().collect()
            }
            None => self.tasks(job.tasks, kind),
        };
        self.check_after(&tasks);
        let tasks = self.with_results(tasks);
        Some(JobSpec {
            name: job.name.value?,
            owner,
            kind,
            priority,
            datacenters,
            strategy: job.strategy.value,
            schedule,
            depends_on,
            vars: Rc::unwrap_or_clone(std::mem::take(&mut self.vars)),
            update,
            labels,
            tasks,
        })
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn owner(&mut self, field: Field<String>) -> Option<String> {
        let owner = field.value.as_deref()?;
        if owner.is_empty() || owner.len() > 255 || owner.contains(char::is_control) {
            let message = format!("`{}` is not an owner", shown(owner));
            self.push(field.problem(message, "expected 1 to 255 characters"));
        }
        field.value
    }

    fn labels(&mut self, field: Field<Entries<Text>>) -> BTreeMap<String, String> {
        self.count(&field, PORTS_MAX, "labels");
        let mut labels = BTreeMap::new();
        for (key, value) in entries(field) {
            let Some(name) = &key.value else { continue };
            if !is_label(name) {
                let message = format!("`{}` is not the name of a label", shown(name));
                let help = "expected 1 to 63 letters, digits, `.`, `_`, `/` or `-`";
                self.push(key.problem(message, help));
            }
            let Some(Text(text)) = &value.value else {
                continue;
            };
            if text.len() > 255 || text.contains(char::is_control) {
                let message = format!("`{}` is not the value of a label", shown(text));
                self.push(value.problem(message, "expected at most 255 characters in one line"));
            }
            labels.insert(name.clone(), text.clone());
        }
        labels
    }

    fn datacenters(&mut self, field: Field<Vec<Field<Text>>>) -> Vec<String> {
        let place = field.as_place();
        let items = field.value.unwrap_or_default();
        if place.present && items.is_empty() {
            let help = "name one, or remove the field for any";
            self.push(place.problem("`datacenters` is empty", help));
        }
        let mut all: Vec<String> = Vec::new();
        for field in items {
            let Some(Text(name)) = &field.value else {
                continue;
            };
            let valid = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
                let message = format!("`{}` is not the name of a datacenter", shown(name));
                let help = "expected 1 to 63 letters, digits, `.`, `_` or `-`";
                self.push(field.problem(message, help));
            } else if all.contains(name) {
                let message = format!("`{name}` is there twice");
                self.push(field.problem(message, "remove one of the two"));
            }
            all.push(name.clone());
        }
        if all.len() > PORTS_MAX {
            let message = format!("{} datacenters", all.len());
            let help = format!("at most {PORTS_MAX}");
            self.push(place.problem(message, help).of(ProblemKind::TooLarge));
        }
        all
    }

    fn tasks(&mut self, field: Field<Entries<TaskFile>>, kind: Kind) -> BTreeMap<Name, TaskSpec> {
        self.count(&field, TASKS_MAX, "tasks");
        if field.value.as_ref().is_some_and(|tasks| tasks.0.is_empty()) {
            self.push(field.problem("`tasks` is empty", "add a task"));
        }
        let mut tasks = BTreeMap::new();
        let mut replicas = 0;
        let whole = field.as_place();
        for (key, task) in entries(field) {
            let name = self.name(&key);
            let place = TaskPlace {
                name: name.clone(),
                place: key.place,
                path: task.path,
            };
            let Some(task) = task.value.and_then(|task| self.task(task, kind, &place)) else {
                continue;
            };
            replicas += u64::from(task.replicas);
            if let Some(name) = name {
                tasks.insert(name, task);
            }
        }
        if replicas > REPLICAS_MAX {
            let message = format!("the tasks have {replicas} replicas together");
            let help = format!("at most {REPLICAS_MAX} a job");
            self.push(whole.problem(message, help).of(ProblemKind::TooLarge));
        }
        tasks
    }

    /// A key that has to be a name.
    pub(super) fn name(&mut self, key: &Field<String>) -> Option<Name> {
        let name = Name::new(key.value.as_deref()?);
        name.map_err(|error| self.push(key.problem(error.to_string(), "")))
            .ok()
    }

    fn task(&mut self, task: TaskFile, kind: Kind, place: &TaskPlace) -> Option<TaskSpec> {
        self.nothing_beside_job(&task);
        self.no_command_beside_exec(&task);
        let resources = self.resources(&Amounts::of(&task));
        let ports = self.ports(task.ports);
        let names: BTreeSet<Name> = ports.keys().cloned().collect();
        let texts = Texts::new(&names, &self.vars, !task.job.present);
        let command = self.words(task.command, &texts, true);
        let args = self.words(task.args, &texts, false);
        let env = self.env(task.env, &texts);
        let replicas = self.replicas(&task.replicas, kind);
        let workdir = self.absolute(task.workdir, &texts);
        let user = self.user(task.user);
        let per_index = self.per_index(task.per_index, &resources, replicas, &texts);
        let gang = self.gang(&task.gang, kind);
        let params = self.params(task.params, &texts);
        let constraints = self.constraints(task.constraints, kind);
        let affinities = self.affinities(task.affinities, kind);
        let spread = self.spread(task.spread, kind);
        let tolerations = self.tolerations(task.tolerations);
        let after = self.after(task.after, place);
        let restart = self.restart(task.restart, kind);
        let stop = self.stop(task.stop);
        let timeout = self.timeout(task.timeout);
        let health = self.health(task.health, &ports, &texts);
        let logs = self.logs(task.logs, replicas > 1, &texts);
        let sim = self.sim(task.sim);
        let in_image = task.image.present;
        let image = self.image(task.image);
        let network = self.network(&task.network, in_image, &names);
        let operators = Operators {
            image: in_image,
            bash: task.bash,
            python: task.python,
            go: task.go,
            exec: task.exec,
            job: task.job,
        };
        let operator = self.operator(operators, place, &texts)?;
        let (vars, results) = self.used(texts, &operator, place);
        Some(TaskSpec {
            operator,
            image,
            command,
            args,
            replicas,
            per_index,
            gang,
            env,
            params,
            vars,
            result: task.result.value.unwrap_or(false),
            results,
            workdir,
            user,
            network,
            resources,
            ports,
            constraints,
            affinities,
            spread,
            tolerations,
            restart,
            stop,
            timeout,
            after,
            health,
            logs,
            sim,
        })
    }

    fn no_command_beside_exec(&mut self, task: &TaskFile) {
        if task.exec.present && task.command.present {
            let help = "put the program and its arguments into `exec`; `command` is the \
                        interpreter of a script";
            let message = "`command` stands beside `exec`";
            self.push(task.command.problem(message, help));
        }
    }

    fn replicas(&mut self, field: &Field<Whole>, kind: Kind) -> u32 {
        if kind == Kind::System && field.present {
            let message = "a system job has one on every node";
            self.push(field.problem(message, "remove `replicas`"));
        }
        self.whole(field, 0..=REPLICAS_MAX, 1)
    }

    fn ports(&mut self, field: Field<Entries<Form<Whole, PortFile>>>) -> BTreeMap<Name, PortSpec> {
        self.count(&field, PORTS_MAX, "ports");
        let mut ports = BTreeMap::new();
        let mut fixed = BTreeMap::new();
        for (key, port) in entries(field) {
            let name = self.name(&key);
            let Some(form) = port.value else { continue };
            let port = match form {
                Form::Short(number) => {
                    let number = Field {
                        value: Some(number),
                        present: true,
                        place: port.place,
                        path: port.path,
                    };
                    PortSpec {
                        port: self.port(&number),
                        host: None,
                        protocol: super::Protocol::default(),
                    }
                }
                Form::Full(file) => {
                    let spec = PortSpec {
                        port: self.port(&file.port),
                        host: self.port(&file.host),
                        protocol: file.protocol.value.unwrap_or_default(),
                    };
                    let host = spec.host.map(|host| (host, spec.protocol));
                    let first = host.and_then(|host| fixed.insert(host, file.host.path.clone()));
                    if let (Some(first), Some((host, _))) = (first, host) {
                        let message = format!("the host port {host} is taken by `{first}`");
                        self.push(file.host.problem(message, "choose another port"));
                    }
                    spec
                }
            };
            if let Some(name) = name {
                ports.insert(name, port);
            }
        }
        ports
    }

    fn port(&mut self, field: &Field<Whole>) -> Option<u16> {
        field.present.then(|| self.whole(field, 1..=65535, 1))
    }

    /// A number within bounds; the default where there is none.
    pub(super) fn whole<T>(
        &mut self,
        field: &Field<Whole>,
        bounds: RangeInclusive<u64>,
        default: T,
    ) -> T
    where
        T: TryFrom<u64>,
    {
        let Some(Whole(number)) = field.value else {
            return default;
        };
        let value = T::try_from(number)
            .ok()
            .filter(|_| bounds.contains(&number));
        value.unwrap_or_else(|| {
            let help = format!("from {} to {}", bounds.start(), bounds.end());
            self.push(field.problem(format!("`{number}` is out of range"), help));
            default
        })
    }

    /// A size within bounds; the default where there is none.
    pub(super) fn size(
        &mut self,
        field: &Field<Size>,
        bounds: RangeInclusive<Bytes>,
        default: Bytes,
    ) -> Bytes {
        let Some(Size(size)) = field.value else {
            return default;
        };
        if !bounds.contains(&size) {
            let help = format!("from {} to {}", bounds.start(), bounds.end());
            self.push(field.problem(format!("`{size}` is out of range"), help));
        }
        size
    }

    pub(super) fn count<T>(&mut self, field: &Field<Entries<T>>, most: usize, what: &str) {
        let count = field.value.as_ref().map_or(0, |entries| entries.0.len());
        if count > most {
            let problem = field.problem(format!("{count} {what}"), format!("at most {most}"));
            self.push(problem.of(ProblemKind::TooLarge));
        }
    }
}

pub(super) fn entries<T>(field: Field<Entries<T>>) -> Vec<(Field<String>, Field<T>)> {
    field.value.map(|entries| entries.0).unwrap_or_default()
}
