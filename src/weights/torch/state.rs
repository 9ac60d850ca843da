//! The tensors in the result of a pickle: a dictionary of tensors, or one that contains such a
//! dictionary.

use safetensors::Dtype;

use super::objects::{Objects, Value, View};
use super::problem::{Outcome, damaged, unsupported};
use crate::outside::shown;

/// The largest number of tensors in a file.
const MAX_TENSORS: usize = 1 << 17;
/// The longest name of a tensor or storage in bytes. A long one could be stored once and used many
/// times.
const MAX_NAME: usize = 1024;
/// Keys under which trainers store the model.
const WRAPPERS: [&str; 3] = ["state_dict", "model", "module"];
/// The largest number of keys in a message.
const NAMED: usize = 3;

/// A tensor with its position in a storage.
pub(super) struct Stored<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The strides in elements, if its numbers are not contiguous.
    pub strides: Option<Vec<usize>>,
    /// The name of the storage's entry in `data/`.
    pub key: &'a str,
    pub storage_bytes: u64,
    /// Offset of its data in the storage.
    pub begin: u64,
    pub bytes: u64,
}

/// All tensors of the dictionary `root`. Of duplicate names it returns the last.
///
/// # Errors
/// An error if there is no such dictionary, or a tensor does not fit its storage.
pub(super) fn tensors<'a>(objects: &Objects<'a>, root: Value) -> Outcome<Vec<Stored<'a>>> {
    let pairs = dictionary(objects, root)?;
    let named = pairs.iter().filter_map(|pair| match pair {
        (Value::Text(begin, end), Value::Tensor(tensor)) => Some((objects.text((*begin, *end)), *tensor)),
        _ => None,
    });
    let named: Vec<(&str, u32)> = named.collect();
    if named.len() > MAX_TENSORS {
        return damaged(format!("it has {} tensors, more than {MAX_TENSORS}", named.len()));
    }
    named.into_iter().map(|(name, tensor)| stored(objects, name, &objects.tensors[tensor as usize])).collect()
}

fn dictionary<'o>(objects: &'o Objects, root: Value) -> Outcome<&'o [(Value, Value)]> {
    let pairs = |value: Value| match value {
        Value::Map(map) => Some(&objects.maps[map as usize][..]),
        _ => None,
    };
    let holds_tensors = |pairs: &[(Value, Value)]| pairs.iter().any(|(_, value)| matches!(value, Value::Tensor(_)));
    let Some(all) = pairs(root) else {
        return unsupported("what is in it is no dictionary of tensors, as model.state_dict() gives one");
    };
    if holds_tensors(all) {
        return Ok(all);
    }
    let key = |value: Value| match value {
        Value::Text(begin, end) => Some(objects.text((begin, end))),
        _ => None,
    };
    let inner = all.iter().rev().filter(|(name, _)| key(*name).is_some_and(|name| WRAPPERS.contains(&name)));
    let mut inner = inner.filter_map(|(_, value)| pairs(*value)).filter(|pairs| holds_tensors(pairs));
    match (inner.next(), inner.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => unsupported("there are several models in it"),
        _ => {
            let keys = all.iter().filter_map(|(name, _)| key(*name)).take(NAMED).map(|key| format!("`{}`", shown(key)));
            let keys: Vec<String> = keys.collect();
            let told = if keys.is_empty() { String::new() } else { format!(": it begins with {}", keys.join(", ")) };
            unsupported(format!(
                "the dictionary in it holds no tensors, nor does `state_dict`, `model` or `module` in it{told}"
            ))
        }
    }
}

fn stored<'a>(objects: &Objects<'a>, name: &'a str, view: &View) -> Outcome<Stored<'a>> {
    let storage = &objects.storages[view.storage as usize];
    let key = objects.text(storage.key);
    if name.len().max(key.len()) > MAX_NAME {
        return damaged(format!("a tensor in it has a name of {} bytes", name.len().max(key.len())));
    }
    let width = |dtype: Dtype| dtype.bitsize() as u64 / 8;
    let (shape, strides) = objects.shape(view)?;
    let astray = || format!("tensor `{}` does not fit its storage", shown(name));
    let place = || {
        let elements = shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size as u64))?;
        let storage_bytes = storage.elements.checked_mul(storage.dtype.map_or(1, width))?;
        let begin = view.offset.checked_mul(width(view.dtype))?;
        let bytes = elements.checked_mul(width(view.dtype))?;
        // One more than the index of its last element.
        let reach = match elements {
            0 => 0,
            _ => shape.iter().zip(&strides).try_fold(1u64, |sum, (size, stride)| {
                sum.checked_add((*size as u64 - 1).checked_mul(*stride as u64)?)
            })?,
        };
        let end = begin.checked_add(reach.checked_mul(width(view.dtype))?)?;
        (end <= storage_bytes).then_some((storage_bytes, begin, bytes))
    };
    let Some((storage_bytes, begin, bytes)) = place() else { return damaged(astray()) };
    let contiguous = bytes == 0 || lies_together(&shape, &strides);
    let strides = (!contiguous).then_some(strides);
    Ok(Stored { name, dtype: view.dtype, shape, strides, key, storage_bytes, begin, bytes })
}

/// True if a tensor's numbers are contiguous in row-major order.
fn lies_together(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().filter(|(size, _)| **size != 1).all(|(size, stride)| {
        let fits = *stride == expected;
        expected *= size;
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_tensors_are_known_by_their_strides() {
        for (shape, strides, together) in [
            (&[2, 3][..], &[3, 1][..], true),
            (&[2, 3], &[1, 2], false),
            (&[1, 3], &[77, 1], true),
            (&[2, 3], &[4, 1], false),
            (&[], &[], true),
            (&[4], &[0], false),
            (&[3, 1, 2], &[2, 9, 1], true),
        ] {
            assert_eq!(lies_together(shape, strides), together, "{shape:?} {strides:?}");
        }
    }
}
