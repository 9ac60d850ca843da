//! The objects that a pickle of weights can create: simple values, storages and tensors, and the
//! few functions that make those. Values refer to each other by index, so that depth and cycles are
//! harmless.

use safetensors::Dtype;

use super::problem::{Outcome, damaged, foreign};
use crate::outside::shown;

/// The largest number of dimensions of a tensor.
const MAX_RANK: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// None, a bool, a float, or bytes, on which no tensor depends.
    Plain,
    Int(i64),
    /// Start and end in the pickle.
    Text(u32, u32),
    /// An index in `lists`.
    Tuple(u32),
    List(u32),
    /// An index in `maps`.
    Map(u32),
    /// An index in `storages`.
    Storage(u32),
    /// An index in `tensors`.
    Tensor(u32),
    Known(Known),
}

/// The known names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    Size,
    /// A tensor of a typed storage.
    Rebuild,
    /// As `Rebuild`, with a type of its own.
    RebuildTyped,
    /// A trainable tensor: the same tensor.
    Parameter,
    /// The type of a storage. None means bytes.
    Storage(Option<Dtype>),
    Dtype(Dtype),
}

/// `torch.float32` and similar names.
const DTYPES: [(&str, Dtype); 19] = [
    ("float32", Dtype::F32),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::BF16),
    ("float64", Dtype::F64),
    ("int64", Dtype::I64),
    ("int32", Dtype::I32),
    ("int16", Dtype::I16),
    ("int8", Dtype::I8),
    ("uint8", Dtype::U8),
    ("uint16", Dtype::U16),
    ("uint32", Dtype::U32),
    ("uint64", Dtype::U64),
    ("bool", Dtype::BOOL),
    ("complex64", Dtype::C64),
    ("float8_e4m3fn", Dtype::F8_E4M3),
    ("float8_e5m2", Dtype::F8_E5M2),
    ("float8_e4m3fnuz", Dtype::F8_E4M3FNUZ),
    ("float8_e5m2fnuz", Dtype::F8_E5M2FNUZ),
    ("float8_e8m0fnu", Dtype::F8_E8M0),
];

const STORAGES: [(&str, Option<Dtype>); 12] = [
    ("FloatStorage", Some(Dtype::F32)),
    ("HalfStorage", Some(Dtype::F16)),
    ("BFloat16Storage", Some(Dtype::BF16)),
    ("DoubleStorage", Some(Dtype::F64)),
    ("LongStorage", Some(Dtype::I64)),
    ("IntStorage", Some(Dtype::I32)),
    ("ShortStorage", Some(Dtype::I16)),
    ("CharStorage", Some(Dtype::I8)),
    ("ByteStorage", Some(Dtype::U8)),
    ("BoolStorage", Some(Dtype::BOOL)),
    ("ComplexFloatStorage", Some(Dtype::C64)),
    ("UntypedStorage", None),
];

impl Known {
    /// The object with this name.
    ///
    /// # Errors
    /// An error if tensors do not need it.
    pub(super) fn named(module: &str, name: &str) -> Outcome<Self> {
        let dtype = || DTYPES.iter().find(|(dtype, _)| *dtype == name).map(|(_, dtype)| Self::Dtype(*dtype));
        let storage = || STORAGES.iter().find(|(storage, _)| *storage == name).map(|(_, dtype)| Self::Storage(*dtype));
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch", "Size") => Some(Self::Size),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::Rebuild),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTyped),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Self::Parameter),
            ("torch", _) => storage().or_else(dtype),
            ("torch.storage", "UntypedStorage") => storage(),
            _ => None,
        };
        found.map_or_else(|| foreign(format!("`{}`", shown(&format!("{module}.{name}")))), Ok)
    }

    /// Its description for an error.
    fn told(self) -> &'static str {
        match self {
            Self::OrderedDict => "a dictionary of something else",
            Self::Size => "a size of something else",
            Self::Rebuild | Self::RebuildTyped => "a tensor of something else than a storage",
            Self::Parameter => "a parameter of something else than a tensor",
            Self::Storage(_) => "a storage by a call",
            Self::Dtype(_) => "a call of a type of numbers",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage {
    /// Start and end in the pickle of its entry's name in the archive.
    pub key: (u32, u32),
    pub dtype: Option<Dtype>,
    /// Number of elements, or of bytes if it has no type.
    pub elements: u64,
}

/// A view of a storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct View {
    pub storage: u32,
    pub dtype: Dtype,
    /// Number of elements before it.
    pub offset: u64,
    /// An index in `lists`.
    sizes: u32,
    strides: u32,
}

#[derive(Default)]
pub(super) struct Objects<'a> {
    pub pickle: &'a [u8],
    pub lists: Vec<Vec<Value>>,
    pub maps: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<Storage>,
    pub tensors: Vec<View>,
}

/// Appends `item` and returns its index.
fn put<T>(items: &mut Vec<T>, item: T) -> u32 {
    items.push(item);
    (items.len() - 1) as u32
}

impl<'a> Objects<'a> {
    pub(super) fn tuple(&mut self, values: Vec<Value>) -> Value {
        Value::Tuple(put(&mut self.lists, values))
    }

    pub(super) fn list(&mut self, values: Vec<Value>) -> Value {
        Value::List(put(&mut self.lists, values))
    }

    pub(super) fn map(&mut self, pairs: Vec<(Value, Value)>) -> Value {
        Value::Map(put(&mut self.maps, pairs))
    }

    pub(super) fn text(&self, (begin, end): (u32, u32)) -> &'a str {
        std::str::from_utf8(&self.pickle[begin as usize..end as usize]).expect("it was looked at when it was met")
    }

    /// The storage of a persistent id: `("storage", type, key, device, elements)`.
    pub(super) fn storage(&mut self, id: Value) -> Outcome<Value> {
        let found = match id {
            Value::Tuple(id) => match self.lists[id as usize][..] {
                [
                    Value::Text(b, e),
                    Value::Known(Known::Storage(dtype)),
                    Value::Text(from, to),
                    _,
                    Value::Int(elements),
                ] if self.text((b, e)) == "storage" => {
                    u64::try_from(elements).ok().map(|elements| Storage { key: (from, to), dtype, elements })
                }
                _ => None,
            },
            _ => None,
        };
        match found {
            Some(storage) => Ok(Value::Storage(put(&mut self.storages, storage))),
            None => foreign("a persistent object that is no storage"),
        }
    }

    /// The result of a known function for its arguments.
    pub(super) fn call(&mut self, function: Value, arguments: Value) -> Outcome<Value> {
        let (Value::Known(known), Value::Tuple(arguments)) = (function, arguments) else {
            return foreign("a call of what is no function");
        };
        let arguments = &self.lists[arguments as usize];
        match (known, &arguments[..]) {
            (Known::OrderedDict, []) => Ok(self.map(Vec::new())),
            (Known::Size, [sizes @ Value::Tuple(_)]) => Ok(*sizes),
            // The metadata after the hooks means that the numbers differ from the stored ones, for
            // example negated.
            (Known::Rebuild, [_, _, _, _, _, _, Value::Map(map)])
            | (Known::RebuildTyped, [_, _, _, _, _, _, _, Value::Map(map)])
                if !self.maps[*map as usize].is_empty() =>
            {
                foreign("a tensor that is another than its numbers")
            }
            (Known::Rebuild, &[Value::Storage(storage), offset, sizes, strides, ..]) => {
                match self.storages[storage as usize].dtype {
                    Some(dtype) => self.view(storage, dtype, (offset, sizes, strides)),
                    None => damaged("a tensor in it has no type of numbers"),
                }
            }
            (
                Known::RebuildTyped,
                &[Value::Storage(storage), offset, sizes, strides, _, _, Value::Known(Known::Dtype(dtype)), ..],
            ) => self.view(storage, dtype, (offset, sizes, strides)),
            (Known::Parameter, [tensor @ Value::Tensor(_), ..]) => Ok(*tensor),
            _ => foreign(known.told()),
        }
    }

    fn view(&mut self, storage: u32, dtype: Dtype, (offset, sizes, strides): (Value, Value, Value)) -> Outcome<Value> {
        let (Value::Int(offset), Value::Tuple(sizes), Value::Tuple(strides)) = (offset, sizes, strides) else {
            return foreign(Known::Rebuild.told());
        };
        let offset = u64::try_from(offset);
        let count = |list: u32| self.lists[list as usize].len();
        match offset {
            Ok(offset) if count(sizes) == count(strides) && count(sizes) <= MAX_RANK => {
                Ok(Value::Tensor(put(&mut self.tensors, View { storage, dtype, offset, sizes, strides })))
            }
            _ => damaged("a tensor in it has a place or a number of dimensions that none has"),
        }
    }

    /// Sizes and strides of a tensor, in elements.
    pub(super) fn shape(&self, view: &View) -> Outcome<(Vec<usize>, Vec<usize>)> {
        let numbers = |list: u32| {
            let number = |value: &Value| match value {
                Value::Int(number) => usize::try_from(*number).ok(),
                _ => None,
            };
            self.lists[list as usize].iter().map(number).collect::<Option<Vec<usize>>>()
        };
        match (numbers(view.sizes), numbers(view.strides)) {
            (Some(sizes), Some(strides)) => Ok((sizes, strides)),
            _ => damaged("a tensor in it has sizes or strides that are no numbers from 0 on"),
        }
    }
}
