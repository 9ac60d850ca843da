//! Primitives that say at which tokens hits are: hit_places, token_hits, marked_text.

use rhai::Engine;
use serde_json::{Value, json};

use super::measures::list;
use crate::error::Result;
use crate::host::language::growth;
use crate::host::language::problem::ScriptResult;
use crate::host::primitives::results::files::escape;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::option::option_set;
use crate::record::option_types::{Choice, Optional, Whole, Wholes};
use crate::record::{Activations, Site, SiteHits, plain};
use crate::stats::{self, Mark};
use crate::words::{counted, rounded};

option_set! {
    /// The options of token_hits.
    pub(crate) struct TokenHitOptions {
        /// the site, by name: docs/sites.md; by default the first with hits
        site: Optional<Choice<Site>>;
        /// dimensions; by default all that the record has
        dims: Wholes = Vec::new();
        /// one layer only
        layer: Optional<Whole>;
        /// at most so many tokens
        n: Whole = 100;
    }
}

option_set! {
    /// The options of marked_text.
    pub(crate) struct MarkedOptions {
        /// the site, by name: docs/sites.md; by default the first with hits
        site: Optional<Choice<Site>>;
        /// dimensions; by default all that the record has
        dims: Wholes = Vec::new();
        /// one layer only
        layer: Optional<Whole>;
        /// the first of the sequences that are shown
        sequence: Whole = 0;
        /// at most so many tokens
        n: Whole = 1000;
    }
}

pub(crate) const HIT_PLACES: Declared<NoOptions> = Declared::new(
    "hit_places",
    &["hit_places(acts: activations) -> array", "hit_places(stored: results) -> array"],
    "Where the hits of each feature are, from a record with `hits`: how many tokens, of which kinds (first position, newline, \
     punctuation, digits …), the largest value with its token, and the place in words.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ texts: ["The lamp was lit. The night was long."], model: model, num_sequences: 1, sequence_length: 8 });
let acts = model.extract(tokens, #{ observe: ["outliers", "hits"], hits_from: 3.0 });
for of in acts.hit_places() { print(`${of.site}, dimension ${of.feature_dim}: ${of.place}`); }"#,
);

pub(crate) const TOKEN_HITS: Declared<TokenHitOptions> = Declared::new(
    "token_hits",
    &["token_hits(acts: activations, options?: map) -> array", "token_hits(stored: results, options?: map) -> array"],
    "The tokens with the strongest hits, from a record with `hits`: value, layer, dim, sequence, position, token_id, token, and in \
     how many layers that dimension is hit there. In one layer a value is the rung of the ladder that it reaches, unless the layer \
     is the one where it is largest.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ observe: ["outliers", "hits"], hits_from: 3.0 });
for hit in acts.token_hits(#{ n: 3 }) { print(`${hit.value} at position ${hit.position}`); }"#,
);

pub(crate) const MARKED_TEXT: Declared<MarkedOptions> = Declared::new(
    "marked_text",
    &[
        "marked_text(acts: activations, options?: map) -> string",
        "marked_text(stored: results, options?: map) -> string",
    ],
    "The text of a record with `hits` for a web page, in which tokens with hits are marked by strength; pointing at one tells its \
     value, layer and dimension. Without texts of tokens it has their ids.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ observe: ["outliers", "hits"], hits_from: 3.0 });
print(acts.marked_text().len() > 0);"#,
);

pub(crate) fn register(engine: &mut Engine) {
    use crate::host::language::json::to_dynamic;
    use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};

    fn of<T: RecordHandle>(engine: &mut Engine) {
        engine.register_fn(HIT_PLACES.name(), |handle: T| to_dynamic(&places(handle.activations())));
    }
    of::<ActivationsHandle>(engine);
    of::<StoredHandle>(engine);
    TOKEN_HITS.register_on_records(engine, |acts, options| token_hits(acts, &options).map(|rows| list(&rows)));
    MARKED_TEXT.register_on_records(engine, |acts, options| marked(acts, &options).map(rhai::Dynamic::from));
}

/// Rows with the token of the largest value.
fn places(acts: &Activations) -> Value {
    let texts = acts.measures.token_texts.as_ref();
    let row = |of: &stats::HitPlaces| {
        let mut json = plain(of);
        let token = of.sequence * acts.sequence_length + of.position;
        json["token_id"] = plain(&texts.and_then(|texts| texts.ids.get(token)));
        json["token"] = plain(&texts.and_then(|texts| texts.of(token)));
        json
    };
    stats::places(acts).iter().map(row).collect()
}

fn token_hits(acts: &Activations, options: &TokenHitOptions) -> Result<Vec<Value>> {
    let TokenHitOptions { site, dims, layer, n } = options;
    let of = stats::site_hits(acts, *site)?;
    let texts = acts.measures.token_texts.as_ref();
    let marks = stats::marks(acts, of, dims, *layer)?;
    let mut hits: Vec<(usize, Mark)> =
        marks.into_iter().enumerate().filter_map(|(token, mark)| Some((token, mark?))).collect();
    hits.sort_by(|(_, a), (_, b)| b.value.abs().total_cmp(&a.value.abs()));
    hits.truncate(*n);
    let row = |(token, mark): (usize, Mark)| {
        json!({
            "value": plain(&mark.value), "layer": mark.layer, "dim": mark.dim, "layers": mark.layers, "site": of.site.name(),
            "sequence": token / acts.sequence_length, "position": token % acts.sequence_length,
            "exact": mark.exact, "token_id": texts.and_then(|texts| texts.ids.get(token)),
            "token": texts.and_then(|texts| texts.of(token)),
        })
    };
    Ok(hits.into_iter().map(row).collect())
}

/// What pointing at a token says.
fn told(of: &SiteHits, mark: &Mark, layer: Option<usize>) -> String {
    let value = if mark.exact { rounded(f64::from(mark.value), 2) } else { format!("|x| at least {}", mark.value) };
    match layer {
        Some(layer) => format!("{value}, layer {layer}, dimension {}", mark.dim),
        None => {
            let layers = format!("{} of {}", mark.layers, counted(of.layers.len(), "layer"));
            format!("{value} in layer {}, dimension {}; a hit in {layers}", mark.layer, mark.dim)
        }
    }
}

fn marked(acts: &Activations, options: &MarkedOptions) -> Result<String> {
    let MarkedOptions { site, dims, layer, sequence, n } = options;
    let of = stats::site_hits(acts, *site)?;
    let marks = stats::marks(acts, of, dims, *layer)?;
    let texts = acts.measures.token_texts.as_ref();
    let largest = marks.iter().flatten().fold(of.from, |most, mark| most.max(mark.value.abs()));
    let mut html = String::from("<div class=\"tokens\">\n");
    let mut left = *n;
    for sequence in *sequence..acts.num_sequences {
        let shown = left.min(acts.sequence_length);
        if shown == 0 {
            break;
        }
        left -= shown;
        html += &format!("<p data-sequence=\"{sequence}\">");
        let first = sequence * acts.sequence_length;
        for (token, mark) in marks.iter().enumerate().skip(first).take(shown) {
            let text = match texts.and_then(|texts| texts.of(token)) {
                Some(text) => escape(text).replace('\n', "⏎\n"),
                None => texts.and_then(|texts| texts.ids.get(token)).map_or("?".to_string(), u32::to_string) + " ",
            };
            match mark {
                None => html += &text,
                Some(mark) => {
                    let said = told(of, mark, *layer);
                    let step = stats::strength(mark.value, of.from, largest);
                    // A token without a visible text has something to point at.
                    let text = if text.is_empty() { "∅".to_string() } else { text };
                    let text = if text.trim().is_empty() { text.replace(' ', "␣") } else { text };
                    html += &format!("<span class=\"hit{step}\" title=\"{}\">{text}</span>", escape(&said));
                }
            }
        }
        if shown < acts.sequence_length {
            html += " …";
        }
        html += "</p>\n";
    }
    fits(html + "</div>\n")
}

fn fits(html: String) -> Result<String> {
    let checked: ScriptResult<()> = growth::fits(html.len());
    match checked {
        Ok(()) => Ok(html),
        Err(_) => Err(crate::error::Error::bad_argument("marked_text: the text is larger than a string of a script")
            .hint("ask for fewer tokens: #{ n: 1000 }")),
    }
}
