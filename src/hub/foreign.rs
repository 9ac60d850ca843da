//! Formats of other programs: how each is recognised, its name, and advice if it is given in place
//! of a text, weights or token ids. All errors about unexpected files use this table, so that a
//! format has the same name everywhere.

use super::failure::{Failure, REFUSED};
use super::file_name::Name;
use crate::error::Error;
use crate::hub::text::markup;
use crate::outside::{self, shown};

/// A format, with advice if it is not supported.
pub(super) struct Foreign {
    /// The name with its article, as in "x.pt is a PyTorch file".
    pub what: &'static str,
    /// The possible first bytes of such files.
    begins: &'static [&'static [u8]],
    /// Bytes at an offset.
    within: Option<(usize, &'static [u8])>,
    /// First bytes that a text may have as well: they tell the format where bytes follow that no
    /// text has.
    binary: Option<&'static [u8]>,
    /// Endings of their names, or whole names.
    endings: &'static [&'static str],
    /// Advice if it is given as a text. None if texts in it are supported, or if the ending is
    /// ambiguous.
    as_text: Option<&'static str>,
    /// Advice if it contains weights. None if weights in it are supported, or if it is not a format
    /// of weights.
    pub as_weights: Option<&'static str>,
    /// True if it contains files of any kind.
    archive: bool,
    /// True if it begins like the archive that it is, so that only the name indicates the contents.
    archived: bool,
}

pub(super) const UNPACK: &str = "unpack it and name the file in it";
const SAVE: &str = "save or convert it as plain text (UTF-8)";
const EXPORT: &str = "write its texts to a Parquet, JSON Lines or CSV file";
const IDS: &str = "token ids can be given as safetensors or JSON, under `ids`";
const NO_TEXT: &str = "is it a file of weights? texts come from text, JSON, CSV and Parquet files";
const DATASETS: &str = "write it as Parquet: datasets.load_from_disk(FOLDER).to_parquet(\"texts.parquet\") in Python, or \
                        pyarrow.parquet.write_table";
const TRANSFORMERS: &str = "a PyTorch file is read where it is called pytorch_model.bin; or convert it in Python: \
                            AutoModelForCausalLM.from_pretrained(SOURCE).save_pretrained(FOLDER) writes \
                            safetensors; or look for a copy of this model that has them";
const RELEASE: &str =
    "look for this model's release in the layout of Hugging Face transformers, with config.json and safetensors files";
const GGUF: &str =
    "name a GGUF file of version 2 or 3 by its path, load_model(\"FILE.gguf\"); or the model it was made from";
const UNPACK_MODEL: &str = "unpack it, and give the folder that then holds config.json and safetensors files";

/// Number of first bytes that suffice to recognise every format, and to read a whole pointer.
pub const TELLING: u64 = 4096;

/// All known formats. If a folder has several kinds of weights, the first one in this order is
/// reported.
pub(super) static FORMATS: &[Foreign] = &[
    // The upper bytes of the header's length, and the header. It comes first, because the lower
    // bytes are arbitrary.
    format("a safetensors file", &[], &["safetensors"])
        .at(5, b"\0\0\0{")
        .text("token ids go under `ids`: load_tokens(#{ ids: \"x.safetensors\" })"),
    format("a PyTorch file", &[OLD_PYTORCH], &["bin", "pt", "pth", "ckpt", "pth.tar"])
        .text(NO_TEXT)
        .weights(TRANSFORMERS)
        .archived(),
    format(
        "a GGUF file of llama.cpp",
        &[b"GGUF\x01\0", b"GGUF\x02\0", b"GGUF\x03\0", b"GGUF\x04\0", b"GGUF\0\0\0", b"lmgg", b"fmgg", b"tjgg"],
        &["gguf", "ggml"],
    )
    .text(NO_TEXT)
    .weights(GGUF),
    format("a MessagePack file, as Flax writes weights", &[], &["msgpack"]).text(EXPORT).weights(RELEASE),
    format("an HDF5 file", &[b"\x89HDF\r\n"], &["h5", "hdf5"]).text(EXPORT).weights(RELEASE),
    format("a model of TensorFlow or Keras", &[], &["keras", "pb"]).text(NO_TEXT).weights(RELEASE).archived(),
    format(
        "an ONNX model",
        &[
            b"\x08\x03\x12",
            b"\x08\x04\x12",
            b"\x08\x05\x12",
            b"\x08\x06\x12",
            b"\x08\x07\x12",
            b"\x08\x08\x12",
            b"\x08\x09\x12",
            b"\x08\x0a\x12",
            b"\x08\x0b\x12",
        ],
        &["onnx", "onnx_data"],
    )
    .text(NO_TEXT)
    .weights(RELEASE),
    format("an OpenVINO model", &[], &["openvino_model.bin"]).text(NO_TEXT).weights(RELEASE),
    format("a NumPy file", &[b"\x93NUMPY"], &["npy", "npz"]).text(IDS).weights(RELEASE).archived(),
    format(
        "a model for running on devices",
        &[b"LITERTLM"],
        &["tflite", "mlmodel", "engine", "litertlm", "nemo", "ot"],
    )
    .at(4, b"TFL3")
    .text(NO_TEXT)
    .weights(RELEASE)
    .archived(),
    format("a pickle file", &[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"], &["pkl", "pickle"])
        .text(EXPORT)
        .weights(RELEASE)
        .archive(),
    // Archives whose first file says what they are.
    format("an EPUB book", &[], &["epub"])
        .at(30, b"mimetypeapplication/epub+zip")
        .text("convert it first: pandoc -t plain FILE -o NEW.txt, or ebook-convert FILE NEW.txt")
        .archived(),
    format("a Word or OpenDocument text", &[], &["doc", "docx", "odt"])
        .at(30, b"mimetypeapplication/vnd.oasis.opendocument.text")
        .text(SAVE)
        .archived(),
    format("a spreadsheet", &[], &["xls", "xlsx", "ods"])
        .at(30, b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet")
        .text("save the sheet as CSV")
        .archived(),
    format("a zip archive", &[ZIP, b"PK\x05\x06"], &["zip"]).text(UNPACK).weights(UNPACK_MODEL).archive(),
    format("a tar archive", &[], &["tar", "tgz"]).at(257, b"ustar").text(UNPACK).weights(UNPACK_MODEL).archive(),
    format("a 7z archive", &[b"7z\xbc\xaf\x27\x1c"], &["7z"]).text(UNPACK).weights(UNPACK_MODEL),
    format("a RAR archive", &[b"Rar!\x1a\x07"], &["rar"]).text(UNPACK).weights(UNPACK_MODEL),
    format("packed with gzip", &[b"\x1f\x8b\x08"], &["gz", "gzip"]).weights(UNPACK_MODEL),
    format("packed with zstd", &[b"\x28\xb5\x2f\xfd"], &["zst", "zstd"]).weights(UNPACK_MODEL),
    format("packed with bzip2", BZIP2, &["bz2"])
        .text("unpack it first: bzip2 -dk FILE; gzip and zstd are read as they are")
        .weights(UNPACK_MODEL),
    format("packed with xz", &[b"\xfd7zXZ\0"], &["xz", "lzma"])
        .text("unpack it first: xz -dk FILE; gzip and zstd are read as they are")
        .weights(UNPACK_MODEL),
    format("packed with lz4", &[b"\x04\x22\x4d\x18"], &["lz4"])
        .text("unpack it first: lz4 -d FILE; gzip and zstd are read as they are")
        .weights(UNPACK_MODEL),
    format("packed with brotli", &[], &["br"])
        .text("unpack it first: brotli -dk FILE; gzip and zstd are read as they are"),
    format("packed with compress", &[b"\x1f\x9d"], &["z"]).text("unpack it first: gzip -dk FILE"),
    format("a Parquet file", &[b"PAR1"], &["parquet", "pq"]),
    format("an encrypted Parquet file", &[b"PARE"], &[]).text("decrypt it first"),
    // A stream has four bytes of ones, the size of the schema, and then the schema.
    format("an Arrow file", &[b"ARROW1", b"FEA1"], &["arrow", "feather", "ipc"]).at(7, b"\0\x10\0\0\0").text(DATASETS),
    format("an ORC file", &[], &["orc"]).binary(b"ORC").text(EXPORT),
    format("an Avro file", &[b"Obj\x01"], &["avro"]).text(EXPORT),
    format("a TFRecord file", &[], &["tfrecord"]).text(EXPORT),
    format("an SQLite database", &[b"SQLite format 3\0"], &["sqlite", "sqlite3", "db"]).text(EXPORT),
    format("an Office document", &[b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"], &["ppt", "pptx", "odp"]).text(SAVE).archived(),
    format("RTF", &[b"{\\rtf"], &["rtf"]).text(SAVE),
    format("a PDF", &[b"%PDF-"], &["pdf"]).text("extract its text first: pdftotext FILE"),
    format("PostScript", &[b"%!PS"], &["ps"]).text("extract its text first: ps2ascii FILE"),
    format("an image", &[b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"], &["png", "jpg", "jpeg", "gif"])
        .text(SAVE),
    format("a program", &[b"\x7fELF", b"MZ\x90\0"], &[]).text(SAVE),
    // UTF-32 begins with the mark of UTF-16.
    format("UTF-32 text", &[b"\xff\xfe\0\0", b"\0\0\xfe\xff"], &[])
        .text("convert it first: iconv -f UTF-32 -t UTF-8 FILE > NEW"),
    format("UTF-16 text", &[b"\xff\xfe", b"\xfe\xff"], &[])
        .text("convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
];

/// The first bytes of old PyTorch files: a pickle of a magic number.
const OLD_PYTORCH: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF";
const ZIP: &[u8] = b"PK\x03\x04";

/// The digit is the compression level.
const BZIP2: &[&[u8]] = &[
    b"BZh11AY&SY",
    b"BZh21AY&SY",
    b"BZh31AY&SY",
    b"BZh41AY&SY",
    b"BZh51AY&SY",
    b"BZh61AY&SY",
    b"BZh71AY&SY",
    b"BZh81AY&SY",
    b"BZh91AY&SY",
];

/// An ending that programs of all kinds use: for texts and ids it is not conclusive.
const ANYTHING: &str = "bin";

const fn format(what: &'static str, begins: &'static [&'static [u8]], endings: &'static [&'static str]) -> Foreign {
    let (within, binary, as_text, as_weights) = (None, None, None, None);
    Foreign { what, begins, within, binary, endings, as_text, as_weights, archive: false, archived: false }
}

impl Foreign {
    const fn at(mut self, offset: usize, bytes: &'static [u8]) -> Self {
        self.within = Some((offset, bytes));
        self
    }

    const fn binary(mut self, begin: &'static [u8]) -> Self {
        self.binary = Some(begin);
        self
    }

    const fn text(mut self, advice: &'static str) -> Self {
        self.as_text = Some(advice);
        self
    }

    const fn weights(mut self, advice: &'static str) -> Self {
        self.as_weights = Some(advice);
        self
    }

    const fn archive(mut self) -> Self {
        self.archive = true;
        self
    }

    const fn archived(mut self) -> Self {
        self.archived = true;
        self
    }

    fn begins(&self, head: &[u8]) -> bool {
        self.begins.iter().any(|magic| head.starts_with(magic))
            || self.within.is_some_and(|(offset, bytes)| head.get(offset..).is_some_and(|at| at.starts_with(bytes)))
            || self.binary.is_some_and(|begin| head.starts_with(begin) && head.iter().any(|byte| *byte < b'\t'))
    }

    /// True if this is GGUF.
    pub(super) fn is_gguf(&self) -> bool {
        self.endings.contains(&"gguf")
    }

    /// True if this is safetensors.
    fn is_safetensors(&self) -> bool {
        self.endings.contains(&"safetensors")
    }
}

/// The format of a file that begins with `head`, for any name.
fn by_content(head: &[u8]) -> Option<&'static Foreign> {
    FORMATS.iter().find(|format| format.begins(head))
}

/// The format of a lower-case file name, by its longest known ending.
fn by_name(file: &str) -> Option<&'static Foreign> {
    let ends = |ending: &str| file.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let length =
        |format: &Foreign| format.endings.iter().filter(|ending| ends(ending)).map(|ending| ending.len()).max();
    FORMATS
        .iter()
        .filter_map(|format| Some((length(format)?, format)))
        .max_by_key(|(length, _)| *length)
        .map(|(_, found)| found)
}

/// The format of a file with this lower-case name that begins with `head`.
fn told(file: &str, head: &[u8]) -> Option<&'static Foreign> {
    let named = by_name(file);
    match by_content(head) {
        Some(found) if found.archive => named.filter(|named| named.archived).or(Some(found)),
        None => named.filter(|named| !(file.ends_with(".bin") && named.endings.contains(&ANYTHING))),
        found => found,
    }
}

/// The format and advice if a file is given as a text and is not one, by its first bytes and,
/// unless the user has named a format, by its name.
pub(super) fn no_text(name: Option<&Name>, head: &[u8]) -> Option<(&'static str, &'static str)> {
    let found = told(name.map_or("", |name| name.unpacked.as_str()), head)?;
    Some((found.what, found.as_text?))
}

/// The format of a file, by its first bytes or its name, that cannot be a list of numbers as text.
pub fn known_as(path: &str, head: &[u8]) -> Option<&'static str> {
    let (name, head) = (Name::of(path), &head[..head.len().min(TELLING as usize)]);
    let found = told(&name.unpacked, head).or_else(|| told(&name.file, head)).map(|found| found.what);
    found.or_else(|| markup::of(&name, head).map(|kind| kind.what))
}

/// The format of weights other than safetensors that a file name indicates.
pub(super) fn of_weights(path: &str) -> Option<&'static Foreign> {
    let name = Name::of(path);
    [&name.unpacked, &name.file].into_iter().filter_map(|file| by_name(file)).find(|format| format.as_weights.is_some())
}

/// The format of a file that is given as the folder of a model.
pub(super) fn given(path: &str, head: &[u8]) -> Option<&'static Foreign> {
    let file = Name::of(path).file;
    told(&file, head).or_else(|| by_name(&file))
}

/// What a file is of which nothing but text is seen, with its beginning: a page, JSON, or a
/// message.
fn text_instead(head: &[u8]) -> Option<String> {
    if let Some(markup) = markup::of(&Name::of(""), head) {
        return Some(markup.what.to_string());
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let what = if text.starts_with(['{', '[']) { "JSON" } else { "a text" };
    Some(format!("{what} that begins with `{}`", shown(text)))
}

/// The error of a file that has something else in it than its place says.
fn instead(file: &str, what: String, not: &'static str, advice: &str) -> Error {
    Error::of(Failure::FileInstead { file: file.to_string(), what, not, advice: advice.to_string() })
}

/// The error of a file that should be safetensors and begins like something else, with what to do
/// about another format and about a text; none where it begins like nothing that is known.
pub fn no_safetensors(path: &str, head: &[u8], advice: &str, of_text: &str) -> Option<Error> {
    if let Some(error) = pointer(path, head) {
        return Some(error);
    }
    let (what, advice) = match by_content(head) {
        Some(found) if found.is_safetensors() => return None,
        Some(found) if found.archive => (format!("{}, as PyTorch writes its files", found.what), advice),
        Some(found) => (found.what.to_string(), advice),
        None => (text_instead(head)?, of_text),
    };
    Some(instead(path, what, "not a safetensors file", advice))
}

/// The error of a file that should be the output of `torch.save` and is not; None if it begins like
/// such an archive, or with unknown bytes.
pub fn no_pytorch(path: &str, head: &[u8]) -> Option<Error> {
    if let Some(error) = pointer(path, head) {
        return Some(error);
    }
    let found = by_content(head);
    if found.is_some_and(|found| found.begins.contains(&OLD_PYTORCH)) {
        return Some(Error::of(Failure::OldPytorch { file: path.to_string() }));
    }
    let advice = "use the model's release in safetensors; a file does not change its format with its name";
    let (what, advice) = match found {
        Some(found) if found.begins.contains(&ZIP) => return None,
        Some(found) => (found.what.to_string(), advice),
        None => (text_instead(head)?, REFUSED),
    };
    Some(instead(path, what, "not a PyTorch file", advice))
}

/// Keys of the JSON with which servers say why somebody does not get a file.
const OF_ANSWERS: &[&str] =
    &["error", "errors", "message", "detail", "status", "statusCode", "code", "error_type", "request_id", "url"];

/// What the answer of a server says that refused a file; None if the data is something else.
fn answer(data: &[u8]) -> Option<String> {
    let data = data.get(..data.len().min(TELLING as usize + 1)).filter(|data| data.len() <= TELLING as usize)?;
    let value: serde_json::Value = outside::json::from_slice(data, outside::json::SMALL).ok()?;
    let map = value.as_object().filter(|map| map.keys().all(|key| OF_ANSWERS.contains(&key.as_str())))?;
    let says = ["error", "message", "detail"].iter().find_map(|key| map.get(*key)?.as_str());
    says.map(|says| format!("says `{}`", shown(says)))
}

/// The error of a model's JSON file that begins like another format; None if it may be JSON.
pub(super) fn no_json(file: &str, data: &[u8]) -> Option<Error> {
    if let Some(error) = pointer(file, data) {
        return Some(error);
    }
    let head = &data[..data.len().min(TELLING as usize)];
    if let Some(says) = answer(data) {
        return Some(Error::of(Failure::AnswerInstead { file: file.to_string(), says }));
    }
    if data.trim_ascii_start().first().is_some_and(u8::is_ascii_alphabetic) && by_content(head).is_none() {
        let what = text_instead(head)?;
        return Some(instead(file, what, "and no JSON", REFUSED));
    }
    let what = by_content(head).map(|found| found.what).or_else(|| Some(markup::of(&Name::of(""), head)?.what))?;
    let advice = "fetch the file itself, with `hf download` for instance: was something else saved under its name?";
    Some(instead(file, what.to_string(), "and no JSON", advice))
}

/// The largest pointer in bytes.
const POINTER: usize = 1024;
/// The beginnings of Git LFS pointers, including the older name.
const LFS: [&str; 2] = ["version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/"];
const ANNEX: &str = "/annex/objects/";

/// The error of a pointer of Git LFS or git-annex in place of a large file that was not fetched;
/// None for other data.
pub fn pointer(file: &str, data: &[u8]) -> Option<Error> {
    let text = std::str::from_utf8(data).ok().filter(|text| text.len() <= POINTER)?;
    let file = file.to_string();
    if text.starts_with(ANNEX) && text.lines().count() == 1 {
        return Some(Error::of(Failure::AnnexPointer { file }));
    }
    LFS.iter().find(|begin| text.starts_with(**begin))?;
    text.lines().find(|line| line.starts_with("oid "))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
    Some(Error::of(Failure::LfsPointer { file, bytes }))
}
