//! What a job and its tasks wait for, drawn as trees with how each stands.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::ids::Name;
use loom_schemas::spec::DependsOn;
use loom_schemas::wire::{JobDependency, Standing, TaskStanding, UpstreamJob};

use super::table;
use super::tree::{self, Node};

/// The jobs that a job waits for, each with those below that it waits for itself; nothing if there
/// are none. What stands above already is not drawn out again.
pub(crate) fn jobs(depends_on: &[JobDependency], upstream: &[UpstreamJob]) -> String {
    if depends_on.is_empty() {
        return String::new();
    }
    let upstream: BTreeMap<&Name, &UpstreamJob> =
        upstream.iter().map(|other| (&other.job, other)).collect();
    let rows = rows(depends_on, &upstream);
    let ids: Vec<String> = (0..rows.len()).map(|row| row.to_string()).collect();
    let nodes = rows.iter().zip(&ids).map(|(row, id)| Node {
        name: id,
        after: row.below.iter().map(|above| ids[*above].as_str()).collect(),
    });
    let nodes: Vec<Node<'_>> = nodes.collect();
    let mut table = table::new(&["depends on", "until", "state", "reason"]);
    for line in tree::draw(&nodes) {
        let row = &rows[line.node];
        let DependsOn { job, task, on } = &row.of.dependency;
        let name = match task {
            Some(task) => format!("{job}/{task}"),
            None => job.to_string(),
        };
        let said = row.of.reason.as_deref().into_iter().chain(row.note);
        table.add_row([
            format!("{}{name}", line.lead),
            on.as_str().to_owned(),
            table::standing(row.of.standing),
            said.collect::<Vec<_>>().join("; "),
        ]);
    }
    format!("\n{}", table::render(table))
}

/// A job that another waits for.
struct Row<'a> {
    of: &'a JobDependency,
    /// The row of who waits for it; none for the job that is shown.
    below: Option<usize>,
    /// Why what it waits for itself does not follow.
    note: Option<&'static str>,
}

fn rows<'a>(
    depends_on: &'a [JobDependency],
    upstream: &BTreeMap<&Name, &'a UpstreamJob>,
) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut drawn_out: BTreeSet<&Name> = BTreeSet::new();
    // The last is next, so that a job is drawn out where it stands first from the top.
    let mut left: Vec<(&'a JobDependency, Option<usize>)> =
        depends_on.iter().rev().map(|of| (of, None)).collect();
    while let Some((of, below)) = left.pop() {
        let at = rows.len();
        let further = upstream.get(&of.dependency.job);
        let note = match further {
            Some(further) if further.cut => Some("waits for more jobs than are shown"),
            Some(further) if drawn_out.insert(&further.job) => {
                left.extend(further.depends_on.iter().rev().map(|of| (of, Some(at))));
                None
            }
            Some(_) => Some("see above"),
            None => None,
        };
        rows.push(Row { of, below, note });
    }
    rows
}

/// The tasks of a job, each below the one it waits for; nothing if none waits for another.
pub(crate) fn tasks(graph: &[TaskStanding]) -> String {
    if graph.is_empty() {
        return String::new();
    }
    let nodes = graph.iter().map(|task| Node {
        name: task.task.as_str(),
        after: task.after.iter().map(|after| after.task.as_str()).collect(),
    });
    let nodes: Vec<Node<'_>> = nodes.collect();
    let mut table = table::new(&["task", "state", "reason"]);
    for line in tree::draw(&nodes) {
        let task = &graph[line.node];
        let mut words: Vec<String> = task.reason.iter().cloned().collect();
        if !line.also.is_empty() && task.standing != Standing::Waiting {
            words.push(format!("also after {}", line.also.join(", ")));
        }
        let drawn = format!("{}{}", line.lead, task.task);
        table.add_row([drawn, table::standing(task.standing), words.join("; ")]);
    }
    format!("\n{}", table::render(table))
}

#[cfg(test)]
mod tests {
    use loom_schemas::spec::DependOn;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn on(job: &str, on: DependOn, standing: Standing, reason: &str) -> JobDependency {
        JobDependency {
            dependency: DependsOn {
                job: name(job),
                task: None,
                on,
            },
            standing,
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        }
    }

    fn plain(text: &str) -> Vec<String> {
        let text = anstream::adapter::strip_str(text).to_string();
        let lines = text.lines().skip(1);
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn the_jobs_further_up_stand_below_those_that_wait_for_them_each_drawn_out_once() {
        let db = || on("db", DependOn::Healthy, Standing::Running, "");
        let upstream = [
            UpstreamJob {
                job: name("migrate"),
                depends_on: vec![db()],
                cut: false,
            },
            UpstreamJob {
                job: name("db"),
                depends_on: vec![on("disk", DependOn::Completed, Standing::Completed, "")],
                cut: false,
            },
            UpstreamJob {
                job: name("cache"),
                depends_on: Vec::new(),
                cut: true,
            },
        ];
        let waits = on(
            "migrate",
            DependOn::Completed,
            Standing::Waiting,
            "waiting for job db to be healthy",
        );
        let cache = on("cache", DependOn::Running, Standing::Pending, "");
        let drawn = plain(&jobs(&[waits, db(), cache], &upstream));
        let expected = [
            "DEPENDS ON  UNTIL      STATE      REASON",
            "migrate     completed  waiting    waiting for job db to be healthy",
            "└─ db       healthy    running",
            "   └─ disk  completed  completed",
            "db          healthy    running    see above",
            "cache       running    pending    waits for more jobs than are shown",
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn nothing_is_drawn_of_a_job_that_waits_for_nobody() {
        assert_eq!(jobs(&[], &[]), "");
        assert_eq!(tasks(&[]), "");
    }
}
