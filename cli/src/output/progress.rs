//! Live progress of a job: a line a slot in a terminal, a line a change elsewhere.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loom_schemas::ids::Slot;
use loom_schemas::record::SlotRecord;
use loom_schemas::wire::JobView;
use loom_schemas::words::{HealthStatus, RunState};

use crate::output;

/// More slots than this are counted, not listed.
const LINES: usize = 12;

/// What is shown of a job while it is followed.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    lines: BTreeMap<Slot, ProgressBar>,
    summary: Option<ProgressBar>,
    shown: BTreeMap<Slot, String>,
    last_line: String,
}

impl Progress {
    /// A live one where standard error is a terminal and people read.
    pub(crate) fn new(for_people: bool) -> Self {
        let live = for_people && console_is_terminal();
        Self {
            bars: live.then(MultiProgress::new),
            lines: BTreeMap::new(),
            summary: None,
            shown: BTreeMap::new(),
            last_line: String::new(),
        }
    }

    /// Shows how the job stands now.
    pub(crate) fn show(&mut self, view: &JobView) {
        if view.slots.len() > LINES {
            self.show_count(view);
            return;
        }
        for slot in &view.slots {
            let text = line(slot, view.summary.job.version);
            if self.shown.get(&slot.slot) == Some(&text) {
                continue;
            }
            match &self.bars {
                Some(bars) => {
                    let bar = self.lines.entry(slot.slot.clone()).or_insert_with(|| {
                        let bar = bars.add(ProgressBar::new_spinner());
                        bar.set_style(style());
                        bar.enable_steady_tick(std::time::Duration::from_millis(100));
                        bar
                    });
                    bar.set_message(text.clone());
                }
                None => output::note(&text),
            }
            self.shown.insert(slot.slot.clone(), text);
        }
    }

    fn show_count(&mut self, view: &JobView) {
        let summary = &view.summary;
        let healthy = summary
            .healthy
            .map(|healthy| format!("{healthy} healthy, "));
        let text = format!(
            "{}: {} running, {}{} completed, {} waiting of {}",
            summary.job.name,
            summary.running,
            healthy.unwrap_or_default(),
            summary.completed,
            summary.waiting,
            summary.wanted
        );
        if let Some(bars) = &self.bars {
            let bar = self.summary.get_or_insert_with(|| {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(style());
                bar
            });
            bar.set_message(text);
        } else {
            self.line(&text);
        }
    }

    /// A line of its own, once.
    pub(crate) fn line(&mut self, text: &str) {
        if self.last_line == text {
            return;
        }
        text.clone_into(&mut self.last_line);
        match &self.bars {
            Some(bars) => {
                // A terminal that is gone shows nothing.
                let _ = bars.println(text);
            }
            None => output::note(text),
        }
    }

    /// Leaves the last state standing.
    pub(crate) fn finish(&mut self) {
        for bar in self.lines.values().chain(self.summary.iter()) {
            bar.abandon();
        }
    }
}

fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `  web/0  running on node-1`.
fn line(slot: &SlotRecord, version: u32) -> String {
    let name = slot.slot.to_string();
    if let Some(waiting) = &slot.waiting {
        return format!("  {name:<20} waiting: {waiting}");
    }
    let Some(run) = slot.current.as_ref().or(slot.ended.last()) else {
        return format!("  {name:<20} pending");
    };
    let mut text = format!("  {name:<20} {}", run.state);
    if let Some(node) = &run.node
        && !run.state.is_terminal()
    {
        text = format!("{text} on {node}");
    }
    if run.version != version {
        text = format!("{text}, still version {}", run.version);
    }
    if let (RunState::Failed, Some(code)) =
        (run.state, run.exit.as_ref().and_then(|exit| exit.code))
    {
        text = format!("{text} with exit code {code}");
    }
    if let Some(health) = &run.health {
        text = match health.status {
            HealthStatus::Pending => format!("{text}, not healthy yet"),
            status => format!("{text}, {status}"),
        };
    }
    if let Some(pending) = run.resizing() {
        return format!("{text}, {}", pending.standing());
    }
    let unhealthy = run
        .health
        .as_ref()
        .and_then(|health| health.reason.as_ref());
    if let Some(reason) = unhealthy.or(run.reason.as_ref()) {
        text = format!("{text} ({reason})");
    }
    text
}
