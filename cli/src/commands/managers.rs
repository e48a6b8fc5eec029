//! `loomctl manager ls`.

use std::time::Duration;

use loom_bus::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::subject;
use loom_schemas::wire::{ManagerRole, ManagerView};

use crate::cli::Global;
use crate::client::refused;
use crate::exit::Failure;
use crate::output::{self, table};

/// List the managers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl manager ls")]
pub(crate) struct ManagerLs {}

impl ManagerLs {
    /// Asks all of them at once.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        let bus = global.bus.connect().await?;
        let managers = managers(&bus).await?;
        output::list(
            global.output,
            &managers,
            |manager| manager.name.to_string(),
            |wide| render(&managers, wide),
        )
    }
}

/// Every manager that answers within half a second of the last answer.
pub(crate) async fn managers(bus: &loom_bus::Bus) -> Result<Vec<ManagerView>, Failure> {
    let limit = Duration::from_secs(5);
    let subject = subject::api("manager", "list");
    let mut replies = bus
        .call_many::<(), ManagerView>(&subject, &(), limit)
        .await
        .map_err(refused)?;
    let mut managers: Vec<ManagerView> = Vec::new();
    let mut quiet = limit;
    while let Ok(Some(reply)) = tokio::time::timeout(quiet, replies.next()).await {
        match reply {
            Ok(manager) => managers.push(manager),
            Err(CallError::Refused(error)) if error.code == ErrorCode::Denied => {
                return Err(error.into());
            }
            // One that is starting does not know yet what it is.
            Err(CallError::Refused(_)) => {}
            Err(error) => return Err(refused(error)),
        }
        quiet = Duration::from_millis(500);
    }
    managers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(managers)
}

fn render(managers: &[ManagerView], wide: bool) -> String {
    let heads: &[&str] = if wide {
        &[
            "manager",
            "role",
            "revision",
            "version",
            "leader",
            "state hash",
        ]
    } else {
        &["manager", "role", "revision", "version"]
    };
    let mut table = table::new(heads);
    for manager in managers {
        let role = match manager.role {
            ManagerRole::Leader => "leader",
            ManagerRole::Standby => "standby",
            ManagerRole::Recovering => "recovering",
            ManagerRole::Unknown => "unknown",
        };
        let mut cells = vec![
            manager.name.to_string(),
            role.to_owned(),
            manager.revision.sequence.to_string(),
            manager.agent.clone(),
        ];
        if wide {
            cells.push(
                manager
                    .leader
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
            );
            cells.push(manager.state_hash.clone());
        }
        table.add_row(cells);
    }
    table::render(table)
}
