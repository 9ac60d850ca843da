//! Replacements of functions of the language whose result can be far larger than their arguments,
//! or that may not end, in one step and so out of reach of the limits between steps. They compute
//! the size of the result first, and otherwise do the same as Rhai's.

use rhai::{Array, Blob, Dynamic, Engine, FnPtr, FuncRegistration, INT, ImmutableString, Map, Module};

use super::bounds::{MAX_ARRAY, MAX_MAP, MAX_STRING, too_large};
use super::problem::ScriptResult;
use super::weight;

/// Their names.
pub(crate) const NAMES: [&str; 6] = ["blob", "pad", "replace", "split", "split_rev", "to_chars"];

/// Number of items that are added to an array between two checks of memory.
const AT_ONCE: usize = 1 << 16;

pub(crate) fn register(engine: &mut Engine) {
    let mut module = Module::new();
    let mut add = Adding(&mut module);
    add.replace();
    add.split();
    add.pad();
    add.blob();
    engine.register_global_module(module.into());
}

/// Checks that a script may have a text of this size in bytes.
pub(crate) fn fits(bytes: usize) -> ScriptResult<()> {
    if bytes > MAX_STRING { Err(too_large("Length of string")) } else { Ok(()) }
}

struct Adding<'a>(&'a mut Module);

impl Adding<'_> {
    fn replace(&mut self) {
        let text = |s: &mut ImmutableString, find: &str, with: &str| replace(s, find, with);
        FuncRegistration::new("replace").set_into_module(self.0, text);
        let text = |s: &mut ImmutableString, find: &str, with: char| replace(s, find, with.encode_utf8(&mut [0; 4]));
        FuncRegistration::new("replace").set_into_module(self.0, text);
        let text = |s: &mut ImmutableString, find: char, with: &str| replace(s, find.encode_utf8(&mut [0; 4]), with);
        FuncRegistration::new("replace").set_into_module(self.0, text);
        let text = |s: &mut ImmutableString, find: char, with: char| {
            replace(s, find.encode_utf8(&mut [0; 4]), with.encode_utf8(&mut [0; 4]))
        };
        FuncRegistration::new("replace").set_into_module(self.0, text);
    }

    fn split(&mut self) {
        // The largest number of pieces, at least one.
        let most = |count: INT| usize::try_from(count).unwrap_or(0).max(1);
        FuncRegistration::new("to_chars").set_into_module(self.0, |s: &str| collected(s.chars().map(Dynamic::from)));
        FuncRegistration::new("split").set_into_module(self.0, |s: &str| pieces(s, s.split_whitespace()));
        FuncRegistration::new("split").set_into_module(self.0, |s: &str, at: &str| pieces(s, s.split(at)));
        FuncRegistration::new("split").set_into_module(self.0, |s: &str, at: char| pieces(s, s.split(at)));
        FuncRegistration::new("split_rev").set_into_module(self.0, |s: &str, at: &str| pieces(s, s.rsplit(at)));
        FuncRegistration::new("split_rev").set_into_module(self.0, |s: &str, at: char| pieces(s, s.rsplit(at)));
        let limited = move |s: &str, at: &str, count: INT| pieces(s, s.splitn(most(count), at));
        FuncRegistration::new("split").set_into_module(self.0, limited);
        let limited = move |s: &str, at: char, count: INT| pieces(s, s.splitn(most(count), at));
        FuncRegistration::new("split").set_into_module(self.0, limited);
        let limited = move |s: &str, at: &str, count: INT| pieces(s, s.rsplitn(most(count), at));
        FuncRegistration::new("split_rev").set_into_module(self.0, limited);
        let limited = move |s: &str, at: char, count: INT| pieces(s, s.rsplitn(most(count), at));
        FuncRegistration::new("split_rev").set_into_module(self.0, limited);
    }

    fn pad(&mut self) {
        let text = |s: &mut ImmutableString, len: INT, with: char| pad(s, len, with.encode_utf8(&mut [0; 4]));
        FuncRegistration::new("pad").set_into_module(self.0, text);
        FuncRegistration::new("pad")
            .set_into_module(self.0, |s: &mut ImmutableString, len: INT, with: &str| pad(s, len, with));
        FuncRegistration::new("pad")
            .set_into_module(self.0, |a: &mut Array, len: INT, item: Dynamic| pad_array(a, len, &item));
        FuncRegistration::new("pad").set_into_module(self.0, pad_blob);
    }

    fn blob(&mut self) {
        let blob = |len: INT, byte: INT| {
            let mut blob = Blob::new();
            pad_blob(&mut blob, len, byte).map(|()| blob)
        };
        FuncRegistration::new("blob").set_into_module(self.0, move |len: INT| blob(len, 0));
        FuncRegistration::new("blob").set_into_module(self.0, blob);
    }
}

fn replace(text: &mut ImmutableString, find: &str, with: &str) -> ScriptResult<()> {
    if text.is_empty() {
        return Ok(());
    }
    let count = text.matches(find).count();
    fits((text.len() - count * find.len()).saturating_add(count.saturating_mul(with.len())))?;
    *text = text.replace(find, with).into();
    Ok(())
}

/// An empty text is one piece for every separator.
fn pieces<'a>(whole: &str, pieces: impl Iterator<Item = &'a str>) -> ScriptResult<Array> {
    match whole.is_empty() {
        true => Ok(vec![ImmutableString::new().into()]),
        false => collected(pieces.map(|piece| ImmutableString::from(piece).into())),
    }
}

fn collected(items: impl Iterator<Item = Dynamic>) -> ScriptResult<Array> {
    let mut array = Array::new();
    for item in items {
        if array.len() >= MAX_ARRAY {
            return Err(too_large("Size of array/BLOB"));
        }
        if array.len().is_multiple_of(AT_ONCE) {
            weight::bearable()?;
        }
        array.push(item);
    }
    Ok(array)
}

/// Pads the text to `len` characters.
fn pad(text: &mut ImmutableString, len: INT, with: &str) -> ScriptResult<()> {
    let Ok(len) = usize::try_from(len) else { return Ok(()) };
    let missing = len.saturating_sub(text.chars().count());
    if missing == 0 || with.is_empty() {
        return Ok(());
    }
    // A character has at least one byte.
    fits(len)?;
    let (whole, rest) = (missing / with.chars().count(), missing % with.chars().count());
    let rest: String = with.chars().take(rest).collect();
    fits(text.len().saturating_add(whole.saturating_mul(with.len())).saturating_add(rest.len()))?;
    let padded = text.make_mut();
    (0..whole).for_each(|_| padded.push_str(with));
    padded.push_str(&rest);
    Ok(())
}

/// Pads the array to `len` items. The contents of an item, and of a closure in it, count for every
/// copy.
fn pad_array(array: &mut Array, len: INT, item: &Dynamic) -> ScriptResult<()> {
    let Ok(len) = usize::try_from(len) else { return Ok(()) };
    let missing = len.saturating_sub(array.len());
    let size = Size::of(item);
    let all = |each: usize| each.saturating_mul(missing);
    if array.len().saturating_add(all(1 + size.items)) > MAX_ARRAY {
        return Err(too_large("Size of array/BLOB"));
    }
    if all(size.entries) > MAX_MAP {
        return Err(too_large("Size of object map"));
    }
    fits(all(size.bytes))?;
    while array.len() < len {
        weight::bearable()?;
        array.resize(len.min(array.len() + AT_ONCE), item.clone());
    }
    Ok(())
}

/// Pads the blob to `len` bytes, with the lowest byte of `byte`.
fn pad_blob(blob: &mut Blob, len: INT, byte: INT) -> ScriptResult<()> {
    let Ok(len) = usize::try_from(len) else { return Ok(()) };
    if len > MAX_ARRAY {
        return Err(too_large("Size of array/BLOB"));
    }
    if len > blob.len() {
        blob.resize(len, byte as u8);
    }
    Ok(())
}

/// The size of a copy of a value. Shared parts are not copied.
#[derive(Default)]
pub(crate) struct Size {
    /// Of arrays and blobs, including nested ones.
    items: usize,
    /// Of maps.
    entries: usize,
    /// Of texts and keys.
    bytes: usize,
}

impl Size {
    pub(crate) fn of(value: &Dynamic) -> Self {
        let mut size = Self::default();
        if !value.is_shared() {
            size.add(value);
        }
        size
    }

    /// The size of a copy of a closure with its own copies of shared values.
    pub(crate) fn unshared(closure: &FnPtr) -> Self {
        let mut size = Self::default();
        closure.iter_curry().filter(|value| !value.is_locked()).for_each(|value| size.add(value));
        size
    }

    /// Approximate bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        const ITEM: usize = size_of::<Dynamic>();
        const ENTRY: usize = 64;
        (self.items.saturating_mul(ITEM)).saturating_add(self.entries.saturating_mul(ENTRY)).saturating_add(self.bytes)
            as u64
    }

    fn add_inner(&mut self, value: &Dynamic) {
        if !value.is_shared() {
            self.add(value);
        }
    }

    fn add(&mut self, value: &Dynamic) {
        if let Some(items) = value.read_lock::<Array>() {
            self.items += items.len();
            items.iter().for_each(|item| self.add_inner(item));
        } else if let Some(map) = value.read_lock::<Map>() {
            self.entries += map.len();
            for (key, item) in map.iter() {
                self.bytes += key.len();
                self.add_inner(item);
            }
        } else if let Some(blob) = value.read_lock::<Blob>() {
            self.items += blob.len();
        } else if let Some(text) = value.read_lock::<ImmutableString>() {
            self.bytes += text.len();
        } else if let Some(closure) = value.read_lock::<FnPtr>() {
            self.items += closure.iter_curry().count();
            closure.iter_curry().for_each(|item| self.add_inner(item));
        }
    }
}
