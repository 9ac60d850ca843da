//! The primitives load_tokens (ids, the text of a file, or a dataset on the hub) and check_text.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, INT, Map};

use super::requests::Place;
use crate::error::{Error, Result};
use crate::home;
use crate::host::language::json::to_json;
use crate::host::language::problem::thrown;
use crate::host::run::context::Context;
use crate::host::run::reads;
use crate::host::values::handles::{Model, TokensHandle};
use crate::host::values::options::Options;
use crate::hub::{self, Documents};
use crate::plain::plain;
use crate::record::{Brought, DatasetArgs, MAX_TOKENS, TextArgs, TextFormat, TokenSource, Windows};
use crate::session::Op;
use crate::text;

/// Options that apply only to text.
const CUTTING: &[&str] = &[
    "model",
    "num_sequences",
    "sequence_length",
    "skip_sequences",
    "shuffle",
    "seed",
    "overlap",
    "separator",
    "windows",
    "format",
    "column",
    "straight_quotes",
    "add_special_tokens",
];
const DATASET: &[&str] = &["config", "split", "revision", "file"];
const WINDOWS: &[(&str, Windows)] =
    &[("tokens", Windows::Tokens), ("text", Windows::Text), ("documents", Windows::Documents)];
const FORMATS: &[(&str, TextFormat)] = &[
    ("text", TextFormat::Text),
    ("json", TextFormat::Json),
    ("csv", TextFormat::Csv),
    ("tsv", TextFormat::Tsv),
    ("unquoted", TextFormat::Unquoted),
    ("parquet", TextFormat::Parquet),
];

/// The most bytes of text that are sent to another machine: more than a usual analysis reads, and
/// what a large one needs.
const SENT: usize = 32 << 20;
const SENT_PER_TOKEN: usize = 16;
const MAX_SENT: usize = 1 << 30;
/// The largest number of characters of a text in a message, and of words in a path.
const SHOWN_TEXT: usize = 40;
const MOST_WORDS: usize = 5;
/// The largest number of skipped tokens.
const MAX_PASSED_OVER: usize = 1 << 40;

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn("load_tokens", move |options: Map| thrown(load_tokens(&c, options)));
    let c = context.clone();
    engine.register_fn("check_text", move |path: &str| thrown(check_text(&c, path)));
}

/// Text is read here, or on the machine if it is not here, and tokenised where the model and its
/// tokenizer are.
fn load_tokens(context: &Context, options: Map) -> Result<TokensHandle> {
    context.acts("load_tokens");
    let o = Options::of("load_tokens", options)?;
    let model: Option<Model> = o.host("model", "a model from load_model")?;
    let session = model.as_ref().map_or(&context.session, |model| &model.0.session);
    let mut source = token_source(&o)?;
    if let TokenSource::Text(text) = &source
        && text.dataset.is_none()
        && is_prose(&text.path)
        && !home::expanded(&text.path).exists()
    {
        let begin = plain(&text.path, SHOWN_TEXT);
        let message = format!("load_tokens: `text` is the path of a file, and \"{begin}\" reads like a text itself");
        return Err(Error::bad_argument(message)
            .hint("write_text(\"results/text.txt\", \"…\") puts a text into a file and gives the path to name here"));
    }
    match &source {
        TokenSource::IdsJson { path } | TokenSource::IdsSafetensors { path, .. } => reads::allowed(context, path)?,
        TokenSource::Text(text) if text.dataset.is_none() => reads::allowed(context, &text.path)?,
        TokenSource::Text(_) | TokenSource::Ids { .. } => (),
    }
    if let TokenSource::Text(text) = &mut source
        && text.dataset.is_none()
        && context.plan().is_none()
        && !Arc::ptr_eq(session, &context.session)
        && context.root.join(home::expanded(&text.path)).exists()
    {
        text.path = home::expanded(&text.path).display().to_string();
        let documents = crate::host::language::weight::beside(|| -> Result<Brought> {
            let documents = Documents::open(text)?;
            let one_text = documents.one_text;
            Ok(Brought { documents: documents.first(sent(text))?, one_text })
        })?;
        text.documents = Some(documents);
    }
    // A file that is not here is read on the machine.
    if let TokenSource::Text(text) = &source
        && text.dataset.is_none()
        && text.documents.is_none()
        && !context.bounds.commands_here
    {
        session.confined("load_tokens", &text.path)?;
    }
    let place = Place { session, context };
    if let (TokenSource::Text(text), Some(stage)) = (&source, context.plan())
        && text.dataset.is_none()
        && !home::expanded(&text.path).exists()
        && !stage.files().contains(&text.path)
    {
        stage.note(format!("{}: there is no such text here", text.path));
    }
    let tokens = place.call(Op::Tokens(source))?.tokens()?;
    Ok(TokensHandle(Arc::new(tokens)))
}

/// The length in bytes of a local text, if it may be read. It is checked before other work.
fn check_text(context: &Context, path: &str) -> Result<INT> {
    let path = &named("check_text: the path", path.to_string())?;
    reads::allowed(context, path)?;
    let there = home::expanded(path);
    if let Some(stage) = context.plan().filter(|_| !there.exists()) {
        stage.note(format!("{path}: there is no such text here"));
        return Ok(0);
    }
    let bytes = hub::text_bytes(&there.display().to_string())?;
    Ok(INT::try_from(bytes).unwrap_or(INT::MAX))
}

/// Rejects an empty path, the usual value of an omitted flag.
fn named(what: &str, path: String) -> Result<String> {
    match path.trim().is_empty() {
        true => Err(Error::bad_argument(format!("{what} is empty, where the path of a file is expected"))
            .hint("name a file of this folder, such as corpus.txt; stdlib_text(\"first_text.txt\") is a text inside the program")),
        false => Ok(path),
    }
}

/// True for a text in place of a path: several lines, or more words than a name has.
fn is_prose(text: &str) -> bool {
    let words = text.split_whitespace().count();
    text.contains('\n') || words > MOST_WORDS || words > 2 && text.ends_with(['.', '!', '?', '…'])
}

/// Bytes of text that are sent.
fn sent(text: &TextArgs) -> usize {
    let sequences = text.num_sequences.saturating_add(text.skip_sequences);
    sequences.saturating_mul(text.sequence_length).saturating_mul(SENT_PER_TOKEN).clamp(SENT, MAX_SENT)
}

fn token_source(o: &Options) -> Result<TokenSource> {
    let given: Vec<&str> = ["ids", "text", "dataset"].into_iter().filter(|key| o.has(key)).collect();
    match given[..] {
        ["ids"] => ids(o),
        [_] => text(o).map(Box::new).map(TokenSource::Text),
        [] => Err(Error::bad_argument("load_tokens: neither `ids` nor `text` nor `dataset` is given")
            .hint("load_tokens(#{ text: \"file.txt\", model: model, num_sequences: 16, sequence_length: 2048 })")),
        [first, second, ..] => Err(Error::bad_argument(format!("load_tokens: give `{first}` or `{second}`, not both"))
            .hint("ids are tokens already; text and datasets are tokenised by the model's tokenizer.json")),
    }
}

/// Rejects options that do not apply to `what`.
fn only(o: &Options, what: &str, others: &[&str], hint: &str) -> Result<()> {
    match others.iter().find(|key| o.has(key)) {
        Some(key) => Err(Error::bad_argument(format!("load_tokens: `{key}` goes with {what}")).hint(hint)),
        None => Ok(()),
    }
}

fn ids(o: &Options) -> Result<TokenSource> {
    let hint = "ids are taken as they are: leave the option out";
    only(o, "`text`, not with `ids`", CUTTING, hint)?;
    only(o, "`dataset`, not with `ids`", DATASET, hint)?;
    if let Some(ids) = o.host::<Array>("ids", "a file name or an array").ok().flatten() {
        return Ok(TokenSource::Ids { ids: given_ids(&ids)? });
    }
    let path = named("load_tokens: `ids`", o.required("ids", o.string("ids")?)?)?;
    match (o.string("tensor")?, path.ends_with(".safetensors")) {
        (Some(tensor), _) => Ok(TokenSource::IdsSafetensors { path, tensor }),
        (None, true) => Ok(TokenSource::IdsSafetensors { path, tensor: "input_ids".to_string() }),
        (None, false) => Ok(TokenSource::IdsJson { path }),
    }
}

fn text(o: &Options) -> Result<TextArgs> {
    only(o, "`ids`", &["tensor"], "text is tokenised: leave the option out")?;
    let dataset = dataset(o)?;
    let path = match &dataset {
        Some(dataset) => dataset.id.clone(),
        None => named("load_tokens: `text`", o.required("text", o.string("text")?)?)?,
    };
    let separator = o.string("separator")?;
    if separator.as_deref() == Some("") {
        return Err(Error::bad_argument("load_tokens: `separator` is empty").hint("separator: \"---\", say"));
    }
    let windows = o.choice("windows", WINDOWS)?;
    let num_sequences = o.required("num_sequences", o.whole("num_sequences")?)?;
    let sequence_length = o.required("sequence_length", o.whole("sequence_length")?)?;
    let skip_sequences = o.whole("skip_sequences")?.unwrap_or(0);
    check_size(num_sequences, sequence_length, skip_sequences)?;
    let model: Option<Model> = o.host("model", "a model from load_model")?;
    Ok(TextArgs {
        path,
        dataset,
        documents: None,
        format: o.choice("format", FORMATS)?,
        column: o.string("column")?,
        tokenizer: o.required("model", model)?.0.folder.clone(),
        num_sequences,
        sequence_length,
        skip_sequences,
        shuffle: shuffle(o)?,
        overlap: o.float("overlap")?.unwrap_or(0.0),
        windows: windows.unwrap_or(if separator.is_some() { Windows::Documents } else { Windows::Tokens }),
        separator,
        straight_quotes: o.flag("straight_quotes")?.unwrap_or(false),
        add_special_tokens: o.flag("add_special_tokens")?.unwrap_or(true),
    })
}

/// Rejects unreasonable numbers.
fn check_size(num_sequences: usize, sequence_length: usize, skip_sequences: usize) -> Result<()> {
    for (name, value) in [("num_sequences", num_sequences), ("sequence_length", sequence_length)] {
        if value == 0 {
            return Err(Error::bad_argument(format!("load_tokens: {name} is 0")).hint("it must be at least 1"));
        }
    }
    let too_many = |name: &str, tokens: usize| {
        Error::bad_argument(format!("load_tokens: `{name}` and `sequence_length` ask for more than {tokens} tokens"))
            .hint("16 sequences of 2048 tokens are a usual analysis")
    };
    let within = |sequences: usize, most: usize| sequences.checked_mul(sequence_length).is_some_and(|n| n <= most);
    if !within(num_sequences, MAX_TOKENS) {
        return Err(too_many("num_sequences", MAX_TOKENS));
    }
    if !within(skip_sequences, MAX_PASSED_OVER) {
        return Err(too_many("skip_sequences", MAX_PASSED_OVER));
    }
    Ok(())
}

fn dataset(o: &Options) -> Result<Option<DatasetArgs>> {
    let Some(id) = o.string("dataset")? else {
        only(o, "`dataset`", DATASET, "a file of this machine has neither configs nor revisions")?;
        return Ok(None);
    };
    let (file, config) = (o.string("file")?, o.string("config")?);
    if file.is_some() {
        only(o, "the choice of a file, which `file` makes already", &["config", "split"], "leave one of them out")?;
    }
    let split = o.string("split")?.unwrap_or_else(|| "train".to_string());
    Ok(Some(DatasetArgs { id, config, split, revision: o.string("revision")?, file }))
}

/// The seed, if documents are shuffled.
fn shuffle(o: &Options) -> Result<Option<u64>> {
    let seed = o.seed("seed")?;
    match o.flag("shuffle")?.unwrap_or(false) {
        true => Ok(Some(seed.unwrap_or(0))),
        false if seed.is_some() => Err(Error::bad_argument("load_tokens: `seed` without `shuffle`")
            .hint("shuffle: true puts the documents in the random order of this seed")),
        false => Ok(None),
    }
}

fn given_ids(rows: &Array) -> Result<Vec<Vec<u32>>> {
    let bad = || {
        let said = to_json(&rows.clone().into()).ok().and_then(|rows| text::no_sequences(&rows));
        let (what, advice) = said.map_or_else(Default::default, |(what, advice)| (format!(": {what}"), advice));
        let advice = if advice.is_empty() { advice } else { format!("{advice}; ") };
        Error::bad_argument(format!("load_tokens: `ids` is not an array of arrays of token ids{what}"))
            .hint(format!("{advice}one array per sequence, such as [[1, 2], [3, 4]]"))
    };
    let id = |value: &Dynamic| value.as_int().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(bad);
    let row = |row: &Dynamic| row.read_lock::<Array>().ok_or_else(bad)?.iter().map(id).collect();
    rows.iter().map(row).collect()
}
