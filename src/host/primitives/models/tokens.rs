//! The primitives load_tokens (ids, the text of a file, or a dataset on the hub) and check_text.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, INT, Map};

use super::requests::Place;
use crate::error::{Error, Result};
use crate::home;
use crate::host::language::json::to_json;
use crate::host::language::problem::thrown;
use crate::host::language::weight;
use crate::host::run::context::Context;
use crate::host::run::reads;
use crate::host::values::handles::{Model, TokensHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::option_types::{Handle, ReadOption};
use crate::host::values::options::Options;
use crate::hub::{self, Documents};
use crate::plain::plain;
use crate::record::option::{OptionSet, OptionType, ReadFrom, option_set};
use crate::record::option_types::{Include, Optional, Text, Texts};
use crate::record::{
    Brought, DatasetArgs, MAX_TOKENS, ORDER_SEED, OrderOptions, Shuffled, TextArgs, TokenSource, Tokens, Windows,
};
use crate::session::LoadTokens;
use crate::text;

/// The tensor of a safetensors file where none is named.
const IDS_TENSOR: &str = "input_ids";

/// Token ids, or the path of a file of them.
pub(crate) struct Ids;

#[derive(Debug)]
pub(crate) enum GivenIds {
    Rows(Array),
    File(String),
}

impl OptionType for Ids {
    type Value = GivenIds;

    fn kind() -> String {
        "string | array".to_string()
    }

    fn literal(_: &GivenIds) -> String {
        String::new()
    }
}

impl ReadOption for Ids {
    fn read(o: &Options, key: &str) -> Result<Option<GivenIds>> {
        match o.host::<Array>(key, "the path of a file or an array of arrays of ids") {
            Ok(rows) => Ok(rows.map(GivenIds::Rows)),
            Err(neither) => o.string(key).map_err(|_| neither).map(|path| path.map(GivenIds::File)),
        }
    }
}

option_set! {
    /// The options of load_tokens.
    pub(crate) struct TokenOptions {
        /// a JSON file, a safetensors file, or an array of arrays of ids
        ids: Optional<Ids>;
        /// name of the tensor in a safetensors file
        tensor: Optional<Text>, otherwise IDS_TENSOR.to_string();
        /// a file of text, JSON, CSV or Parquet (docs/text.md) in the project, or where
        /// --allow-read says; needs model, num_sequences, sequence_length
        text: Optional<Text>;
        /// texts themselves, in place of a file; each gives one window, its first tokens
        texts: Optional<Texts>;
        /// a dataset on the hub, in place of text, such as "HuggingFaceFW/fineweb-edu"
        dataset: Optional<Text>;
        of_dataset: Include<DatasetArgs>;
        /// whose tokenizer.json cuts the text
        model: Optional<Handle<Model>>;
        of_text: Include<TextArgs>;
    }
}

impl ReadOption for Shuffled {
    fn read(o: &Options, _: &str) -> Result<Option<Option<u64>>> {
        let OrderOptions { shuffle, seed } = OrderOptions::read(o)?;
        match shuffle {
            true => Ok(Some(Some(seed.unwrap_or(ORDER_SEED)))),
            false if seed.is_some() => Err(Error::bad_argument("load_tokens: `seed` without `shuffle`")
                .hint("shuffle: true puts the documents in the random order of this seed")),
            false => Ok(None),
        }
    }
}

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

pub(crate) const CHECK_TEXT: Declared<NoOptions> = Declared::new(
    "check_text",
    &["check_text(path: string) -> int"],
    "Checks that a text of this machine is there and may be read, before anything is downloaded or paid for; gives its \
     length in bytes. The error is the one that load_tokens would give.",
    r#"print(check_text("examples/README.md") > 0);"#,
);

pub(crate) const LOAD_TOKENS: Declared<TokenOptions> = Declared::new(
    "load_tokens",
    &["load_tokens(options: map) -> tokens"],
    "Reads token ids, or cuts a text into windows of tokens with the model's own tokenizer.",
    r#"let tokens = load_tokens(#{ ids: [[1, 2, 3], [4, 5, 6]] });
print(`${format_count(tokens.num_sequences, "sequence")} of ${tokens.sequence_length}`);"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(LOAD_TOKENS.name(), move |options: Map| thrown(load_tokens(&c, options)));
    let c = context.clone();
    engine.register_fn(CHECK_TEXT.name(), move |path: &str| thrown(check_text(&c, path)));
}

/// Text is read here, or on the machine if it is not here, and tokenised where the model and its
/// tokenizer are.
fn load_tokens(context: &Context, options: Map) -> Result<TokensHandle> {
    context.acts("load_tokens");
    let o = LOAD_TOKENS.options(options)?;
    let options = TokenOptions::read(&o)?;
    let model = options.model.clone();
    let session = model.as_ref().map_or(&context.session, |model| &model.0.session);
    let mut source = token_source(&o, options)?;
    if let TokenSource::Text(text) = &source
        && is_file(text)
        && is_prose(&text.path)
        && !home::expanded(&text.path).exists()
    {
        let begin = plain(&text.path, SHOWN_TEXT);
        let message = format!("load_tokens: `text` is the path of a file, and \"{begin}\" reads like a text itself");
        return Err(
            Error::bad_argument(message).hint("texts: [\"…\"] takes texts themselves, each for one window of tokens")
        );
    }
    match &source {
        TokenSource::IdsJson { path } | TokenSource::IdsSafetensors { path, .. } => {
            reads::allowed(context, "load_tokens", path)?
        }
        TokenSource::Text(text) if is_file(text) => match Arc::ptr_eq(session, &context.session) {
            true => reads::allowed(context, "load_tokens", &text.path)?,
            false => reads::allowed_or_there(context, "load_tokens", &text.path)?,
        },
        TokenSource::Text(_) | TokenSource::Ids { .. } => (),
    }
    if let TokenSource::Text(text) = &mut source
        && is_file(text)
        && context.plan().is_none()
        && !Arc::ptr_eq(session, &context.session)
        && context.root.join(home::expanded(&text.path)).exists()
    {
        text.path = home::expanded(&text.path).display().to_string();
        let documents = weight::beside(|| -> Result<Brought> {
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
        && is_file(text)
        && !home::expanded(&text.path).exists()
        && !stage.files().contains(&text.path)
    {
        stage.note(format!("{}: there is no such text here", text.path));
    }
    let tokens = place.call(LoadTokens(source))?;
    Ok(TokensHandle(Arc::new(tokens)))
}

/// True for the text of a file, here or on the machine.
fn is_file(text: &TextArgs) -> bool {
    text.dataset.is_none() && !text.is_given()
}

/// The length in bytes of a local text, if it may be read. It is checked before other work.
fn check_text(context: &Context, path: &str) -> Result<INT> {
    let path = &named("check_text: the path", path.to_string())?;
    reads::allowed(context, "load_tokens", path)?;
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

fn token_source(o: &Options, options: TokenOptions) -> Result<TokenSource> {
    let TokenOptions { ids, tensor, text, texts, dataset, of_dataset, model, of_text } = options;
    let mut named_sources = ["ids", "text", "texts", "dataset"].into_iter().filter(|key| o.has(key));
    match (named_sources.next(), named_sources.next()) {
        (Some(first), Some(second)) => {
            return Err(Error::bad_argument(format!("load_tokens: give `{first}` or `{second}`, not both"))
                .hint("ids are tokens already; text and datasets are tokenised by the model's tokenizer.json"));
        }
        (None, _) => {
            return Err(Error::bad_argument("load_tokens: neither `ids` nor `text` nor `dataset` is given")
                .hint("load_tokens(#{ text: \"file.txt\", model: model, num_sequences: 16, sequence_length: 2048 })"));
        }
        (Some(_), None) => (),
    }
    if let Some(ids) = ids {
        return given(o, ids, tensor);
    }
    if tensor.is_some() {
        return Err(Error::bad_argument("load_tokens: `tensor` goes with `ids`")
            .hint("text is tokenised: leave the option out"));
    }
    let dataset = from_dataset(o, dataset, of_dataset)?;
    let path = match (&texts, &dataset) {
        (Some(_), _) => Tokens::SCRIPT.to_string(),
        (None, Some(found)) => found.id.clone(),
        (None, None) => named("load_tokens: `text`", text.unwrap_or_default())?,
    };
    let args = TextArgs { path, dataset, ..of_text };
    let args = match texts {
        Some(texts) => of_texts(o, texts, args)?,
        None => args,
    };
    let tokenizer = o.required("model", model)?.0.folder.clone();
    check_size(o, &args)?;
    let windows = Some(args.windows());
    Ok(TokenSource::Text(Box::new(TextArgs { tokenizer, windows, ..args })))
}

/// Windows of texts that the script gives.
fn of_texts(o: &Options, texts: Vec<String>, args: TextArgs) -> Result<TextArgs> {
    let of_files = ["format", "column", "separator", "shuffle", "seed"];
    if let Some(key) = of_files.into_iter().find(|key| o.has(key)) {
        return Err(Error::bad_argument(format!("load_tokens: `{key}` goes with a file, not with `texts`"))
            .hint("texts are taken one by one, in their order: leave the option out"));
    }
    if texts.is_empty() {
        return Err(Error::bad_argument("load_tokens: `texts` is an empty list").hint("give one text or more"));
    }
    if let Some(blank) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(Error::bad_argument(format!("load_tokens: texts[{blank}] is blank")).hint("leave it out"));
    }
    let all = texts.len().saturating_sub(args.skip_sequences);
    let args = TextArgs { documents: Some(Brought { documents: texts, one_text: false }), ..args };
    let each = args.windows() == Windows::Documents && !o.has("num_sequences");
    Ok(TextArgs { num_sequences: if each { all } else { args.num_sequences }, ..args })
}

/// Rejects options of a set that does not apply to `what`.
fn only<S: OptionSet>(o: &Options, what: &str, hint: &str) -> Result<()> {
    match S::OPTIONS.iter().find(|option| o.has(option.key)) {
        Some(option) => Err(goes_with(option.key, what).hint(hint)),
        None => Ok(()),
    }
}

fn goes_with(key: &str, what: &str) -> Error {
    Error::bad_argument(format!("load_tokens: `{key}` goes with {what}"))
}

fn given(o: &Options, ids: GivenIds, tensor: Option<String>) -> Result<TokenSource> {
    let hint = "ids are taken as they are: leave the option out";
    if o.has("model") {
        return Err(goes_with("model", "`text`, not with `ids`").hint(hint));
    }
    only::<TextArgs>(o, "`text`, not with `ids`", hint)?;
    only::<DatasetArgs>(o, "`dataset`, not with `ids`", hint)?;
    let path = match ids {
        GivenIds::Rows(rows) => return Ok(TokenSource::Ids { ids: given_ids(&rows)? }),
        GivenIds::File(path) => named("load_tokens: `ids`", path)?,
    };
    match (tensor, path.ends_with(".safetensors")) {
        (Some(tensor), _) => Ok(TokenSource::IdsSafetensors { path, tensor }),
        (None, true) => Ok(TokenSource::IdsSafetensors { path, tensor: IDS_TENSOR.to_string() }),
        (None, false) => Ok(TokenSource::IdsJson { path }),
    }
}

/// Rejects unreasonable numbers, and asks for those that are missing.
fn check_size(o: &Options, args: &TextArgs) -> Result<()> {
    let TextArgs { num_sequences, sequence_length, skip_sequences, .. } = *args;
    if args.separator.as_deref() == Some("") {
        return Err(Error::bad_argument("load_tokens: `separator` is empty").hint("separator: \"---\", say"));
    }
    for (name, value) in [("num_sequences", num_sequences), ("sequence_length", sequence_length)] {
        if value == 0 {
            o.required(name, o.has(name).then_some(()))?;
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

fn from_dataset(o: &Options, id: Option<String>, args: DatasetArgs) -> Result<Option<DatasetArgs>> {
    let Some(id) = id else {
        only::<DatasetArgs>(o, "`dataset`", "a file of this machine has neither configs nor revisions")?;
        return Ok(None);
    };
    if args.file.is_some()
        && let Some(key) = ["config", "split"].into_iter().find(|key| o.has(key))
    {
        let message = format!("load_tokens: `{key}` goes with the choice of a file, which `file` makes already");
        return Err(Error::bad_argument(message).hint("leave one of them out"));
    }
    Ok(Some(DatasetArgs { id, ..args }))
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
