//! Passes of this run that are complete and not yet saved. Their records stay on the disk, in the place of their checkpoints, until
//! they are saved or the run has ended well: whatever fails meanwhile, the next run takes them up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::engine;
use crate::record::{Activations, ExtractArgs};

#[derive(Default)]
pub struct Unsaved(Mutex<Vec<Pass>>);

struct Pass {
    handle: Weak<Activations>,
    /// Without its folds.
    record: Activations,
    args: ExtractArgs,
    checkpoint: String,
    /// The folder that was made for the checkpoint.
    folder: Option<PathBuf>,
}

impl Pass {
    fn remove(&self) {
        engine::remove_checkpoints(&self.checkpoint, &self.record, &self.args);
        // Where something else has come into it, it stays.
        self.folder.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

/// The folder that a checkpoint would be the first thing in.
pub fn new_folder(args: &ExtractArgs) -> Option<PathBuf> {
    let folder = Path::new(&args.checkpoint.as_ref()?.path).parent()?;
    (!folder.as_os_str().is_empty() && !folder.exists()).then(|| folder.to_path_buf())
}

impl Unsaved {
    fn passes(&self) -> std::sync::MutexGuard<'_, Vec<Pass>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// A pass with a checkpoint is complete; `folder` as `new_folder` said before it.
    pub fn add(&self, acts: &Arc<Activations>, args: ExtractArgs, folder: Option<PathBuf>) {
        let Some(checkpoint) = args.checkpoint.as_ref().map(|checkpoint| checkpoint.path.clone()) else { return };
        let (handle, record) = (Arc::downgrade(acts), acts.clone_light());
        self.passes().push(Pass { handle, record, args, checkpoint, folder });
    }

    /// These activations have been saved.
    pub fn saved(&self, acts: &Arc<Activations>) {
        self.passes().retain(|pass| {
            let saved = std::ptr::eq(pass.handle.as_ptr(), Arc::as_ptr(acts));
            if saved {
                pass.remove();
            }
            !saved
        });
    }

    /// The run has ended well, and nobody wants them.
    pub fn forget(&self) {
        self.passes().drain(..).for_each(|pass| pass.remove());
    }
}
