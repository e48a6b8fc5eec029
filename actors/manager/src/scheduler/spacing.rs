//! Replicas that have to be apart: which seats the others take from one more.

use std::collections::HashMap;

use loom_schemas::ids::Name;
use loom_schemas::spec::Attribute;

use super::floor::Floor;
use super::request::{Apart, Request};
use super::siblings::Siblings;
use super::why::Cause;

/// What the replicas of a task take from one more of them, beside room.
#[derive(Debug, Default)]
pub(super) struct Spacing(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    apart: Apart,
    /// How many of the others are in each seat.
    seats: HashMap<usize, u32>,
    /// How many of them have each value of the attribute.
    values: HashMap<String, u32>,
}

impl Spacing {
    /// What the others take; the slot's own run on `own` is none of them.
    pub(super) fn of(
        request: &Request,
        siblings: Option<&Siblings>,
        own: Option<&Name>,
        floor: &Floor,
    ) -> Self {
        if request.apart.is_empty() {
            return Self::default();
        }
        let own = own.and_then(|own| floor.find(own));
        let seats = siblings.map(|all| all.others(own)).unwrap_or_default();
        let rule = |apart: &Apart| {
            let mut values: HashMap<String, u32> = HashMap::new();
            if let Apart::Property(attribute, _) = apart {
                for (seat, count) in &seats {
                    if let Some(value) = value(floor, *seat, attribute) {
                        *values.entry(value).or_default() += count;
                    }
                }
            }
            Rule {
                apart: apart.clone(),
                seats: seats.clone(),
                values,
            }
        };
        Self(request.apart.iter().map(rule).collect())
    }

    /// Whether nothing has to be apart.
    pub(super) fn is_free(&self) -> bool {
        self.0.is_empty()
    }

    /// Why one more replica may not go to a seat; none if it may.
    pub(super) fn refuses(&self, floor: &Floor, seat: usize) -> Option<Cause> {
        let taken = |rule: &&Rule| match &rule.apart {
            Apart::Hosts => rule.seats.contains_key(&seat),
            Apart::Property(attribute, most) => value(floor, seat, attribute)
                .is_none_or(|value| rule.values.get(&value).is_some_and(|count| count >= most)),
        };
        self.0.iter().find(taken).map(|rule| rule.apart.cause())
    }
}

fn value(floor: &Floor, seat: usize, attribute: &Attribute) -> Option<String> {
    floor.room(seat).attributes.text(attribute)
}
