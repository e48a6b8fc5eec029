//! What people say of nodes: labels, taints, and that their runs are to leave.
//!
//! All of it is kept with the node's record, so it holds whatever becomes of its agent.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::record::{Drain, NodeRecord, Taint};
use loom_schemas::spec::{check_taint_key, check_taint_value, taint_parts};
use loom_schemas::units::Millis;
use loom_schemas::wire::{DrainRequest, LabelRequest, NodeRequest, TaintRequest};
use loom_schemas::words::TaintEffect;

use super::{Asker, check_reason};
use crate::state::{Draft, State};

/// How long runs have to leave a node where nobody says.
pub const DRAIN_DEADLINE: Duration = Duration::from_hours(1);

/// The most labels, and taints, that people give a node.
const MOST: usize = 64;

/// The runs of a node are to leave it; true if anything changed.
pub fn drain(
    draft: &mut Draft,
    request: &DrainRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    check_reason(request.reason.as_deref())?;
    let old = node(draft.state(), &request.node)?;
    let says = request.no_deadline || request.deadline_ms.is_some() || request.reason.is_some();
    if old.drain.is_some() && !says {
        return Ok(false);
    }
    let within = request
        .deadline_ms
        .map_or(DRAIN_DEADLINE, Duration::from_millis);
    let deadline = now
        .checked_add(within)
        .ok()
        .filter(|_| !request.no_deadline);
    let load = draft.state().load(&request.node);
    let runs = load.map_or(0, |load| load.placements.len());
    let runs = u32::try_from(runs).unwrap_or(u32::MAX);
    let drain = Drain {
        by: asker.user.to_owned(),
        reason: request.reason.clone(),
        at: old.drain.as_ref().map_or(now, |drain| drain.at),
        deadline,
        runs: old.drain.as_ref().map_or(runs, |drain| drain.runs),
        done_at: (runs == 0).then_some(now),
    };
    let why = match (runs, deadline) {
        (0, _) => "no run is on it".to_owned(),
        (_, None) => "its runs leave, however long it takes".to_owned(),
        (_, Some(_)) => format!("its runs leave within {}", Millis(millis(within))),
    };
    let why = match &request.reason {
        Some(reason) => format!("{reason}; {why}"),
        None => why,
    };
    let what = if runs == 0 { "drained" } else { "draining" };
    tell(draft, &request.node, what, why, asker, now);
    draft.put_node(NodeRecord {
        drain: Some(drain),
        ..old
    });
    Ok(true)
}

/// A node takes runs again; true if anything changed.
pub fn undrain(
    draft: &mut Draft,
    request: &NodeRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let reason = request.reason.as_deref();
    check_reason(reason)?;
    let old = node(draft.state(), &request.node)?;
    if old.drain.is_none() {
        return Ok(false);
    }
    let why = reason.unwrap_or("it takes runs again").to_owned();
    tell(draft, &request.node, "undrained", why, asker, now);
    draft.put_node(NodeRecord { drain: None, ..old });
    Ok(true)
}

/// Sets labels of a node and takes such away; true if anything changed.
pub fn label(
    draft: &mut Draft,
    request: &LabelRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let old = node(draft.state(), &request.node)?;
    let mut labels = old.labels.clone();
    for (key, value) in &request.set {
        check_taint_key(key).map_err(|error| WireError::invalid(format!("label {error}")))?;
        check_taint_value(value).map_err(|error| WireError::invalid(format!("{key}: {error}")))?;
        labels.insert(key.clone(), value.clone());
    }
    for key in &request.remove {
        if labels.remove(key).is_none() {
            return Err(no_label(&old, key));
        }
    }
    nothing_asked(request.set.is_empty() && request.remove.is_empty(), "k=v")?;
    at_most(labels.len(), "labels")?;
    if labels == old.labels {
        return Ok(false);
    }
    let set = request
        .set
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let removed = request.remove.iter().map(|key| format!("{key} taken away"));
    let why: Vec<String> = set.chain(removed).collect();
    tell(draft, &request.node, "labelled", why.join(", "), asker, now);
    draft.put_node(NodeRecord { labels, ..old });
    // Its runs refer to labels.
    draft.tell(&request.node);
    Ok(true)
}

fn no_label(node: &NodeRecord, key: &str) -> WireError {
    if node.info.labels.contains_key(key) {
        let message = format!(
            "node {} has the label {key} from its agent: start that without it, or set another \
             value, which stands in place of the agent's",
            node.name
        );
        return WireError::new(ErrorCode::Conflict, message);
    }
    WireError::not_found(format!("node {} has no label {key}", node.name))
}

/// Sets taints of a node and takes such away; true if anything changed.
pub fn taint(
    draft: &mut Draft,
    request: &TaintRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let old = node(draft.state(), &request.node)?;
    let mut taints: BTreeMap<(String, TaintEffect), Taint> = BTreeMap::new();
    for taint in &old.taints {
        taints.insert((taint.key.clone(), taint.effect), taint.clone());
    }
    let mut set = Vec::new();
    for text in &request.set {
        let taint = read_taint(text, request.after_ms, asker.user, now)?;
        let key = (taint.key.clone(), taint.effect);
        let before = taints.get(&key);
        let same = |old: &Taint| (&old.value, old.after) == (&taint.value, taint.after);
        if !before.is_some_and(same) {
            set.push(taint.to_string());
            taints.insert(key, taint);
        }
    }
    let mut removed = Vec::new();
    for text in &request.remove {
        let (key, _, effect) = taint_parts(text);
        let effect = effect.map(|effect| effect_of(text, effect)).transpose()?;
        let is_it = |taint: &Taint| taint.key == key && effect.is_none_or(|e| e == taint.effect);
        let before = taints.len();
        taints.retain(|_, taint| !is_it(taint));
        if taints.len() == before {
            let message = format!("node {} has no taint {text}", request.node);
            return Err(WireError::not_found(message));
        }
        removed.push(format!("{text} taken away"));
    }
    let evicts = |taint: &Taint| taint.effect == TaintEffect::Evict;
    if request.after_ms.is_some() && !taints.values().any(evicts) {
        return Err(WireError::invalid("a time is only for the effect `evict`"));
    }
    nothing_asked(
        request.set.is_empty() && request.remove.is_empty(),
        "key:effect",
    )?;
    at_most(taints.len(), "taints")?;
    if set.is_empty() && removed.is_empty() {
        return Ok(false);
    }
    set.extend(removed);
    tell(draft, &request.node, "tainted", set.join(", "), asker, now);
    let taints = taints.into_values().collect();
    draft.put_node(NodeRecord { taints, ..old });
    Ok(true)
}

fn read_taint(
    text: &str,
    after_ms: Option<u64>,
    by: &str,
    now: Timestamp,
) -> Result<Taint, WireError> {
    let (key, value, effect) = taint_parts(text);
    let wrong = |error: String| WireError::invalid(format!("taint {text}: {error}"));
    check_taint_key(key).map_err(|error| wrong(error.to_string()))?;
    if let Some(value) = value {
        check_taint_value(value).map_err(|error| wrong(error.to_string()))?;
    }
    let Some(effect) = effect else {
        let help = format!("write {text}:no-schedule, {text}:prefer-not or {text}:evict");
        return Err(wrong(format!("it has no effect; {help}")));
    };
    let effect = effect_of(text, effect)?;
    let after = after_ms.filter(|_| effect == TaintEffect::Evict);
    Ok(Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect,
        after: Millis(after.unwrap_or_default()),
        by: by.to_owned(),
        at: now,
    })
}

fn effect_of(text: &str, effect: &str) -> Result<TaintEffect, WireError> {
    let wrong = |help: String| {
        WireError::invalid(format!("taint {text}: unknown effect `{effect}`; {help}"))
    };
    effect.parse().map_err(wrong)
}

fn node(state: &State, name: &Name) -> Result<NodeRecord, WireError> {
    let node = state.node(name).map(|node| NodeRecord::clone(node));
    node.ok_or_else(|| WireError::not_found(format!("no node {name}")))
}

fn nothing_asked(nothing: bool, form: &str) -> Result<(), WireError> {
    if nothing {
        return Err(WireError::invalid(format!(
            "nothing is asked for: write {form}, or {form}-"
        )));
    }
    Ok(())
}

fn at_most(count: usize, what: &str) -> Result<(), WireError> {
    if count > MOST {
        return Err(WireError::invalid(format!(
            "{count} {what} of a node; at most {MOST}"
        )));
    }
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn tell(draft: &mut Draft, node: &Name, what: &str, why: String, asker: Asker<'_>, now: Timestamp) {
    let mut event = Event::new(now, About::Node { node: node.clone() }, what);
    event.reason = Some(why);
    event.by = Some(asker.user.to_owned());
    event.request = asker.request.map(str::to_owned);
    draft.event(event);
}
