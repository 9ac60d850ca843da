//! Complete passes of this run that are not saved yet. Their records stay on disk in place of their
//! checkpoints until they are saved or the run has succeeded, so that the next run can use them
//! after a failure.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::engine;
use crate::record::{Activations, ExtractArgs};

#[derive(Default)]
pub(crate) struct Unsaved(Mutex<Vec<Pass>>);

struct Pass {
    handle: Weak<Activations>,
    /// The record without its folds.
    record: Activations,
    args: ExtractArgs,
    checkpoint: String,
    /// The folder that was created for the checkpoint.
    folder: Option<PathBuf>,
}

impl Pass {
    fn remove(&self) {
        engine::remove_checkpoints(&self.checkpoint, &self.record, &self.args);
        // A folder with other contents stays.
        self.folder.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

/// The folder that would be created for a checkpoint.
pub(crate) fn new_folder(args: &ExtractArgs) -> Option<PathBuf> {
    let folder = Path::new(&args.checkpoint.as_ref()?.path).parent()?;
    (!folder.as_os_str().is_empty() && !folder.exists()).then(|| folder.to_path_buf())
}

impl Unsaved {
    fn passes(&self) -> std::sync::MutexGuard<'_, Vec<Pass>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Adds a complete pass with a checkpoint; `folder` is the result of `new_folder` before it.
    pub(crate) fn add(&self, acts: &Arc<Activations>, args: ExtractArgs, folder: Option<PathBuf>) {
        let Some(checkpoint) = args.checkpoint.as_ref().map(|checkpoint| checkpoint.path.clone()) else { return };
        let (handle, record) = (Arc::downgrade(acts), acts.clone_light());
        self.passes().push(Pass { handle, record, args, checkpoint, folder });
    }

    /// Marks these activations as saved.
    pub(crate) fn saved(&self, acts: &Arc<Activations>) {
        self.passes().retain(|pass| {
            let saved = std::ptr::eq(pass.handle.as_ptr(), Arc::as_ptr(acts));
            if saved {
                pass.remove();
            }
            !saved
        });
    }

    /// Discards all after a successful run.
    pub(crate) fn forget(&self) {
        self.passes().drain(..).for_each(|pass| pass.remove());
    }
}
