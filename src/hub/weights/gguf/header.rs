//! What a GGUF file says of itself: metadata, and where its tensors are. Nothing that it says of
//! counts and lengths is believed further than the file goes, and none of them makes this program
//! use more memory than a header may have bytes.
//!
//! Facts: the specification of GGUF among the documents of ggml. Numbers are little endian.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::failure::GgufFailure;
use crate::error::{Error, Result};
use crate::formats::ggml::Type;
use crate::hub::foreign;
use crate::hub::weights::source::{ByteSource, SourceFile};
use crate::outside::shown;

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// Bytes of a header: vocabularies of the largest models have a tenth of it.
const MAX_HEADER: u64 = 128 << 20;
/// Entries of metadata, values in all of its arrays together, tensors, and bytes of a name.
const MAX_ENTRIES: u64 = 1 << 14;
const MAX_VALUES: u64 = 1 << 21;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_NAME: u64 = 1024;
/// Dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;
/// Bytes to a multiple of which tensors begin, where the file does not say.
const ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// A tensor as the file has it.
pub(super) struct Tensor {
    pub name: String,
    /// The rows' length last, as everywhere else.
    pub shape: Vec<usize>,
    pub kind: &'static Type,
    pub place: Place,
    pub bytes: u64,
}

/// A byte of a part of the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub file: usize,
    pub begin: u64,
}

impl Place {
    pub(super) fn behind(self, bytes: u64) -> Self {
        Self { begin: self.begin + bytes, ..self }
    }
}

/// What all parts of a model say.
pub(super) struct Header {
    /// Of the first part.
    pub metadata: HashMap<String, Value>,
    pub tensors: Vec<Tensor>,
    /// Bytes before the data of tensors, of each part.
    pub bytes: Vec<u64>,
}

/// Names the file in messages.
pub(super) fn damaged(place: &str, what: impl std::fmt::Display) -> Error {
    Error::of(GgufFailure::Damaged { place: place.to_string(), problem: what.to_string() })
}

pub(super) fn unsupported(place: &str, what: impl std::fmt::Display) -> Error {
    Error::of(GgufFailure::Unsupported { place: place.to_string(), what: what.to_string() })
}

/// Bytes of the file one after the other.
struct Input<'a> {
    place: String,
    source: &'a dyn ByteSource,
    /// The index of the file in the source, and its length.
    file: usize,
    bytes: u64,
    /// Bytes that its header may have.
    most: u64,
    /// What was read, from the beginning of the file on.
    data: Vec<u8>,
    at: usize,
    /// Values in arrays so far.
    values: u64,
}

/// The headers of all files of a source, which are the parts of one model; `places` are their names
/// in messages.
///
/// # Errors
/// `corrupt` where one is damaged or they do not belong together, `unsupported` where one is of a
/// version or has a type that is not read.
pub(super) fn read(source: &dyn ByteSource, places: &[String]) -> Result<Header> {
    let mut whole = Header { metadata: HashMap::new(), tensors: Vec::new(), bytes: Vec::new() };
    let files = source.files()?;
    for (file, (place, SourceFile { bytes, .. })) in places.iter().zip(files).enumerate() {
        let most = MAX_HEADER.saturating_sub(whole.bytes.iter().sum());
        let (place, bytes) = (place.clone(), *bytes);
        let mut input = Input { place, source, file, bytes, most, data: Vec::new(), at: 0, values: 0 };
        let (metadata, tensors, header) = input.header()?;
        belongs(&input.place, &metadata, file, files.len())?;
        if file == 0 {
            whole.metadata = metadata;
        }
        whole.tensors.extend(tensors);
        whole.bytes.push(header);
        if whole.tensors.len() as u64 > MAX_TENSORS {
            return input.damaged(format!("the parts of the model have more than {MAX_TENSORS} tensors"));
        }
    }
    let mut names = HashSet::new();
    if let Some(tensor) = whole.tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        let place = &places[tensor.place.file];
        return Err(damaged(place, format!("tensor `{}` is in the model twice", shown(&tensor.name))));
    }
    let told = whole.metadata.get("split.tensors.count").and_then(Value::as_u64);
    match told.filter(|told| *told != whole.tensors.len() as u64) {
        Some(told) => {
            let found = whole.tensors.len();
            Err(damaged(&places[0], format!("the model has {told} tensors, and its parts have {found}")))
        }
        None => Ok(whole),
    }
}

/// Refuses a file that is not part `file` of `count`.
fn belongs(place: &str, metadata: &HashMap<String, Value>, file: usize, count: usize) -> Result<()> {
    let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
    let parts = number("split.count").unwrap_or(1).max(1);
    if parts != count as u64 {
        let what = format!("it is one of {parts} parts of a model, and by its name one of {count}");
        let hint = "parts lie in one folder and are called NAME-00001-of-00002.gguf, NAME-00002-of-00002.gguf and so on, as they came";
        return Err(unsupported(place, what).hint(hint));
    }
    match number("split.no").filter(|number| count > 1 && *number != file as u64) {
        Some(number) => {
            let what = format!(
                "by what it says it is part {} of a model, and by its name part {}",
                number.saturating_add(1),
                file + 1
            );
            Err(damaged(place, what))
        }
        None => Ok(()),
    }
}

impl Input<'_> {
    fn damaged<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(damaged(&self.place, what))
    }

    fn take(&mut self, count: u64) -> Result<&[u8]> {
        let end = (self.at as u64).saturating_add(count);
        if end > self.bytes {
            let file = self.bytes;
            return self.damaged(format!("it ends within its header: more than its {file} bytes are needed"));
        }
        if end > self.most {
            return self.damaged(format!("its header is longer than the {} MB of any model", MAX_HEADER >> 20));
        }
        while (self.data.len() as u64) < end {
            let begin = self.data.len();
            let piece = PIECE.min(self.bytes - begin as u64) as usize;
            self.data.resize(begin + piece, 0);
            self.source.read(self.file, begin as u64, &mut self.data[begin..])?;
        }
        let begin = std::mem::replace(&mut self.at, end as usize);
        Ok(&self.data[begin..end as usize])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        // Tokens of some vocabularies are no UTF-8; nothing is computed from those.
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn name(&mut self) -> Result<String> {
        let name = self.text()?;
        if name.len() as u64 > MAX_NAME {
            return self.damaged(format!("a name in it has {} bytes", name.len()));
        }
        Ok(name)
    }

    /// Metadata, tensors, and bytes before the data of tensors.
    fn header(&mut self) -> Result<(HashMap<String, Value>, Vec<Tensor>, u64)> {
        let head = self.take(foreign::TELLING.min(self.bytes))?.to_vec();
        self.at = 0;
        if !head.starts_with(MAGIC) {
            let pointer = foreign::pointer(&self.place, &head);
            return Err(pointer.unwrap_or_else(|| damaged(&self.place, "it does not begin as a GGUF file")));
        }
        self.take(MAGIC.len() as u64)?;
        match self.u32()? {
            2 | 3 => {}
            version if version.swap_bytes() < 1 << 16 => {
                return Err(unsupported(&self.place, "a GGUF file whose numbers are big endian"));
            }
            version => {
                return Err(unsupported(&self.place, format!("version {version} of GGUF; versions 2 and 3 are read")));
            }
        }
        let (tensors, entries) = (self.u64()?, self.u64()?);
        if tensors > MAX_TENSORS || entries > MAX_ENTRIES {
            return self
                .damaged(format!("{tensors} tensors and {entries} entries of metadata are more than models have"));
        }
        let mut metadata = HashMap::new();
        for _ in 0..entries {
            let key = self.name()?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return self.damaged(format!("`{}` is in its metadata twice", shown(&key)));
            }
        }
        let alignment = metadata.get("general.alignment").map_or(Some(ALIGNMENT), Value::as_u64);
        let Some(alignment) = alignment.filter(|bytes| bytes.is_power_of_two() && *bytes <= MAX_ALIGNMENT) else {
            return self.damaged("`general.alignment` in it is no power of two, or larger than any");
        };
        let mut found = Vec::new();
        for _ in 0..tensors {
            found.push(self.tensor(alignment)?);
        }
        let begin = (self.at as u64).next_multiple_of(alignment);
        self.placed(&mut found, begin)?;
        Ok((metadata, found, begin.min(self.bytes)))
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => self.array::<1>()?[0].into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            6 => shortest(f32::from_le_bytes(self.array()?)),
            7 => (self.array::<1>()?[0] != 0).into(),
            8 => self.text()?.into(),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == 9 {
                    return self.damaged("its metadata has lists of lists, which no model needs");
                }
                self.values = self.values.saturating_add(count);
                if self.values > MAX_VALUES {
                    return self.damaged(format!("lists in its metadata have more than {MAX_VALUES} values"));
                }
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind)?);
                }
                Value::Array(list)
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => f64::from_le_bytes(self.array()?).into(),
            _ => return self.damaged(format!("its metadata has a value of a type {kind} that does not exist")),
        })
    }

    /// A tensor with its offset behind the header.
    fn tensor(&mut self, alignment: u64) -> Result<Tensor> {
        let name = self.name()?;
        let told = shown(&name);
        let dimensions = self.u32()? as usize;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return self.damaged(format!("tensor `{told}` in it has {dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, self.u64()?);
        }
        let number = self.u32()?;
        let begin = self.u64()?;
        let Some(kind) = Type::of(number) else {
            let what = format!("tensor `{told}` in it is of ggml's type {number}, which is not read");
            return Err(unsupported(&self.place, what));
        };
        let elements = shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
        let columns = kind.columns as u64;
        let whole = shape.last().is_some_and(|row| row % columns == 0);
        let bytes = elements.filter(|_| whole).and_then(|all| (all / columns).checked_mul(kind.bytes as u64));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= self.bytes) else {
            return self.damaged(format!("tensor `{told}` in it has sizes that no {} of this file has", kind.name));
        };
        if begin % alignment != 0 {
            return self.damaged(format!("tensor `{told}` in it does not begin at a multiple of {alignment} bytes"));
        }
        let shape = shape.into_iter().map(|size| size as usize).collect();
        Ok(Tensor { name, shape, kind, place: Place { file: self.file, begin }, bytes })
    }

    /// The tensors at their places in the file.
    fn placed(&self, tensors: &mut [Tensor], data: u64) -> Result<()> {
        for tensor in &mut *tensors {
            let told = shown(&tensor.name);
            let begin = tensor.place.begin.checked_add(data);
            let Some(begin) =
                begin.filter(|begin| begin.checked_add(tensor.bytes).is_some_and(|end| end <= self.bytes))
            else {
                return self.damaged(format!("tensor `{told}` in it ends behind the {} bytes of the file", self.bytes));
            };
            tensor.place.begin = begin;
        }
        let mut places: Vec<(u64, u64)> = tensors.iter().map(|t| (t.place.begin, t.place.begin + t.bytes)).collect();
        places.sort_unstable();
        match places.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            true => self.damaged("tensors in it overlap"),
            false => Ok(()),
        }
    }
}

/// A number in f32 as the decimal that it stands for: 1e-5 and not 0.000009999999747378752.
fn shortest(number: f32) -> Value {
    format!("{number:e}").parse::<f64>().ok().map_or(Value::Null, Value::from)
}
