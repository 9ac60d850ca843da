//! The choice of weight files: the single safetensors file, or those in its index, or the same for
//! PyTorch files, as transformers chooses.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::hub::failure::Failure;
use crate::hub::names::is_file_path;
use crate::outside::syntax;
use crate::plain::plain;
use crate::words::counted;

/// Names of the weight files of one format.
pub struct Layout {
    /// The file with all weights.
    pub single: &'static str,
    /// The index of several files.
    pub index: &'static str,
}

pub const SAFETENSORS: Layout = Layout { single: "model.safetensors", index: "model.safetensors.index.json" };
pub const PYTORCH: Layout = Layout { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json" };
/// In the order of precedence.
pub(crate) const LAYOUTS: [Layout; 2] = [SAFETENSORS, PYTORCH];

/// Endings of PyTorch files.
const PYTORCH_ENDINGS: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];

/// True if a weight file is a PyTorch file, by its name.
pub fn is_pytorch(name: &str) -> bool {
    PYTORCH_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The largest number of files of a model.
const MOST: usize = 4096;

/// The error of a folder or repository in which nothing holds weights.
pub(crate) fn nothing(place: &str, below: &[String]) -> Error {
    if let Some(error) = only_below(place, below) {
        return error;
    }
    let Layout { single, index } = SAFETENSORS;
    Error::of(Failure::NoWeights { place: place.to_string(), wanted: [single, index, PYTORCH.single] })
}

/// The error of a folder that holds no model, but folders with some.
pub(crate) fn only_below(place: &str, below: &[String]) -> Option<Error> {
    let last = below.last()?;
    let folders = match below {
        [one] => format!("in its folder {}", plain(one, 200)),
        [first, .., last] => {
            format!("in {} of its folders, {} to {}", below.len(), plain(first, 200), plain(last, 200))
        }
        [] => return None,
    };
    Some(Error::of(Failure::OnlyBelow { place: place.to_string(), folders, last: last.clone() }))
}

/// As much of an index as is kept: the names of files, each once. The index of a large model has a
/// line per tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: Option<Files>,
}

struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Files, A::Error> {
                let mut files = BTreeSet::new();
                while let Some((_, file)) = map.next_entry::<IgnoredAny, String>()? {
                    if files.len() <= MOST {
                        files.insert(file);
                    }
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

impl Layout {
    /// The files in an index, sorted, in its folder or below; `place` is the location of the index.
    ///
    /// # Errors
    /// `corrupt` if it is not an index, or has an invalid file name or too many files.
    pub fn names(&self, index: &[u8], place: &str) -> Result<Vec<String>> {
        let path = format!("{place}/{}", self.index);
        let damaged = |problem: String| Error::of(Failure::BadIndex { index: path.clone(), problem });
        let index: Index = serde_json::from_slice(index).map_err(|e| match syntax::wrong(index, &e) {
            Some(what) => damaged(format!("not valid JSON: {what}")),
            // The parser's message may quote the file.
            None => damaged(format!("not an index (line {}, column {})", e.line(), e.column())),
        })?;
        let Files(names) = index.weight_map.ok_or_else(|| damaged("`weight_map` is missing".to_string()))?;
        if names.len() > MOST {
            return Err(damaged(format!("it names more than {MOST} files")));
        }
        let names = names.iter().map(|name| below(name).ok_or_else(|| astray(name, &path)));
        names.collect::<Result<BTreeSet<_>>>().map(Vec::from_iter)
    }

    /// A note for the user if a single weight file and an index exist. None if the index contains
    /// only that file.
    pub fn beside_single(&self, index: &[u8], place: &str) -> Option<String> {
        let others = match self.names(index, place) {
            Ok(names) if names == [self.single] => return None,
            Ok(names) => {
                format!("names {}", counted(names.iter().filter(|name| *name != self.single).count(), "other file"))
            }
            Err(_) => "cannot be read".to_string(),
        };
        let Self { single, index } = self;
        Some(format!("{place}: {single} is read and {index}, which {others}, is not: transformers chooses the same"))
    }
}

/// Normalises the path of a file relative to its index ("./a" and "b//c"). None if it leaves the
/// folder or is invalid.
fn below(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Some(parts.join("/")).filter(|path| !name.starts_with('/') && is_file_path(path))
}

fn astray(name: &str, index: &str) -> Error {
    let what = match name {
        "" => "is no name of a file",
        _ if name.starts_with('/') => "is not below the folder of the index",
        _ if name.split('/').any(|part| part == "..") => "leads out of the folder of the index",
        _ => "is no name of a file in the folder of the index",
    };
    Error::of(Failure::Astray { index: index.to_string(), name: name.to_string(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_index_stay_below_its_folder() {
        for (name, path) in [
            ("model-1.safetensors", Some("model-1.safetensors")),
            ("./model-1.safetensors", Some("model-1.safetensors")),
            ("weights/model-1.safetensors", Some("weights/model-1.safetensors")),
            ("././a//b/./c", Some("a/b/c")),
            ("../x", None),
            ("a/../x", None),
            ("/etc/x", None),
            ("./", None),
            (".", None),
            ("", None),
            ("a\\b", None),
        ] {
            assert_eq!(below(name).as_deref(), path, "{name}");
        }
    }
}
