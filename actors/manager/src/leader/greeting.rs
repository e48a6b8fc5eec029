//! Hellos that come in parts: what was told so far, for as long as this manager leads.
//!
//! The runs of each part are decided on by themselves; only what is missing shows at the end. A
//! leader that did not hear the beginning refuses the rest, and the node begins anew.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::wire::HelloPart;

/// The most placements one node may tell of.
const PLACEMENTS_MAX: usize = 1_000_000;

/// Hellos under way, one a node.
#[derive(Debug, Default)]
pub(crate) struct Greetings(BTreeMap<Name, Greeting>);

#[derive(Debug)]
struct Greeting {
    id: u64,
    next: u32,
    told: Told,
}

/// What all parts of a hello told together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The placements that the node has.
    pub(crate) placements: BTreeSet<RunId>,
    /// Whether any part told of tasks that the state knew nothing of.
    pub(crate) more: bool,
}

impl Greetings {
    /// Notes a part, and whether it tells of more than the state knows. All that was told after the
    /// last one, none after any other; an error if it does not follow what came before.
    pub(crate) fn take(
        &mut self,
        node: &Name,
        part: &HelloPart,
        more: bool,
    ) -> Result<Option<Told>, WireError> {
        let former = self.0.remove(node);
        let mut greeting = match former {
            _ if part.part == 0 => Greeting {
                id: part.greeting,
                next: 0,
                told: Told::default(),
            },
            Some(former) if (former.id, former.next) == (part.greeting, part.part) => former,
            _ => {
                let message = "this leader did not hear the parts before: say hello anew";
                return Err(WireError::unavailable(message));
            }
        };
        let told = &mut greeting.told;
        let runs = part.hello.runs.iter();
        told.placements.extend(runs.map(|run| run.placement));
        told.more |= more;
        if told.placements.len() > PLACEMENTS_MAX {
            let message = format!("a hello of more than {PLACEMENTS_MAX} placements");
            return Err(WireError::new(ErrorCode::TooLarge, message));
        }
        if part.last {
            return Ok(Some(greeting.told));
        }
        greeting.next += 1;
        self.0.insert(node.clone(), greeting);
        Ok(None)
    }

    /// The node says nothing any more, or everything anew.
    pub(crate) fn forget(&mut self, node: &Name) {
        self.0.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use loom_schemas::words::RunState;

    use super::*;
    use crate::state::fixture::{hello_of, info, name, report_of, run_id};

    fn part(greeting: u64, number: u32, last: bool) -> HelloPart {
        let slot = loom_schemas::ids::Slot::new(name("web"), Name::main(), number);
        let run = report_of(&slot, run_id(u64::from(number)), RunState::Running);
        HelloPart {
            greeting,
            part: number,
            last,
            hello: hello_of(info(4, 8), vec![run]),
        }
    }

    #[test]
    fn the_last_part_has_all_that_was_told() {
        let (mut greetings, node) = (Greetings::default(), name("n1"));
        assert_eq!(greetings.take(&node, &part(7, 0, false), false), Ok(None));
        assert_eq!(greetings.take(&node, &part(7, 1, false), true), Ok(None));
        let told = greetings.take(&node, &part(7, 2, true), false);
        let told = told.unwrap().unwrap();
        assert_eq!(told.placements, [run_id(0), run_id(1), run_id(2)].into());
        assert!(told.more);
        assert!(greetings.take(&node, &part(7, 3, true), false).is_err());
    }

    #[test]
    fn what_does_not_follow_is_refused_until_it_begins_anew() {
        let (mut greetings, node) = (Greetings::default(), name("n1"));
        // A leader that took over half-way.
        assert!(greetings.take(&node, &part(7, 1, true), false).is_err());
        greetings.take(&node, &part(7, 0, false), false).unwrap();
        assert!(greetings.take(&node, &part(8, 1, true), false).is_err());
        assert!(greetings.take(&node, &part(7, 1, true), false).is_err());
        // An answer that was lost: the node began anew, with what it has by then.
        greetings.take(&node, &part(7, 0, false), true).unwrap();
        greetings.take(&node, &part(9, 0, false), false).unwrap();
        let told = greetings.take(&node, &part(9, 1, true), false).unwrap();
        assert!(!told.unwrap().more);
        greetings.take(&node, &part(9, 0, false), false).unwrap();
        greetings.forget(&node);
        assert!(greetings.take(&node, &part(9, 1, true), false).is_err());
    }
}
