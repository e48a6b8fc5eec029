//! Lowering of what happens around a run: restarts, its end, its limits and its output.

use serde::{Deserialize, Serialize};

use super::field::{Field, Form, Span, Text};
use super::file::{LogsFile, RestartFile, SimFile, StopFile, TimeoutFile, WarnFile};
use super::lower::Lowering;
use super::program::Texts;
use super::reference::{Context, Reference, Template};
use super::{LogSpec, RestartOn, RestartSpec, StopSpec, TimeoutSpec, TimeoutWarning, signals};
use crate::units::{Bytes, Millis};
use crate::words::Kind;

/// What the `sim` driver plays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimScript {
    /// How long a start takes.
    #[serde(default)]
    pub start: Millis,
    /// How long it runs; until stopped if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Millis>,
    /// The exit code after that.
    #[serde(default)]
    pub exit: i32,
    /// The error a start ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_error: Option<String>,
    /// Whether the stop signal is ignored, so that only `SIGKILL` ends it.
    #[serde(default)]
    pub ignore_stop: bool,
    /// Health checks fail until it has run so long.
    #[serde(default)]
    pub healthy_after: Millis,
    /// Health checks fail once it has run so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_after: Option<Millis>,
}

impl Lowering<'_> {
    pub(super) fn restart(
        &mut self,
        field: Field<Form<RestartOn, RestartFile>>,
        kind: Kind,
    ) -> RestartSpec {
        let file = match field.value {
            Some(Form::Full(file)) => file,
            Some(Form::Short(on)) => RestartFile {
                on: Field {
                    value: Some(on),
                    present: true,
                    place: field.place,
                    path: field.path,
                },
                ..RestartFile::default()
            },
            None => RestartFile::default(),
        };
        let (on, window) = match kind {
            Kind::Service | Kind::System => (RestartOn::Any, Some(Millis::secs(300))),
            Kind::Batch => (RestartOn::Failure, None),
        };
        let delay = span(&file.delay).unwrap_or(Millis::secs(1));
        if kind == Kind::Batch && file.on.value == Some(RestartOn::Any) {
            let message = "`any` would do the finished work of a batch again";
            let help = "`failure` tries again what failed; what shall never end is `kind: service`";
            self.push(file.on.problem(message, help));
        }
        // A longer delay alone lengthens the longest with it.
        let max_delay = span(&file.max_delay).unwrap_or(Millis::secs(60).max(delay));
        if max_delay < delay {
            let message = format!("`max_delay` {max_delay} is shorter than the delay of {delay}");
            let help = "raise `max_delay` or lower `delay`";
            self.push(file.max_delay.problem(message, help));
        }
        self.not_zero(&file.window);
        RestartSpec {
            on: file.on.value.unwrap_or(on),
            attempts: self.whole(&file.attempts, 1..=1_000, 3),
            delay,
            max_delay,
            window: span(&file.window).or(window),
        }
    }

    pub(super) fn stop(&mut self, field: Field<StopFile>) -> StopSpec {
        let file = field.value.unwrap_or_default();
        let signal = self.signal(&file.signal);
        if signal.as_deref() == Some("SIGSTOP") {
            let help = "choose a signal that ends the process, such as SIGTERM";
            self.push(file.signal.problem("SIGSTOP only pauses a process", help));
        }
        StopSpec {
            signal: signal.unwrap_or_else(|| "SIGTERM".to_owned()),
            grace: span(&file.grace).unwrap_or(Millis::secs(10)),
        }
    }

    pub(super) fn timeout(&mut self, field: Field<Form<Span, TimeoutFile>>) -> Option<TimeoutSpec> {
        let file = match field.value {
            Some(Form::Short(after)) => TimeoutFile {
                after: Field {
                    value: Some(after),
                    present: true,
                    place: field.place,
                    path: field.path,
                },
                ..TimeoutFile::default()
            },
            Some(Form::Full(file)) => {
                if !file.after.present {
                    let message = "`after` is missing";
                    let place = field.place;
                    let problem = super::Problem::new(message, "add the limit: `after: 10m`");
                    self.push(problem.at(place.line, place.column).on(field.path));
                }
                file
            }
            None => return None,
        };
        self.not_zero(&file.after);
        let after = span(&file.after)?;
        let warn = self.warning(file.warn, after);
        Some(TimeoutSpec { after, warn })
    }

    fn warning(&mut self, field: Field<WarnFile>, after: Millis) -> Option<TimeoutWarning> {
        let place = field.place;
        let file = field.value?;
        for (name, present) in [
            ("signal", file.signal.present),
            ("before", file.before.present),
        ] {
            if !present {
                let help = "a warning is `{signal: SIGUSR1, before: 30s}`";
                let problem = super::Problem::new(format!("`{name}` is missing"), help);
                self.push(problem.at(place.line, place.column).on(field.path.clone()));
            }
        }
        let before = span(&file.before);
        if let Some(before) = before.filter(|before| *before >= after) {
            let message = format!("`before` {before} is not less than the limit of {after}");
            let help = "the warning comes so long before the limit";
            self.push(file.before.problem(message, help));
        }
        self.not_zero(&file.before);
        let signal = self.signal(&file.signal);
        Some(TimeoutWarning {
            signal: signal?,
            before: before?,
        })
    }

    pub(super) fn logs(
        &mut self,
        field: Field<LogsFile>,
        several: bool,
        texts: &Texts<'_>,
    ) -> LogSpec {
        let file = field.value.unwrap_or_default();
        if let (true, Some(Text(path))) = (several, &file.to.value)
            && let Ok(template) = Template::parse(path, Context::Argument)
            && !template
                .references()
                .any(|name| *name == Reference::TaskIndex)
        {
            let help = "put `${task.index}` into the path";
            self.push(
                file.to
                    .problem("the replicas would write to the same file", help),
            );
        }
        LogSpec {
            max_size: self.size(&file.max_size, Bytes(4096)..=Bytes(1 << 40), Bytes::mib(10)),
            keep: self.whole(&file.keep, 1..=1000, 5),
            ship: file.ship.value.unwrap_or(true),
            to: self.absolute(file.to, texts),
        }
    }

    pub(super) fn sim(&mut self, field: Field<SimFile>) -> Option<SimScript> {
        let file = field.value?;
        Some(SimScript {
            start: span(&file.start).unwrap_or_default(),
            run: span(&file.run),
            exit: self.whole(&file.exit, 0..=255, 0),
            start_error: file.start_error.value,
            ignore_stop: file.ignore_stop.value.unwrap_or(false),
            healthy_after: span(&file.healthy_after).unwrap_or_default(),
            unhealthy_after: span(&file.unhealthy_after),
        })
    }

    /// The full name of a signal.
    fn signal(&mut self, field: &Field<String>) -> Option<String> {
        let name = signals::full_name(field.value.as_deref()?);
        name.map_err(|(message, help)| self.push(field.problem(message, help)))
            .ok()
    }

    pub(super) fn not_zero(&mut self, field: &Field<Span>) {
        if span(field) == Some(Millis(0)) {
            self.push(field.problem("`0s` is out of range", "from 1ms"));
        }
    }
}

pub(super) fn span(field: &Field<Span>) -> Option<Millis> {
    field.value.map(|Span(millis)| millis)
}
