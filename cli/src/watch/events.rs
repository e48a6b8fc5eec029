//! Events: the history, and what happens.

use std::collections::{BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use loom_bus::{Bus, Message};
use loom_schemas::subject;
use loom_schemas::wire::{EventList, EventQuery, EventRow};

use super::live::{Heard, Live};
use crate::client;
use crate::exit::{Code, Failure};
use crate::output::note;

/// Events of commands have no number; those of so long before the last one are read again, so that
/// clocks of nodes may differ by as much.
const COMMANDS_AGAIN: SignedDuration = SignedDuration::from_mins(2);

/// How many of them are known again.
const COMMANDS_KNOWN: usize = 10_000;

/// Reads the history: at most `limit` events, the newest.
pub(crate) async fn history(
    bus: &Bus,
    filter: Option<&str>,
    since: Option<Timestamp>,
    limit: u32,
) -> Result<EventList, Failure> {
    let query = EventQuery {
        filter: filter.map(str::to_owned),
        since,
        limit: Some(limit),
        after: None,
    };
    client::ask(bus, &subject::api("event", "list"), &query).await
}

/// What was seen of the events.
#[derive(Debug, Default)]
struct Seen {
    /// The greatest number.
    number: u64,
    /// Events without a number, by time and subject, with what they say.
    commands: BTreeSet<(Timestamp, String, String)>,
}

impl Seen {
    /// Those of an answer that are new. All up to where it was read to is seen then, also what its
    /// filter or its limit left out.
    fn take_list(&mut self, list: EventList) -> Vec<EventRow> {
        let rows = self.take_all(list.events);
        self.number = self.number.max(list.last);
        rows
    }

    /// Those of the history that are new; they are in the order of time, not of their numbers.
    fn take_all(&mut self, rows: Vec<EventRow>) -> Vec<EventRow> {
        let before = self.number;
        let is_new = |row: &EventRow| match row.number {
            0 => self.take_command(row),
            number => {
                self.number = self.number.max(number);
                number > before
            }
        };
        rows.into_iter().filter(is_new).collect()
    }

    /// Whether an event that was heard is new, which it is not a second time.
    fn take(&mut self, row: &EventRow) -> bool {
        if row.number == 0 {
            return self.take_command(row);
        }
        let is_new = row.number > self.number;
        self.number = self.number.max(row.number);
        is_new
    }

    fn take_command(&mut self, row: &EventRow) -> bool {
        let said = serde_json::to_string(&row.event).unwrap_or_default();
        let is_new = self
            .commands
            .insert((row.event.at, row.subject.clone(), said));
        if self.commands.len() > COMMANDS_KNOWN {
            self.commands.pop_first();
        }
        is_new
    }

    /// Since when events of commands are read again.
    fn commands_since(&self) -> Option<Timestamp> {
        let (at, ..) = self.commands.last()?;
        at.checked_sub(COMMANDS_AGAIN).ok()
    }
}

/// Events as they happen, each once and none left out.
pub(crate) struct Follow {
    bus: Bus,
    filter: Option<String>,
    since: Option<Timestamp>,
    /// When the oldest event happened that was shown, or when it began to listen.
    from: Timestamp,
    live: Live,
    seen: Seen,
    /// Events of the history that come first.
    behind: VecDeque<EventRow>,
    is_behind: bool,
}

impl Follow {
    /// Listens from now on; the history up to now, since a time, is for the caller to read.
    pub(crate) async fn open(
        bus: &Bus,
        filter: Option<&str>,
        since: Option<Timestamp>,
    ) -> Result<Self, Failure> {
        let from = Timestamp::now();
        let pattern = format!("orch.events.{}", filter.unwrap_or(">"));
        Ok(Self {
            bus: bus.clone(),
            filter: filter.map(str::to_owned),
            since,
            from,
            live: Live::open(bus, &[pattern]).await?,
            seen: Seen::default(),
            behind: VecDeque::new(),
            is_behind: false,
        })
    }

    /// Takes note of the history; what of it is new.
    pub(crate) fn take(&mut self, list: EventList) -> Vec<EventRow> {
        let rows = self.seen.take_list(list);
        let first = rows.iter().map(|row| row.event.at).min();
        self.from = first.map_or(self.from, |first| first.min(self.from));
        rows
    }

    /// The next event. Cancelling loses none.
    pub(crate) async fn next(&mut self) -> Result<EventRow, Failure> {
        loop {
            if let Some(row) = self.behind.pop_front() {
                return Ok(row);
            }
            if self.is_behind {
                self.catch_up().await?;
                continue;
            }
            match self.live.next().await? {
                Heard::Missed => self.is_behind = true,
                Heard::Message(message) => {
                    if let Some(row) = row_of(&message)
                        && self.seen.take(&row)
                    {
                        return Ok(row);
                    }
                }
            }
        }
    }

    /// Reads a page of what was not heard.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        let numbered = EventQuery {
            filter: self.filter.clone(),
            after: Some(self.seen.number),
            since: self.since,
            limit: None,
        };
        let commands = EventQuery {
            filter: self.filter.clone(),
            after: None,
            since: self.seen.commands_since().max(Some(self.from)),
            limit: None,
        };
        let found = async {
            let subject = subject::api("event", "list");
            let numbered: EventList = client::ask(&self.bus, &subject, &numbered).await?;
            let mut commands: EventList = client::ask(&self.bus, &subject, &commands).await?;
            commands.events.retain(|row| row.number == 0);
            Ok::<_, Failure>((numbered, commands.events))
        };
        match found.await {
            Ok((numbered, commands)) => {
                self.is_behind = numbered.more;
                let mut rows = self.seen.take_list(numbered);
                rows.extend(self.seen.take_all(commands));
                rows.sort_by_key(|row| row.event.at);
                self.behind.extend(rows);
            }
            Err(failure) if failure.code == Code::NoAnswer => {
                note(
                    "loomctl: no manager answers: what happened while the bus was away may be \
                     missing here",
                );
                self.is_behind = false;
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// A live event with the number it has in the history; 0 for those of the nodes, which have none.
fn row_of(message: &Message) -> Option<EventRow> {
    let number = message
        .headers
        .get("Orch-Event")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let event = serde_json::from_slice(&message.payload).ok()?;
    Some(EventRow {
        number,
        subject: message.subject.clone(),
        event,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, at: i64, verb: &str) -> EventRow {
        let body = serde_json::json!({
            "at": Timestamp::from_second(at).unwrap(), "verb": verb,
        });
        EventRow {
            number,
            subject: "orch.events.command.web.main.0".to_owned(),
            event: serde_json::from_value(body).unwrap(),
        }
    }

    #[test]
    fn the_history_may_be_out_of_order() {
        let mut seen = Seen::default();
        let rows = vec![row(2, 1, ""), row(1, 2, ""), row(3, 3, "")];
        assert_eq!(seen.take_all(rows.clone()).len(), 3);
        assert!(seen.take_all(rows).is_empty());
    }

    #[test]
    fn a_history_without_numbers_is_not_read_again_from_the_first() {
        let mut seen = Seen::default();
        let list = EventList {
            events: vec![row(0, 1, "signal"), row(0, 2, "pause")],
            more: true,
            last: 41,
        };
        assert_eq!(seen.take_list(list).len(), 2);
        assert!(!seen.take(&row(41, 3, "")));
        assert!(seen.take(&row(42, 3, "")));
    }

    #[test]
    fn an_event_is_new_once() {
        let mut seen = Seen::default();
        assert!(seen.take(&row(7, 1, "")));
        assert!(!seen.take(&row(7, 1, "")));
        assert!(!seen.take(&row(6, 1, "")));
        assert!(seen.take(&row(8, 1, "")));
        assert!(seen.take(&row(0, 100, "signal")));
        assert!(!seen.take(&row(0, 100, "signal")));
        assert!(seen.take(&row(0, 100, "pause")));
        let since = seen.commands_since().unwrap();
        assert!(since < Timestamp::from_second(100).unwrap());
    }
}
