//! What each field of the job language does to what runs. `tests/fields.md` says which test shows
//! which field; `table` keeps that list whole.

mod again;
mod checked;
mod containers;
mod ends;
mod gpus;
mod kept;
mod limits;
mod placed;
mod reserved;
mod started;
mod table;
mod turns;
mod values;
mod waits;

use loom_tests::cluster::Dev;
use loom_tests::wait::until;
use serde_json::Value;

/// The slot of a task in what `status -o json` says of a job; null if there is none.
fn slot(view: &Value, task: &str, index: u32) -> Value {
    let slots = view["slots"].as_array().into_iter().flatten();
    let mut slots =
        slots.filter(|slot| slot["slot"]["task"] == task && slot["slot"]["index"] == index);
    slots.next().cloned().unwrap_or_default()
}

/// The runs of a slot that are kept, oldest first.
fn runs(slot: &Value) -> Vec<Value> {
    let ended = slot["ended"].as_array().cloned().unwrap_or_default();
    let live = ["current", "incoming"].map(|key| slot[key].clone());
    let live = live.into_iter().filter(|run| !run.is_null());
    ended.into_iter().chain(live).collect()
}

/// The newest run of a slot; null if there is none.
fn newest(slot: &Value) -> Value {
    runs(slot).pop().unwrap_or_default()
}

/// The newest run of the only slot of a job's only task.
fn only(dev: &Dev, job: &str) -> Value {
    newest(&slot(&dev.job(job), "main", 0))
}

/// Waits until a job stands as the test wants it, and gives what `status -o json` says then.
fn wait_for(dev: &Dev, job: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{job}: {what}"), || {
        let view = dev.job(job);
        if holds(&view) {
            Ok(view)
        } else {
            Err(view.to_string())
        }
    })
}

/// Waits until this is all that the first replica of a task has written.
fn wait_for_output(dev: &Dev, task: &str, expected: &str) {
    until(&format!("{task} writes {expected:?}"), || {
        let said = dev.ctl(&["logs", &format!("{task}/0")]);
        if said.out == expected {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
}

/// Waits until a command of `loomctl` says something.
fn wait_for_words(dev: &Dev, arguments: &[&str], words: &str) {
    until(&format!("{arguments:?} says {words:?}"), || {
        let said = dev.ctl(arguments);
        if said.out.contains(words) {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
}

/// A time in what `loomctl` says.
fn time(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    text.parse().unwrap()
}

/// Milliseconds from one time to another.
fn millis(from: &Value, to: &Value) -> i64 {
    time(to).as_millisecond() - time(from).as_millisecond()
}

/// The events of a subject so far, without the `orch.events.` before it.
fn events(dev: &Dev, subject: &str) -> Vec<Value> {
    let said = dev.ctl(&["events", subject, "-o", "jsonl"]).expect_code(0);
    let lines = said.out.lines();
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].clone();
    lines.map(event).collect()
}
