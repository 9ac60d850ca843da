//! Primitives between texts and token ids: encode and decode, with the tokenizer of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, INT};

use super::requests::Place;
use crate::error::{Error, Result};
use crate::host::language::bounds::{MAX_ARRAY, MAX_STRING};
use crate::host::run::context::Context;
use crate::host::values::handles::Model;
use crate::host::values::option_sets::{Declared, register_with_options};
use crate::record::option::option_set;
use crate::record::option_types::Flag;
use crate::session::{DecodeIds, EncodeTexts};
use crate::words::counted;

option_set! {
    /// The options of encode.
    pub(crate) struct EncodeOptions {
        /// the special tokens that tokenizer.json adds, such as <s>
        add_special_tokens: Flag = true;
    }
}

option_set! {
    /// The options of decode.
    pub(crate) struct DecodeOptions {
        /// leaves special tokens out of the text
        skip_special_tokens: Flag = false;
    }
}

pub(crate) const ENCODE: Declared<EncodeOptions> = Declared::new(
    "encode",
    &[
        "encode(model: model, text: string, options?: map) -> array",
        "encode(model: model, texts: array, options?: map) -> array",
    ],
    "The token ids of a text, by the model's own tokenizer.json; of an array of texts, an array of ids for each. \
     load_tokens makes sequences of equal length of ids or of texts.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let ids = model.encode("The lamp was lit");
print(`${ids}: ${model.decode(ids)}`);"#,
);

pub(crate) const DECODE: Declared<DecodeOptions> = Declared::new(
    "decode",
    &[
        "decode(model: model, ids: array, options?: map) -> string",
        "decode(model: model, lists: array, options?: map) -> array",
    ],
    "The text of token ids, by the model's own tokenizer.json; of an array of arrays, an array of texts. The text of each \
     token is model.decode(ids.map(|id| [id])). An id that is no token is an error.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let ids = model.encode("The lamp was lit", #{ add_special_tokens: false });
print(model.decode(ids.map(|id| [id])));"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    register_with_options!(engine, ENCODE, |model: Model, text: &str; options| {
        let ids = encode(&c, &model, vec![text.to_string()], options)?;
        Ok(ids.into_iter().next().map_or_else(Array::new, id_array))
    });
    let c = context.clone();
    register_with_options!(engine, ENCODE, |model: Model, texts: Array; options| {
        let ids = encode(&c, &model, each_text(texts)?, options)?;
        Ok(ids.into_iter().map(|ids| id_array(ids).into()).collect::<Array>())
    });
    let c = context.clone();
    register_with_options!(engine, DECODE, |model: Model, ids: Array; options| decode(&c, &model, &ids, options));
}

fn id_array(ids: Vec<u32>) -> Array {
    ids.into_iter().map(|id| INT::from(id).into()).collect()
}

fn each_text(texts: Array) -> Result<Vec<String>> {
    let text = |(i, text): (usize, Dynamic)| {
        text.into_string().map_err(|kind| {
            Error::bad_argument(format!("encode: texts[{i}] is of type {kind}, expected a string"))
                .hint("give a text, or an array of texts")
        })
    };
    texts.into_iter().enumerate().map(text).collect()
}

fn encode(context: &Context, model: &Model, texts: Vec<String>, options: EncodeOptions) -> Result<Vec<Vec<u32>>> {
    context.acts("encode");
    let tokenizer = model.0.folder.clone();
    let place = Place { session: &model.0.session, context };
    let ids = place.call(EncodeTexts { tokenizer, texts, add_special_tokens: options.add_special_tokens })?;
    let count = ids.iter().map(Vec::len).sum::<usize>();
    if count > MAX_ARRAY {
        return Err(Error::bad_argument(format!("encode: the texts have {}", counted(count, "token")))
            .hint(format!("an array of a script holds {MAX_ARRAY}: encode fewer texts at a time")));
    }
    Ok(ids)
}

/// The text of ids, or an array with the text of each array of ids.
fn decode(context: &Context, model: &Model, ids: &Array, options: DecodeOptions) -> Result<Dynamic> {
    context.acts("decode");
    let several = ids.first().is_some_and(Dynamic::is_array);
    let lists = match several {
        true => {
            let list = |list: &Dynamic| list.read_lock::<Array>().ok_or_else(bad_ids).and_then(|ids| id_list(&ids));
            ids.iter().map(list).collect::<Result<Vec<_>>>()?
        }
        false => vec![id_list(ids)?],
    };
    let request =
        DecodeIds { tokenizer: model.0.folder.clone(), ids: lists, skip_special_tokens: options.skip_special_tokens };
    let place = Place { session: &model.0.session, context };
    let texts = place.call(request).map_err(|error| error.context("decode"))?;
    if texts.iter().map(String::len).sum::<usize>() > MAX_STRING {
        return Err(Error::bad_argument("decode: the text is larger than a string of a script")
            .hint("decode fewer ids at a time"));
    }
    Ok(match several {
        true => texts.into_iter().map(Dynamic::from).collect::<Array>().into(),
        false => texts.into_iter().next().unwrap_or_default().into(),
    })
}

/// The text of each token of sequences, one behind the other; None if the model has no tokenizer
/// for them. A token is decoded behind the one before it, because many tokenizers leave out the
/// space before a first word.
pub(crate) fn pieces(place: &Place, model: &Model, ids: &[Vec<u32>]) -> Option<Vec<String>> {
    let pairs = |ids: &Vec<u32>| {
        let before = std::iter::once(None).chain(ids.iter().copied().map(Some));
        before.zip(ids.iter().copied()).collect::<Vec<(Option<u32>, u32)>>()
    };
    let all: Vec<(Option<u32>, u32)> = ids.iter().flat_map(pairs).collect();
    let distinct: BTreeSet<(Option<u32>, u32)> = all.iter().copied().collect();
    let before = distinct.iter().map(|(before, _)| before.iter().copied().collect::<Vec<u32>>());
    let both = distinct.iter().map(|(before, id)| before.iter().copied().chain([*id]).collect::<Vec<u32>>());
    let lists = before.chain(both).collect();
    let request = DecodeIds { tokenizer: model.0.folder.clone(), ids: lists, skip_special_tokens: false };
    let texts = place.session.call(request, &*place.context.progress()).ok()?;
    let (before, both) = texts.split_at_checked(distinct.len())?;
    let piece = |(before, both): (&String, &String)| both.strip_prefix(before.as_str()).unwrap_or(both).to_string();
    let pieces: BTreeMap<_, String> = distinct.into_iter().zip(before.iter().zip(both).map(piece)).collect();
    all.iter().map(|pair| pieces.get(pair).cloned()).collect()
}

fn id_list(ids: &Array) -> Result<Vec<u32>> {
    let id = |id: &Dynamic| id.as_int().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(bad_ids);
    ids.iter().map(id).collect()
}

fn bad_ids() -> Error {
    Error::bad_argument("decode: the ids are not an array of token ids, nor an array of such arrays")
        .hint("one text is decode([5, 6, 7]), several are decode([[5, 6], [7, 8]])")
}
