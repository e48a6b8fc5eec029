//! Lowering of health checks.

use std::collections::BTreeMap;

use super::field::{Field, Span, Text};
use super::file::HealthFile;
use super::lower::Lowering;
use super::policy::span;
use super::problem::{Problem, shown};
use super::program::Texts;
use super::{HealthCheck, HealthSpec, PortSpec, Protocol};
use crate::ids::Name;
use crate::units::Millis;

const CHECKS: &str = "http, tcp, exec";

/// A node that checks a thousand tasks more often does little else.
const INTERVAL_MIN: Millis = Millis(100);
const INTERVAL_MAX: Millis = Millis::secs(24 * 3600);

type Ports = BTreeMap<Name, PortSpec>;

impl Lowering<'_> {
    /// The health check of a task with these ports.
    pub(super) fn health(
        &mut self,
        field: Field<HealthFile>,
        ports: &Ports,
        texts: &Texts<'_>,
    ) -> Option<HealthSpec> {
        let whole = Field {
            value: Some(()),
            present: field.present,
            place: field.place,
            path: field.path,
        };
        let file = field.value?;
        self.one_check(&whole, &file);
        let interval = self.bounded(&file.interval, INTERVAL_MIN..=INTERVAL_MAX);
        let interval = interval.unwrap_or(Millis::secs(10));
        let timeout = self.bounded(&file.timeout, Millis(1)..=Millis::secs(3600));
        let start_period = self.bounded(&file.start_period, Millis(0)..=INTERVAL_MAX);
        let retries = self.whole(&file.retries, 1..=1000, 3);
        let check = if file.http.present {
            self.http(file.http, &file.port, &whole, ports, texts)
        } else if file.tcp.present {
            let port = self.checked_port(&file.tcp, ports);
            port.map(|port| HealthCheck::Tcp { port })
        } else {
            Some(HealthCheck::Exec(self.words(file.exec, texts, true)))
        };
        Some(HealthSpec {
            check: check?,
            interval,
            timeout: timeout.unwrap_or(Millis::secs(2)),
            retries,
            // A short interval is no promise of a quick start.
            start_period: start_period.unwrap_or(interval.max(Millis::secs(10))),
        })
    }

    /// Exactly one of the three, and `port` only where it says something.
    fn one_check(&mut self, whole: &Field<()>, file: &HealthFile) {
        let mut chosen = [
            ("http", file.http.present, file.http.place, &file.http.path),
            ("tcp", file.tcp.present, file.tcp.place, &file.tcp.path),
            ("exec", file.exec.present, file.exec.place, &file.exec.path),
        ];
        chosen.sort_by_key(|(_, present, place, _)| (!present, place.line, place.column));
        match chosen {
            [(_, false, ..), ..] => {
                let help = format!("add one of {CHECKS}");
                self.push(whole.problem("nothing says what is checked", help));
            }
            [(first, ..), (second, true, place, path), _] => {
                let message = format!("`{second}` stands beside `{first}`");
                let help = format!("a health check has exactly one of {CHECKS}");
                let problem = Problem::new(message, help).at(place.line, place.column);
                self.push(problem.on(path.clone()));
            }
            _ => {}
        }
        if file.port.present && !file.http.present {
            let message = "`port` says which port `http` asks, and there is no `http`";
            let help = if file.tcp.present {
                "`tcp` itself names the port"
            } else {
                "remove it"
            };
            self.push(file.port.problem(message, help));
        }
    }

    fn http(
        &mut self,
        path: Field<Text>,
        port: &Field<Name>,
        whole: &Field<()>,
        ports: &Ports,
        texts: &Texts<'_>,
    ) -> Option<HealthCheck> {
        if let Some(Text(text)) = &path.value
            && let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#')
        {
            let message = format!("`{}` cannot stand in a path", shown(&wrong.to_string()));
            self.push(path.problem(message, "write it as %XX"));
        }
        let port = if port.present {
            self.checked_port(port, ports)
        } else {
            self.only_port(whole, ports)
        };
        let path = self.absolute(path, texts);
        Some(HealthCheck::Http {
            path: path?,
            port: port?,
        })
    }

    fn only_port(&mut self, whole: &Field<()>, ports: &Ports) -> Option<Name> {
        let mut tcp = ports
            .iter()
            .filter(|(_, port)| port.protocol == Protocol::Tcp);
        match (tcp.next(), tcp.next()) {
            (Some((name, _)), None) => return Some(name.clone()),
            (None, _) => {
                let help = "give the task a port: `ports: {http: 80}`";
                self.push(whole.problem("the task has no tcp port to ask", help));
            }
            (Some((first, _)), Some(_)) => {
                let help = format!("say which: `port: {first}`");
                self.push(whole.problem("the task has several ports", help));
            }
        }
        None
    }

    fn checked_port(&mut self, field: &Field<Name>, ports: &Ports) -> Option<Name> {
        let name = field.value.as_ref()?;
        match ports.get(name) {
            Some(port) if port.protocol == Protocol::Tcp => return Some(name.clone()),
            Some(_) => {
                let message = format!("`{name}` is a udp port");
                self.push(field.problem(message, "a health check connects with tcp"));
            }
            None => {
                let message = format!("`{name}` is not a port of the task");
                let names: Vec<&str> = ports.keys().map(Name::as_str).collect();
                let help = match names.as_slice() {
                    [] => format!("add it: `ports: {{{name}: {{}}}}`"),
                    names => format!("its ports: {}", names.join(", ")),
                };
                self.push(field.problem(message, help));
            }
        }
        None
    }

    fn bounded(
        &mut self,
        field: &Field<Span>,
        bounds: std::ops::RangeInclusive<Millis>,
    ) -> Option<Millis> {
        let value = span(field)?;
        if !bounds.contains(&value) {
            let help = format!("from {} to {}", bounds.start(), bounds.end());
            self.push(field.problem(format!("`{value}` is out of range"), help));
        }
        Some(value)
    }
}
