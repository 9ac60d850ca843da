//! Replacements of functions of the language that ask a closure about the items of an array or a
//! map. Rhai's take an answer that is no answer for "no", and lose errors of a comparison. These
//! make an error of both, and leave the array as it was.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, Engine, FnPtr, FuncRegistration, INT, ImmutableString, Map, Module, NativeCallContext};

use super::problem::{ScriptResult, throw};
use crate::error::Error;

/// Their names.
pub(crate) const NAMES: [&str; 14] = [
    "all",
    "dedup",
    "drain",
    "filter",
    "find",
    "index_of",
    "order",
    "order_by",
    "order_desc",
    "retain",
    "some",
    "sort",
    "sort_by",
    "sort_desc",
];

pub(crate) fn register(engine: &mut Engine) {
    let mut module = Module::new();
    predicates(&mut module);
    predicates_of_maps(&mut module);
    orders(&mut module);
    engine.register_global_module(module.into());
}

/// A function that may be called on a constant array as well.
fn pure(name: &str) -> FuncRegistration {
    FuncRegistration::new(name).with_purity(true)
}

fn changing(name: &str) -> FuncRegistration {
    FuncRegistration::new(name)
}

fn predicates(module: &mut Module) {
    type C<'a> = NativeCallContext<'a>;
    pure("filter").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<Array> {
        let kept = answers("filter", &c, items, &f)?.into_iter();
        Ok(items.iter().zip(kept).filter(|(_, keep)| *keep).map(|(item, _)| item.clone()).collect())
    });
    pure("all").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<bool> {
        Ok(first("all", &c, items, &f, 0, false)?.is_none())
    });
    pure("some").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<bool> {
        Ok(first("some", &c, items, &f, 0, true)?.is_some())
    });
    pure("index_of").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| index_of(&c, items, &f, 0));
    pure("index_of")
        .set_into_module(module, |c: C, items: &mut Array, f: FnPtr, start: INT| index_of(&c, items, &f, start));
    pure("find").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| find(&c, items, &f, 0));
    pure("find").set_into_module(module, |c: C, items: &mut Array, f: FnPtr, start: INT| find(&c, items, &f, start));
    changing("retain").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<Array> {
        let kept = answers("retain", &c, items, &f)?;
        let (rest, removed) = parted(std::mem::take(items), &kept);
        *items = rest;
        Ok(removed)
    });
    changing("drain").set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<Array> {
        let drained = answers("drain", &c, items, &f)?;
        let (removed, rest) = parted(std::mem::take(items), &drained);
        *items = rest;
        Ok(removed)
    });
    changing("dedup").set_into_module(module, |c: C, items: &mut Array, same: FnPtr| -> ScriptResult<()> {
        let mut kept: Vec<bool> = Vec::with_capacity(items.len());
        let mut last = 0;
        for i in 0..items.len() {
            let pair = [items[last].clone(), items[i].clone()];
            let repeats = i > 0 && truth("dedup", &c, &same.call_raw(&c, None, pair)?)?;
            kept.push(!repeats);
            last = if repeats { last } else { i };
        }
        *items = parted(std::mem::take(items), &kept).0;
        Ok(())
    });
}

fn predicates_of_maps(module: &mut Module) {
    type C<'a> = NativeCallContext<'a>;
    pure("filter").set_into_module(module, |c: C, map: &mut Map, f: FnPtr| -> ScriptResult<Map> {
        let kept = answers_of_map("filter", &c, map, &f)?;
        let entries = map.iter().zip(&kept).filter(|(_, keep)| **keep);
        Ok(entries.map(|((k, v), _)| (k.clone(), v.clone())).collect::<Map>())
    });
    changing("retain").set_into_module(module, |c: C, map: &mut Map, f: FnPtr| -> ScriptResult<Map> {
        let kept = answers_of_map("retain", &c, map, &f)?;
        let (rest, removed) = parted_map(std::mem::take(map), &kept);
        *map = rest;
        Ok(removed)
    });
    changing("drain").set_into_module(module, |c: C, map: &mut Map, f: FnPtr| -> ScriptResult<Map> {
        let drained = answers_of_map("drain", &c, map, &f)?;
        let (removed, rest) = parted_map(std::mem::take(map), &drained);
        *map = rest;
        Ok(removed)
    });
}

fn orders(module: &mut Module) {
    type C<'a> = NativeCallContext<'a>;
    for name in ["sort", "sort_by"] {
        changing(name).set_into_module(module, |c: C, items: &mut Array, f: FnPtr| -> ScriptResult<()> {
            *items = by_closure("sort", &c, items, &f)?;
            Ok(())
        });
    }
    for name in ["order", "order_by"] {
        pure(name).set_into_module(module, |c: C, items: &mut Array, f: FnPtr| by_closure("order", &c, items, &f));
    }
    changing("sort").set_into_module(module, |c: C, items: &mut Array| -> ScriptResult<()> {
        *items = by_value("sort", &c, items, Ordering::Greater)?;
        Ok(())
    });
    changing("sort_desc").set_into_module(module, |c: C, items: &mut Array| -> ScriptResult<()> {
        *items = by_value("sort_desc", &c, items, Ordering::Less)?;
        Ok(())
    });
    pure("order").set_into_module(module, |c: C, items: &mut Array| by_value("order", &c, items, Ordering::Greater));
    pure("order_desc")
        .set_into_module(module, |c: C, items: &mut Array| by_value("order_desc", &c, items, Ordering::Less));
}

/// A value and its type, as an error shows them.
fn shown(context: &NativeCallContext, value: &Dynamic) -> String {
    let kind = context.engine().map_type_name(value.type_name());
    match value.is_unit() {
        true => "()".to_string(),
        false => format!("{:.60} of type {kind}", value.to_string()),
    }
}

/// The answer of a predicate.
pub(crate) fn truth(name: &str, context: &NativeCallContext, answer: &Dynamic) -> ScriptResult<bool> {
    answer.as_bool().map_err(|_| {
        let message = format!("{name}: the function gave {}, expected true or false", shown(context, answer));
        throw(Error::bad_argument(message).hint("compare: |item| item > 0, |item| item != ()"))
    })
}

/// What `f` answers about the item at `index`. The item is also `this`.
fn ask(name: &str, context: &NativeCallContext, items: &mut Array, f: &FnPtr, index: usize) -> ScriptResult<bool> {
    let extra = [(index as INT).into()];
    let answer = f.call_raw_with_extra_args(name, context, Some(&mut items[index]), [], extra, Some(0))?;
    truth(name, context, &answer)
}

fn answers(name: &str, context: &NativeCallContext, items: &mut Array, f: &FnPtr) -> ScriptResult<Vec<bool>> {
    (0..items.len()).map(|index| ask(name, context, items, f, index)).collect()
}

/// The first item from `start` on about which `f` answers `wanted`.
fn first(
    name: &str,
    context: &NativeCallContext,
    items: &mut Array,
    f: &FnPtr,
    start: usize,
    wanted: bool,
) -> ScriptResult<Option<usize>> {
    for index in start..items.len() {
        if ask(name, context, items, f, index)? == wanted {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// A negative `start` counts from the end.
fn index_of(context: &NativeCallContext, items: &mut Array, f: &FnPtr, start: INT) -> ScriptResult<INT> {
    let from_end = items.len().saturating_sub(start.unsigned_abs() as usize);
    let start = if start < 0 { from_end } else { start as usize };
    Ok(first("index_of", context, items, f, start, true)?.map_or(-1, |index| index as INT))
}

fn find(context: &NativeCallContext, items: &mut Array, f: &FnPtr, start: INT) -> ScriptResult<Dynamic> {
    let index = index_of(context, items, f, start)?;
    Ok(usize::try_from(index).map_or(Dynamic::UNIT, |index| items[index].clone()))
}

/// The items with the answer yes, and the others.
fn parted(items: Array, answers: &[bool]) -> (Array, Array) {
    let (yes, no): (Vec<_>, Vec<_>) = items.into_iter().zip(answers).partition(|(_, answer)| **answer);
    let plain = |pairs: Vec<(Dynamic, &bool)>| pairs.into_iter().map(|(item, _)| item).collect();
    (plain(yes), plain(no))
}

/// What `f` answers about each entry. The value is also `this`.
fn answers_of_map(name: &str, context: &NativeCallContext, map: &mut Map, f: &FnPtr) -> ScriptResult<Vec<bool>> {
    let ask = |(key, value): (&rhai::Identifier, &mut Dynamic)| {
        let key = [ImmutableString::from(key.as_str()).into()];
        truth(name, context, &f.call_raw_with_extra_args(name, context, Some(value), key, [], Some(1))?)
    };
    map.iter_mut().map(ask).collect()
}

/// The entries with the answer yes, and the others.
fn parted_map(map: Map, answers: &[bool]) -> (Map, Map) {
    let (yes, no): (Vec<_>, Vec<_>) = map.into_iter().zip(answers).partition(|(_, answer)| **answer);
    let plain = |pairs: Vec<((rhai::Identifier, Dynamic), &bool)>| pairs.into_iter().map(|(entry, _)| entry).collect();
    (plain(yes), plain(no))
}

/// The items in the order of a comparison: a number below 0 if the first item comes first, or
/// true.
fn by_closure(name: &str, context: &NativeCallContext, items: &Array, f: &FnPtr) -> ScriptResult<Array> {
    sorted(items, &mut |a, b| {
        let answer = f.call_raw(context, None, [a.clone(), b.clone()])?;
        let number = answer.as_float().or_else(|_| answer.as_int().map(|n| n.signum() as f64));
        match (number, answer.as_bool()) {
            (Ok(difference), _) if !difference.is_nan() => Ok(difference > 0.0),
            (_, Ok(first)) => Ok(!first),
            _ => {
                let message = format!(
                    "{name}: the function gave {}, expected a number, or whether the first item comes first",
                    shown(context, &answer)
                );
                Err(throw(Error::bad_argument(message).hint(format!("{name}(|a, b| a - b), {name}(|a, b| a <= b)"))))
            }
        }
    })
}

/// Numbers, texts, characters or truth values in ascending order, or in descending order if
/// `swapped` is `Less`: an item moves behind another one that is so compared to it.
fn by_value(name: &str, context: &NativeCallContext, items: &Array, swapped: Ordering) -> ScriptResult<Array> {
    let refused = |what: String| {
        let hint = format!("give a function that compares two items: {name}(|a, b| a.x - b.x)");
        throw(Error::bad_argument(format!("{name}: {what}")).hint(hint.replace("_desc", "")))
    };
    if let Some(nan) = items.iter().position(|item| item.as_float().is_ok_and(f64::is_nan)) {
        let hint = "leave it out first: list.filter(|x| !x.is_nan())";
        return Err(throw(Error::bad_argument(format!("{name}: item {nan} is NaN, which has no order")).hint(hint)));
    }
    sorted(items, &mut |a, b| match compared(a, b) {
        Some(order) => Ok(order == swapped),
        None => Err(refused(format!("{} and {} have no order", shown(context, a), shown(context, b)))),
    })
}

/// How two plain values compare, if they do.
fn compared(a: &Dynamic, b: &Dynamic) -> Option<Ordering> {
    if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
        return Some(a.cmp(&b));
    }
    let number = |value: &Dynamic| value.as_float().or_else(|_| value.as_int().map(|n| n as f64)).ok();
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a.partial_cmp(&b);
    }
    if let (Some(a), Some(b)) = (a.read_lock::<ImmutableString>(), b.read_lock::<ImmutableString>()) {
        return Some(a.as_str().cmp(b.as_str()));
    }
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_char()) {
        return Some(a.cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_bool(), b.as_bool()) {
        return Some(a.cmp(&b));
    }
    (a.is_unit() && b.is_unit()).then_some(Ordering::Equal)
}

/// The items, stably sorted by merging. `behind` says whether its first item belongs behind its
/// second one; it may be wrong about that, but may not fail.
fn sorted(items: &Array, behind: &mut impl FnMut(&Dynamic, &Dynamic) -> ScriptResult<bool>) -> ScriptResult<Array> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    let mut merged = order.clone();
    let mut width = 1;
    while width < order.len() {
        for start in (0..order.len()).step_by(2 * width) {
            let (middle, end) = ((start + width).min(order.len()), (start + 2 * width).min(order.len()));
            let (mut left, mut right) = (start, middle);
            for place in &mut merged[start..end] {
                let take_right = match (left < middle, right < end) {
                    (true, true) => behind(&items[order[left]], &items[order[right]])?,
                    (more_left, _) => !more_left,
                };
                let from = if take_right { &mut right } else { &mut left };
                *place = order[*from];
                *from += 1;
            }
        }
        std::mem::swap(&mut order, &mut merged);
        width *= 2;
    }
    Ok(order.into_iter().map(|index| items[index].clone()).collect())
}
