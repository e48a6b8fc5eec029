//! Lowering of what a task runs: its operator, script, arguments and environment, and the check of
//! the references in them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::field::{Entries, Field, Form, Text};
use super::file::{ImageFile, ScriptFile};
use super::image::{ImageName, ImageSpec, Network, Pull};
use super::later::{TASK, supported};
use super::lower::{Lowering, TaskPlace, WORD_MAX, WORDS_MAX, entries};
use super::problem::{Problem, ProblemKind, shown};
use super::reference::{Context, Reference, ResultUse, Template};
use super::{JOB_MAX, Operator, Script, SubJob, VARS_MAX, VarSpec, shell};
use crate::ids::Name;
use crate::units::Bytes;

/// The fields that say what a task runs, as this build has them.
fn operator_names() -> String {
    supported(TASK, &["image", "bash", "python", "go", "exec", "job"]).join(", ")
}

/// The fields of which a task has one, or a script beside an image.
pub(super) struct Operators {
    /// Whether there is an image.
    pub(super) image: bool,
    pub(super) bash: Field<Form<String, ScriptFile>>,
    pub(super) python: Field<Form<String, ScriptFile>>,
    pub(super) go: Field<Form<String, ScriptFile>>,
    pub(super) exec: Field<Vec<Field<Text>>>,
    pub(super) job: Field<Name>,
}

/// What the texts of a task may refer to, and what they do.
pub(super) struct Texts<'a> {
    ports: &'a BTreeSet<Name>,
    vars: Rc<BTreeMap<Name, VarSpec>>,
    /// Whether the task has a node: one that is a job has none.
    has_node: bool,
    pub(super) used: RefCell<Used>,
}

/// What the texts of a task refer to.
#[derive(Default)]
pub(super) struct Used {
    pub(super) vars: BTreeSet<Name>,
    pub(super) results: Vec<(ResultUse, Field<()>)>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(
        ports: &'a BTreeSet<Name>,
        vars: &Rc<BTreeMap<Name, VarSpec>>,
        has_node: bool,
    ) -> Self {
        Self {
            ports,
            has_node,
            vars: Rc::clone(vars),
            used: RefCell::default(),
        }
    }

    /// The first reference of a text that is wrong, as a problem in its place.
    fn check(&self, text: &str, context: Context, at: &Field<()>) -> Option<Problem> {
        let template = match Template::parse(text, context) {
            Ok(template) => template,
            Err(error) => return Some(at.problem(error.to_string(), error.help())),
        };
        if context == Context::Script
            && let Err(error) = shell::with_variables(text)
        {
            return Some(at.problem(error.to_string(), error.help()));
        }
        let mut used = self.used.borrow_mut();
        for reference in template.references() {
            if !self.has_node && reference.is_of_node() {
                let message = format!("`${{{reference}}}` means nothing beside `job`");
                let help = "the task has no node of its own; the tasks of that job may refer to it";
                return Some(at.problem(message, help));
            }
            let (what, known, name): (_, Vec<&str>, _) = match reference {
                Reference::Port(name) if !self.ports.contains(name) => {
                    ("port", self.ports.iter().map(Name::as_str).collect(), name)
                }
                Reference::Var(name) if !self.vars.contains_key(name) => {
                    ("var", self.vars.keys().map(Name::as_str).collect(), name)
                }
                Reference::Var(name) => {
                    used.vars.insert(name.clone());
                    continue;
                }
                Reference::Result(of) => {
                    used.results.push((of.clone(), at.clone_with(())));
                    continue;
                }
                _ => continue,
            };
            let whose = if what == "port" { "task" } else { "job" };
            let message =
                format!("`${{{reference}}}` names a {what} that the {whose} does not have");
            let help = match known.as_slice() {
                [] if what == "port" => format!("add it: `ports: {{{name}: {{}}}}`"),
                [] => format!("add it: `vars: {{{name}: \"its default\"}}`"),
                known => format!("its {what}s: {}", known.join(", ")),
            };
            return Some(at.problem(message, help));
        }
        None
    }
}

impl Lowering<'_> {
    pub(super) fn operator(
        &mut self,
        operators: Operators,
        place: &TaskPlace,
        texts: &Texts<'_>,
    ) -> Option<Operator> {
        let Operators {
            image,
            bash,
            python,
            go,
            exec,
            job,
        } = operators;
        let chosen = [
            ("bash", bash.present, bash.place, &bash.path),
            ("python", python.present, python.place, &python.path),
            ("go", go.present, go.place, &go.path),
            ("exec", exec.present, exec.place, &exec.path),
            ("job", job.present, job.place, &job.path),
        ];
        let mut chosen: Vec<_> = chosen.iter().filter(|field| field.1).collect();
        chosen.sort_by_key(|field| (field.2.line, field.2.column));
        match chosen.as_slice() {
            [] if ["job", "plugin"]
                .iter()
                .any(|name| self.problems.is_later(&place.of(name))) => {}
            [] if image => {}
            [] => {
                let help = format!("add one of {}", operator_names());
                self.push(place.problem("nothing says what the task runs", help));
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("`{}` stands beside `{}`", second.0, first.0);
                let help = format!("a task has exactly one of {}", operator_names());
                let problem = Problem::new(message, help)
                    .at(second.2.line, second.2.column)
                    .on(second.3.clone());
                self.push(problem);
            }
        }
        if bash.present {
            return self.script(bash, Some(texts)).map(Operator::Bash);
        }
        if python.present {
            return self.script(python, None).map(Operator::Python);
        }
        if go.present {
            return self.script(go, None).map(Operator::Go);
        }
        if exec.present {
            if image {
                let help = "put the program into `command` and its arguments into `args`";
                self.push(exec.problem("`exec` stands beside `image`", help));
            }
            return Some(Operator::Exec(self.words(exec, texts, true)));
        }
        if job.present {
            if image {
                let help = "the job's own tasks say what they run in";
                self.push(job.problem("`job` stands beside `image`", help));
            }
            return Some(Operator::Job(SubJob { job: job.value? }));
        }
        image.then_some(Operator::Image)
    }

    /// The values a task is handed.
    pub(super) fn params(
        &mut self,
        field: Field<Entries<Text>>,
        texts: &Texts<'_>,
    ) -> BTreeMap<Name, String> {
        self.count(&field, VARS_MAX, "params");
        let mut params = BTreeMap::new();
        for (key, value) in entries(field) {
            let name = self.name(&key);
            if let (Some(name), Some(text)) = (name, self.word(value, texts)) {
                params.insert(name, text);
            }
        }
        params
    }

    pub(super) fn image(&mut self, field: Field<Form<String, ImageFile>>) -> Option<ImageSpec> {
        let place = field.as_place();
        let (name, pull) = match field.value? {
            Form::Short(name) => (name, Pull::default()),
            Form::Full(file) => {
                let pull = file.pull.value.unwrap_or_default();
                if !file.name.present {
                    let help = "add the name of the image, such as `name: nginx:1.27`";
                    self.push(place.problem("`name` is missing", help));
                }
                (file.name.value?, pull)
            }
        };
        if let Err((what, help)) = ImageName::parse(&name) {
            let message = format!("`{}`: {what}", shown(&name));
            self.push(place.problem(message, help));
        }
        Some(ImageSpec { name, pull })
    }

    /// The network of a container, which its ports are in.
    pub(super) fn network(
        &mut self,
        field: &Field<Network>,
        image: bool,
        ports: &BTreeSet<Name>,
    ) -> Network {
        let network = field.value.unwrap_or_default();
        if field.present && !image {
            let help = "a plain process is in the node's network";
            self.push(field.problem("`network` is for containers", help));
        } else if network == Network::None && !ports.is_empty() {
            let help = "remove `ports`, or choose another network";
            self.push(field.problem("a task without a network has no ports", help));
        }
        network
    }

    /// The script; with `texts` its references are checked.
    fn script(
        &mut self,
        field: Field<Form<String, ScriptFile>>,
        texts: Option<&Texts<'_>>,
    ) -> Option<Script> {
        let place = field.as_place();
        let (text, file) = match field.value? {
            Form::Short(text) => (text, None),
            Form::Full(script) => match (script.text.value, script.file) {
                (Some(text), file) => (text, file.value),
                (None, file) if file.present => (self.file(&file)?, file.value),
                _ if script.text.present => return None,
                _ => {
                    let help = "write the text of the script, or `{file: path}`";
                    self.push(place.problem("`file` is missing", help));
                    return None;
                }
            },
        };
        if text.trim().is_empty() {
            self.push(place.problem("the script is empty", ""));
        } else if text.contains('\0') {
            self.push(place.problem("the script has a zero byte", "remove it"));
        } else if let Some(wrong) = texts.and_then(|t| t.check(&text, Context::Script, &place)) {
            self.push(wrong);
        }
        Some(Script { text, file })
    }

    fn file(&mut self, field: &Field<String>) -> Option<String> {
        let path = field.value.as_deref()?;
        let Some(files) = &mut self.files else {
            let help = "submit the job with loomctl, or put the text in its place";
            self.push(field.problem("files are not read here", help));
            return None;
        };
        let text = match files(path) {
            Ok(text) => text,
            Err(reason) => {
                self.push(field.problem(format!("the script cannot be read: {reason}"), ""));
                return None;
            }
        };
        let Some(room) = self.room.checked_sub(text.len()) else {
            let message = format!(
                "the job with its scripts is larger than {}",
                Bytes(JOB_MAX as u64)
            );
            self.push(field.problem(message, "").of(ProblemKind::TooLarge));
            return None;
        };
        self.room = room;
        Some(text)
    }

    pub(super) fn words(
        &mut self,
        field: Field<Vec<Field<Text>>>,
        texts: &Texts<'_>,
        program: bool,
    ) -> Vec<String> {
        let place = field.as_place();
        let program = program && field.value.is_some();
        let items = field.value.unwrap_or_default();
        if program {
            match items.first().map(|word| word.value.as_ref()) {
                None => {
                    let help = "write a list of program and arguments, such as `[sleep, \"10\"]`";
                    self.push(place.problem("no program is named", help));
                }
                Some(Some(Text(word))) if word.is_empty() => {
                    self.push(place.problem("the name of the program is empty", ""));
                }
                _ => {}
            }
        }
        if items.len() > WORDS_MAX {
            let message = format!("{} arguments", items.len());
            let help = format!("at most {WORDS_MAX}");
            self.push(place.problem(message, help).of(ProblemKind::TooLarge));
        }
        let word = |field: Field<Text>| self.word(field, texts);
        items.into_iter().filter_map(word).collect()
    }

    /// A text handed to a process.
    fn word(&mut self, field: Field<Text>, texts: &Texts<'_>) -> Option<String> {
        let Text(text) = field.value.as_ref()?;
        if text.contains('\0') {
            self.push(field.problem("the text has a zero byte", "remove it"));
        } else if text.len() > WORD_MAX {
            let message = format!("the text has {} bytes", text.len());
            let help = format!("at most {WORD_MAX}: the kernel takes no more");
            self.push(field.problem(message, help).of(ProblemKind::TooLarge));
        } else if let Some(wrong) = texts.check(text, Context::Argument, &field.as_place()) {
            self.push(wrong);
        }
        field.value.map(|text| text.0)
    }

    pub(super) fn env(
        &mut self,
        field: Field<Entries<Text>>,
        texts: &Texts<'_>,
    ) -> BTreeMap<String, String> {
        self.count(&field, WORDS_MAX, "variables");
        let mut env = BTreeMap::new();
        for (key, value) in entries(field) {
            let Some(name) = &key.value else { continue };
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
            if name.is_empty() || name.len() > 200 || digit_first || !name.chars().all(valid) {
                let message = format!("`{}` is not the name of a variable", shown(name));
                let help = "expected letters, digits and `_`, not beginning with a digit";
                self.push(key.problem(message, help));
            } else if name.starts_with("LOOM_") && name != "LOOM_BUS" {
                let message = format!("`{name}` is reserved");
                self.push(key.problem(message, "variables that begin with LOOM_ are set by Loom"));
            }
            if let Some(text) = self.word(value, texts) {
                env.insert(name.clone(), text);
            }
        }
        env
    }

    /// An absolute path.
    pub(super) fn absolute(&mut self, field: Field<Text>, texts: &Texts<'_>) -> Option<String> {
        let Text(path) = field.value.as_ref()?;
        if !path.starts_with('/') {
            let message = format!("`{}` is not an absolute path", shown(path));
            self.push(field.problem(message, "begin it with `/`"));
        }
        self.word(field, texts)
    }

    pub(super) fn user(&mut self, field: Field<Text>) -> Option<String> {
        let Text(user) = field.value.as_ref()?;
        let valid = |part: &str| {
            let letter = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            (1..=64).contains(&part.len()) && part.chars().all(letter) && !part.starts_with('-')
        };
        let (name, group) = user.split_once(':').unwrap_or((user, "0"));
        if !valid(name) || !valid(group) {
            let message = format!("`{}` is not a user", shown(user));
            let help = "expected `user` or `user:group`, by name or number";
            self.push(field.problem(message, help));
        }
        field.value.map(|user| user.0)
    }
}
