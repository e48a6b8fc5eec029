//! A task that is a job: what of a task's fields means nothing to it.

use super::file::TaskFile;
use super::lower::Lowering;

impl Lowering<'_> {
    /// Refuses what only the tasks of the job that it is can say.
    pub(super) fn nothing_beside_job(&mut self, task: &TaskFile) {
        if !task.job.present {
            return;
        }
        macro_rules! refuse {
            ($($field:ident),*) => {$(
                if task.$field.present {
                    let name = stringify!($field);
                    let message = format!("`{name}` means nothing beside `job`");
                    let help = "the tasks of that job say it";
                    let problem = task.$field.problem(message, help);
                    self.push(problem);
                }
            )*};
        }
        refuse!(
            command,
            args,
            per_index,
            gang,
            env,
            workdir,
            user,
            network,
            cpu,
            cpu_limit,
            memory,
            disk,
            disk_rate,
            pids,
            gpus,
            ports,
            constraints,
            affinities,
            spread,
            tolerations,
            restart,
            stop,
            timeout,
            health,
            logs,
            sim
        );
    }
}
