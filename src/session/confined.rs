//! Confines a script to the project's folder on a machine that is this computer, for all links and
//! spellings of paths.

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::remote::{self, Machine, quoted};

/// Reads names, one per line, and prints `out NAME` for the first that leaves the current folder.
/// For a missing file its nearest existing ancestor counts.
const JUDGE: &str = r#"root=$(pwd -P)
while IFS= read -r name; do
    at="./$name"
    while [ ! -e "$at" ] && [ ! -L "$at" ] && [ "$at" != . ]; do at=${at%/*}; done
    real=$(readlink -f -- "$at" 2>/dev/null)
    case "$real/" in "$root"/*) ;; *) printf 'out %s\n' "$name"; exit 0;; esac
done"#;

/// Checks names relative to the folder `root` of the machine, for the primitive `what`.
///
/// # Errors
/// `bad_argument` for a name that is absolute or leaves the folder, and the errors of the machine.
pub(super) fn check(machine: &dyn Machine, root: &str, what: &str, names: &[String]) -> Result<()> {
    for name in names {
        remote::inside(what, &format!("./{name}")).and_then(|()| match name.contains('\n') {
            true => {
                let (primitive, name) = (what.to_string(), name.clone());
                Err(Error::of(Failure::LineBreak { primitive, name }))
            }
            false => Ok(()),
        })?;
    }
    if names.is_empty() {
        return Ok(());
    }
    let list = names.iter().map(|name| format!("{name}\n")).collect::<String>();
    let command = format!("mkdir -p {0} && cd {0} && {{ {JUDGE}\n}}", quoted(root));
    let said = remote::collect(machine, &command, &mut list.as_bytes())?;
    match said.out.strip_prefix("out ") {
        None if said.code == 0 => Ok(()),
        None => {
            let (primitive, complaint) = (what.to_string(), said.complaint().to_string());
            Err(Error::of(Failure::LinksUnknown { primitive, complaint }))
        }
        Some(name) => {
            let (primitive, name) = (what.to_string(), name.trim_end_matches('\n').to_string());
            Err(Error::of(Failure::LeadsOut { primitive, name, machine: machine.name() }))
        }
    }
}
