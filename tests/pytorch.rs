//! PyTorch files for tests and fuzzers, in the layout of `torch.save`: the archive with its padding
//! and descriptors, and a pickle of protocol 2. Both can be assembled by hand, with any content.

use std::path::Path;

use safetensors::Dtype;

/// The layout of a tensor in a storage, which may have others.
#[derive(Clone)]
pub struct View {
    pub name: String,
    pub dtype: Dtype,
    /// Of the storage among those of the file.
    pub storage: usize,
    /// In elements.
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// What a file holds.
#[derive(Clone, Default)]
pub struct State {
    pub tensors: Vec<View>,
    pub storages: Vec<(Dtype, Vec<u8>)>,
    /// A dictionary around it has it under this key, beside an epoch.
    pub wrapper: Option<&'static str>,
    /// Tensors are parameters, which are trained.
    pub parameters: bool,
    /// Written by protocol 4, with names from the stack, frames and numbered places.
    pub newer: bool,
}

impl State {
    /// Every tensor in a storage of its own.
    pub fn of<'a>(tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>) -> Self {
        let mut state = Self::default();
        for (name, dtype, shape, data) in tensors {
            let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
            let (name, strides) = (name.to_string(), strides(&shape));
            state.tensors.push(View { name, dtype, storage: state.storages.len(), offset: 0, shape, strides });
            state.storages.push((dtype, data.to_vec()));
        }
        state
    }

    /// All tensors of one type as views of one storage, with a gap in front.
    pub fn in_one_storage(mut self) -> Self {
        let dtype = self.storages[0].0;
        let mut all = vec![0xff; 3 * bytes(dtype)];
        for view in &mut self.tensors {
            assert_eq!(view.dtype, dtype);
            view.offset = (all.len() / bytes(dtype)) as i64;
            all.extend(&self.storages[view.storage].1);
            view.storage = 0;
        }
        self.storages = vec![(dtype, all)];
        self
    }

    pub fn pickle(&self) -> Vec<u8> {
        let mut pickler = Pickler { newer: self.newer, ..Pickler::default() };
        pickler.state(self);
        pickler.finished()
    }

    /// The entries of the archive, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |name: &str, data: &[u8]| Entry::new(&format!("archive/{name}"), data);
        let mut entries = vec![
            entry("data.pkl", &self.pickle()),
            entry(".format_version", b"1"),
            entry(".storage_alignment", b"64"),
            entry("byteorder", b"little"),
        ];
        entries.extend(self.storages.iter().enumerate().map(|(i, (_, data))| entry(&format!("data/{i}"), data)));
        entries.push(entry("version", b"3\n"));
        entries.push(entry(".data/serialization_id", b"0636457737946401051300000025273995036293"));
        entries
    }

    pub fn file(&self) -> Vec<u8> {
        archive(&self.entries())
    }
}

#[allow(dead_code)] // The fuzz targets write whole files.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>) {
    std::fs::write(path, State::of(tensors).file()).unwrap();
}

fn bytes(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

pub fn strides(shape: &[i64]) -> Vec<i64> {
    let behind = |i: usize| shape[i + 1..].iter().product();
    (0..shape.len()).map(behind).collect()
}

fn storage_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::F64 => "DoubleStorage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::BOOL => "BoolStorage",
        // Younger types have no storage of their own.
        _ => "UntypedStorage",
    }
}

/// Writes a pickle instruction by instruction, as Python's does for `torch.save`.
#[derive(Default)]
struct Pickler {
    out: Vec<u8>,
    newer: bool,
    memo: Vec<String>,
}

impl Pickler {
    /// Remembers what is on top of the stack, under a name if it will be met again.
    fn remember(&mut self, name: &str) {
        let place = self.memo.len();
        self.memo.push(name.to_string());
        match (self.newer, u8::try_from(place)) {
            (true, _) => self.out.push(0x94),
            (false, Ok(place)) => self.out.extend([b'q', place]),
            (false, Err(_)) => self.out.extend([&b"r"[..], &(place as u32).to_le_bytes()].concat()),
        }
    }

    /// Whether it was met before: then it is fetched.
    fn met(&mut self, name: &str) -> bool {
        let Some(place) = self.memo.iter().position(|known| known == name) else { return false };
        match u8::try_from(place) {
            Ok(place) => self.out.extend([b'h', place]),
            Err(_) => self.out.extend([&b"j"[..], &(place as u32).to_le_bytes()].concat()),
        }
        true
    }

    fn text(&mut self, text: &str) {
        if self.met(text) {
            return;
        }
        match (self.newer, u8::try_from(text.len())) {
            (true, Ok(length)) => self.out.extend([0x8c, length]),
            _ => self.out.extend([&b"X"[..], &(text.len() as u32).to_le_bytes()].concat()),
        }
        self.out.extend(text.as_bytes());
        self.remember(text);
    }

    fn number(&mut self, number: i64) {
        match (u8::try_from(number), u16::try_from(number), i32::try_from(number)) {
            (Ok(one), ..) => self.out.extend([b'K', one]),
            (_, Ok(two), _) => self.out.extend([&b"M"[..], &two.to_le_bytes()].concat()),
            (_, _, Ok(four)) => self.out.extend([&b"J"[..], &four.to_le_bytes()].concat()),
            _ => self.out.extend([&b"\x8a\x08"[..], &number.to_le_bytes()].concat()),
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        let whole = format!("{module}\n{name}\n");
        if self.met(&whole) {
            return;
        }
        if self.newer {
            self.text(module);
            self.text(name);
            self.out.push(0x93);
        } else {
            self.out.push(b'c');
            self.out.extend(whole.as_bytes());
        }
        self.remember(&whole);
    }

    fn numbers(&mut self, numbers: &[i64]) {
        match numbers.len() {
            0 => return self.out.push(b')'),
            1..=3 => (),
            _ => self.out.push(b'('),
        }
        numbers.iter().for_each(|number| self.number(*number));
        self.out.push([b't', 0x85, 0x86, 0x87, b't'][numbers.len().min(4)]);
        self.remember("");
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.out.extend(b")R");
        self.remember("");
    }

    fn tensor(&mut self, view: &View, (dtype, data): &(Dtype, Vec<u8>), parameter: bool) {
        if parameter {
            self.global("torch._utils", "_rebuild_parameter");
            self.out.push(b'(');
        }
        let typed = storage_type(*dtype) != "UntypedStorage";
        self.global("torch._utils", if typed { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" });
        self.out.extend(b"((");
        self.text("storage");
        self.global(if typed { "torch" } else { "torch.storage" }, storage_type(*dtype));
        self.text(&view.storage.to_string());
        self.text("cpu");
        self.number((data.len() / if typed { bytes(*dtype) } else { 1 }) as i64);
        self.out.push(b't');
        self.remember("");
        self.out.push(b'Q');
        self.number(view.offset);
        self.numbers(&view.shape);
        self.numbers(&view.strides);
        self.out.push(0x89);
        self.ordered_dict();
        if !typed {
            self.global("torch", "float8_e4m3fn");
        }
        self.out.push(b't');
        self.remember("");
        self.out.push(b'R');
        self.remember("");
        if parameter {
            self.out.push(0x88);
            self.ordered_dict();
            self.out.extend(b"tR");
            self.remember("");
        }
    }

    fn state(&mut self, state: &State) {
        if let Some(key) = state.wrapper {
            self.out.push(b'}');
            self.remember("");
            self.out.push(b'(');
            self.text("epoch");
            self.number(3);
            self.text("loss");
            self.out.extend(b"G\x3f\xb9\x99\x99\x99\x99\x99\x9a");
            self.text(key);
        }
        self.ordered_dict();
        // Items come in portions of a thousand.
        for portion in state.tensors.chunks(1000) {
            self.out.push(b'(');
            for view in portion {
                self.text(&view.name);
                self.tensor(view, &state.storages[view.storage], state.parameters);
            }
            self.out.push(b'u');
        }
        // The versions of the model's modules are beside the items.
        self.out.push(b'}');
        self.remember("");
        self.text("_metadata");
        self.ordered_dict();
        self.out.push(b'(');
        self.text("");
        self.out.push(b'}');
        self.remember("");
        self.text("version");
        self.number(1);
        self.out.extend(b"susb");
        if state.wrapper.is_some() {
            self.out.push(b'u');
        }
    }

    fn finished(mut self) -> Vec<u8> {
        self.out.push(b'.');
        match self.newer {
            true => [&b"\x80\x04\x95"[..], &(self.out.len() as u64).to_le_bytes(), &self.out].concat(),
            false => [&b"\x80\x02"[..], &self.out].concat(),
        }
    }
}

/// An entry of an archive.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    /// What the directory says, where that is not what is there.
    pub method: u16,
    pub flags: u16,
    pub bytes: Option<u64>,
    pub begin: Option<u64>,
}

impl Entry {
    pub fn new(name: &str, data: &[u8]) -> Self {
        let (name, data) = (name.to_string(), data.to_vec());
        Self { name, data, method: 0, flags: 0x0808, bytes: None, begin: None }
    }
}

/// An archive as miniz writes it for PyTorch: data at multiples of 64 bytes behind padding in a field "FB", sizes behind the data,
/// and the end of the directory in 64 bits as well.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for Entry { name, data, method, flags, bytes, begin } in entries {
        let start = out.len() as u64;
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let padding = 64 - (out.len() + 30 + name.len() + 4) % 64;
        let field = [&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat();
        out.extend(b"PK\x03\x04\0\0");
        out.extend([*flags, *method, 0, 0].map(u16::to_le_bytes).concat());
        out.extend([0u32; 3].map(u32::to_le_bytes).concat());
        out.extend([name.len() as u16, field.len() as u16].map(u16::to_le_bytes).concat());
        out.extend([name.as_bytes(), &field, data].concat());
        out.extend(b"PK\x07\x08");
        out.extend([crc.sum(), data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat());
        let (bytes, begin) = (bytes.unwrap_or(data.len() as u64), begin.unwrap_or(start));
        let wide = [bytes, bytes, begin].into_iter().filter(|value| *value >= u32::MAX.into());
        let wide: Vec<u8> = wide.flat_map(u64::to_le_bytes).collect();
        let extra = match wide.len() {
            0 => Vec::new(),
            length => [&[1, 0, length as u8, 0][..], &wide].concat(),
        };
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        directory.extend(b"PK\x01\x02\0\0\0\0");
        directory.extend([*flags, *method, 0, 0].map(u16::to_le_bytes).concat());
        directory.extend([crc.sum().to_le_bytes(), narrow(bytes), narrow(bytes)].concat());
        directory.extend([name.len() as u16, extra.len() as u16, 0, 0, 0].map(u16::to_le_bytes).concat());
        directory.extend([[0; 4], narrow(begin)].concat());
        directory.extend([name.as_bytes(), &extra].concat());
    }
    let begin = out.len() as u64;
    out.extend(&directory);
    out.extend(end(entries.len() as u64, directory.len() as u64, begin, out.len() as u64));
    out
}

/// The end of an archive whose directory, as it says, has so many entries and bytes and begins there; `at` is where this stands.
pub fn end(entries: u64, bytes: u64, begin: u64, at: u64) -> Vec<u8> {
    let mut out = b"PK\x06\x06".to_vec();
    out.extend(44u64.to_le_bytes());
    out.extend([0x1e, 3, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([entries, entries, bytes, begin].map(u64::to_le_bytes).concat());
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(at.to_le_bytes());
    out.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
    let few = u16::try_from(entries).unwrap_or(u16::MAX).to_le_bytes();
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    out.extend([few, few].concat());
    out.extend([narrow(bytes), narrow(begin)].concat());
    out.extend([0, 0]);
    out
}
