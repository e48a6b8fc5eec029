//! Where the nats-server program is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServerError;
use crate::connection::FLOOR;
use crate::facts::parse_version;

/// The environment variable that names the program.
const VARIABLE: &str = "LOOM_NATS_SERVER";

const PROGRAM: &str = "nats-server";

/// Finds the program: as told, by `LOOM_NATS_SERVER`, beside this program, in `.loom/bin` of the
/// checkout one stands in, on the `PATH`.
///
/// What was named by somebody and is not there is an error; the others are looked at in turn.
pub fn find_binary(explicit: Option<&Path>) -> Result<PathBuf, ServerError> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let named = explicit
        .map(Path::to_owned)
        .or_else(|| variable.map(PathBuf::from));
    if let Some(named) = named {
        return if is_program(&named) {
            Ok(named)
        } else {
            Err(ServerError::NotAProgram { path: named })
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    candidates(own.as_deref(), here.as_deref(), &path)
        .find(|candidate| is_program(candidate))
        .ok_or(ServerError::NotFound)
}

fn candidates<'a>(
    own: Option<&'a Path>,
    here: Option<&'a Path>,
    path: &'a std::ffi::OsStr,
) -> impl Iterator<Item = PathBuf> + 'a {
    let beside = own.and_then(Path::parent).map(|dir| dir.join(PROGRAM));
    let checkout = |from: &'a Path| {
        from.ancestors()
            .map(|dir| dir.join(".loom/bin").join(PROGRAM))
    };
    let around_here = here.into_iter().flat_map(checkout);
    let around_own = own.into_iter().flat_map(checkout);
    let on_path = std::env::split_paths(path).map(|dir| dir.join(PROGRAM));
    beside
        .into_iter()
        .chain(around_here)
        .chain(around_own)
        .chain(on_path)
}

/// Asks the program which version it is, before it is given a configuration it may not understand.
pub(super) fn check_version(path: &Path) -> Result<(), ServerError> {
    let wrong = |reason: String| ServerError::NotAServer {
        path: path.to_owned(),
        reason,
    };
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| wrong(super::reason(&error)))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = said.trim().rsplit(' ').next().unwrap_or("");
    match parse_version(found) {
        Some(version) if version >= FLOOR => Ok(()),
        Some(_) => Err(ServerError::TooOld {
            path: path.to_owned(),
            found: found.trim_start_matches('v').to_owned(),
            needed: format!("{}.{}.{}", FLOOR.0, FLOOR.1, FLOOR.2),
        }),
        None => Err(wrong("it does not say its version".to_owned())),
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_beside_the_program_then_in_the_checkout_then_on_the_path() {
        let own = Path::new("/opt/loom/bin/loomctl");
        let here = Path::new("/src/loom/cli");
        let found: Vec<_> = candidates(Some(own), Some(here), "/usr/bin:/bin".as_ref()).collect();
        let at = |path: &str| found.iter().position(|p| p == Path::new(path)).unwrap();
        assert_eq!(at("/opt/loom/bin/nats-server"), 0);
        assert!(at("/src/loom/.loom/bin/nats-server") < at("/usr/bin/nats-server"));
        assert!(at("/usr/bin/nats-server") < at("/bin/nats-server"));
    }

    #[test]
    fn one_that_was_named_and_is_not_there_is_an_error() {
        let missing = Path::new("/nowhere/nats-server");
        let error = find_binary(Some(missing)).unwrap_err();
        assert!(error.to_string().contains("/nowhere/nats-server"));
        assert!(find_binary(Some(Path::new("/"))).is_err());
    }
}
