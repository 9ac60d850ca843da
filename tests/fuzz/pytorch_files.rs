//! Folders of models in a PyTorch file that is damaged or malicious: its archive, its pickle, and
//! their descriptions of tensors.

use std::path::Path;

use safetensors::SafeTensors;

use crate::chance::Chance;
use crate::model_files::script;
use crate::mutate;
use crate::process::Start;
use crate::pytorch::{self, Entry, State};
use crate::workshop::{Workshop, link, read, write};

/// Instructions of a pickle, some with what belongs to them, and some that have Python run something.
const INSTRUCTIONS: &[&[u8]] = &[
    b"(",
    b"0",
    b"1",
    b"2",
    b"N",
    b"}",
    b"]",
    b")",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"l",
    b"d",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"Q",
    b"o",
    b"\x81",
    b"\x92",
    b"\x93",
    b"\x94",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x97",
    b"h\0",
    b"h\x03",
    b"q\0",
    b"j\x05\0\0\0",
    b"r\xff\xff\xff\xff",
    b"K\x01",
    b"M\xff\xff",
    b"J\xff\xff\xff\xff",
    b"\x8a\x00",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\xff",
    b"X\x01\0\0\0a",
    b"X\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x8c\x01a",
    b"\x95\x10\0\0\0\0\0\0\0",
    b"\x82\x01",
    b"cos\nsystem\n",
    b"X\x09\0\0\0touch ran\x85R",
    b"X\x09\0\0\0touch ranios\nsystem\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b".",
    b"\x80\x04",
    b"I1\n",
];

/// A good state of one of the models.
fn state(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> State {
    let model = folder.join("m");
    link(&workshop.model(chance.pick(&workshop.models)), &model);
    let mut files = crate::names(&model);
    files.retain(|name| name.contains(".safetensors"));
    files.sort();
    let mut state = State { newer: chance.one_in(3), parameters: chance.one_in(4), ..State::default() };
    for file in files {
        let data = read(model.join(&file));
        std::fs::remove_file(model.join(&file)).unwrap();
        if file.ends_with(".safetensors") {
            let tensors = SafeTensors::deserialize(&data).unwrap();
            let mut names = tensors.names();
            names.sort();
            let views: Vec<_> = names.iter().map(|name| (*name, tensors.tensor(name).unwrap())).collect();
            let part = State::of(views.iter().map(|(name, view)| (*name, view.dtype(), view.shape(), view.data())));
            let before = state.storages.len();
            state.storages.extend(part.storages);
            state.tensors.extend(part.tensors.into_iter().map(|mut view| {
                view.storage += before;
                view
            }));
        }
    }
    if chance.one_in(6) {
        state.wrapper = Some(*chance.pick(&["state_dict", "model", "other"]));
    }
    state
}

fn weird(chance: &mut Chance) -> i64 {
    *chance.pick(&[0, 1, -1, 2, 255, 65536, i64::MAX, i64::MIN, 1 << 31, 1 << 32, (1 << 32) - 1, 1 << 61, 1 << 62])
}

/// A tensor that says something else than it is.
fn views(state: &mut State, chance: &mut Chance) {
    let count = state.tensors.len();
    let other = state.tensors[chance.below(count)].clone();
    let view = &mut state.tensors[chance.below(count)];
    let dimension = chance.below(view.shape.len());
    match chance.below(7) {
        // A number by itself has no dimensions.
        1 | 2 if view.shape.is_empty() => (view.shape, view.strides) = (vec![weird(chance)], vec![1]),
        0 => view.offset = weird(chance),
        1 => view.shape[dimension] = weird(chance),
        2 => view.strides[dimension] = weird(chance),
        3 => (view.shape, view.strides) = (other.shape, other.strides),
        4 => view.storage = other.storage,
        5 => view.name = other.name,
        _ => {
            view.shape.reverse();
            view.strides.reverse();
        }
    }
}

/// A directory that says something else than is there.
fn entries(entries: &mut Vec<Entry>, chance: &mut Chance) {
    let count = entries.len();
    let other = entries[chance.below(count)].clone();
    let at = if chance.one_in(3) { 0 } else { chance.below(count) };
    let entry = &mut entries[at];
    match chance.below(8) {
        0 => entry.bytes = Some(weird(chance) as u64),
        1 => entry.begin = Some(weird(chance) as u64),
        2 => entry.method = *chance.pick(&[8, 9, 0xffff]),
        3 => entry.flags = *chance.pick(&[0, 1, 8, 0xffff]),
        4 => entry.name = chance.pick(&[&other.name, "archive/", "", "../../ran", "archive/data.pkl"]).to_string(),
        5 => entry.data = other.data,
        6 => entries.push(other),
        _ => drop(entries.remove(at)),
    }
}

/// Instructions put into a pickle, or in place of all of it.
fn instructions(pickle: &[u8], chance: &mut Chance) -> Vec<u8> {
    let count = *chance.pick(&[1, 2, 5, 50]);
    let added: Vec<u8> = (0..count).flat_map(|_| *chance.pick(INSTRUCTIONS)).copied().collect();
    match chance.below(4) {
        0 => [&b"\x80\x02"[..], &added, b"."].concat(),
        1 => {
            let one = chance.pick(INSTRUCTIONS);
            let many = one.repeat(*chance.pick(&[1_000, 100_000, (8 << 20) / one.len()]));
            [&b"\x80\x02"[..], &many, b"."].concat()
        }
        2 => [&pickle[..pickle.len() - 1], &added, b"."].concat(),
        _ => {
            let at = chance.below(pickle.len());
            [&pickle[..at], &added, &pickle[at..]].concat()
        }
    }
}

pub fn pytorch(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let mut state = state(workshop, folder, chance);
    let kind = chance.below(8);
    if kind == 0 {
        views(&mut state, chance);
    }
    let mut parts = state.entries();
    match kind {
        1 => entries(&mut parts, chance),
        2 | 3 => {
            let pickle = std::mem::take(&mut parts[0].data);
            let end = *chance.pick(&[64, 1_000, pickle.len()]);
            parts[0].data = mutate::bytes(pickle, 0..end, chance);
        }
        4 => parts[0].data = instructions(&parts[0].data, chance),
        _ => (),
    }
    let file = pytorch::archive(&parts);
    let size = file.len();
    let begin = file.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap_or(0);
    let file = match kind {
        5 => mutate::bytes(file, begin.saturating_sub(2_000)..size, chance),
        6 => mutate::bytes(file, 0..size, chance),
        7 if chance.one_in(2) => {
            let [entries, bytes, at] = [(); 3].map(|()| weird(chance) as u64);
            [&file[..], &pytorch::end(entries, bytes, at, size as u64)].concat()
        }
        _ => file,
    };
    write(folder.join("m/pytorch_model.bin"), file);
    Start { may_write: vec!["results"], ..script(folder, chance) }
}
