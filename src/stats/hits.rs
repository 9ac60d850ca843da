//! Which tokens hits are at: by position, by the kind of token, and token by token.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::record::{Activations, DimHits, Site, SiteHits, number};

/// From this share of tokens on a feature is hit everywhere.
const EVERYWHERE: f64 = 0.9;
/// A kind of tokens with this share of the hits is the place where hits are.
const CHIEFLY: f64 = 0.8;
/// Values from this share of the largest one on are as strong as it.
const STRONG: f32 = 0.1;
/// The largest share of tokens at which strong values are a spike.
const SPIKE: f64 = 0.05;

/// A kind of tokens. The first position is a kind of its own, whatever its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Position 0 of a sequence.
    First,
    /// White space with a line break.
    Newline,
    /// Other white space.
    Space,
    /// Neither letters nor digits.
    Punctuation,
    /// Digits, perhaps with punctuation, and no letters.
    Digits,
    /// Letters behind white space, or the begin of a text.
    Word,
    /// Letters that go on with a word.
    Part,
    /// Nothing that can be read: a special token without text, or a piece of a character.
    Other,
    /// The text is not known.
    Unknown,
}

impl TokenKind {
    pub const ALL: [Self; 9] = [
        Self::First,
        Self::Newline,
        Self::Space,
        Self::Punctuation,
        Self::Digits,
        Self::Word,
        Self::Part,
        Self::Other,
        Self::Unknown,
    ];

    /// The kind of a token with this text, at a position other than the first.
    pub fn of(text: &str) -> Self {
        let visible = || text.chars().filter(|c| !c.is_whitespace());
        if text.is_empty() || text.contains('\u{fffd}') {
            Self::Other
        } else if visible().next().is_none() {
            if text.contains('\n') { Self::Newline } else { Self::Space }
        } else if visible().any(char::is_alphabetic) {
            if text.starts_with(char::is_whitespace) { Self::Word } else { Self::Part }
        } else if visible().any(char::is_numeric) {
            Self::Digits
        } else {
            Self::Punctuation
        }
    }

    /// Where hits are that are at tokens of this kind.
    fn place(self) -> &'static str {
        match self {
            Self::First => "first position",
            Self::Newline => "newlines",
            Self::Space => "spaces",
            Self::Punctuation => "punctuation",
            Self::Digits => "digits",
            Self::Word => "words",
            Self::Part => "parts of words",
            Self::Other => "tokens without text",
            Self::Unknown => "other positions",
        }
    }
}

/// The kinds of all tokens of a record, [sequences * positions].
pub fn kinds(acts: &Activations) -> Vec<TokenKind> {
    let texts = acts.measures.token_texts.as_ref();
    let of = |token: usize| match texts.and_then(|texts| texts.of(token)) {
        _ if token.is_multiple_of(acts.sequence_length.max(1)) => TokenKind::First,
        Some(text) => TokenKind::of(text),
        None => TokenKind::Unknown,
    };
    (0..acts.num_sequences * acts.sequence_length).map(of).collect()
}

/// How many tokens of a kind are hit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KindShare {
    pub kind: TokenKind,
    /// Number of tokens of this kind.
    pub tokens: usize,
    /// Number of these with a hit.
    pub hit: usize,
}

/// Where the hits of a feature are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HitPlaces {
    pub site: &'static str,
    pub feature_dim: usize,
    /// Number of layers with a hit, of the `layers` that have the site.
    pub layers_hit: usize,
    pub layers: usize,
    /// Number of tokens with a hit in any layer, and its share of all tokens.
    pub tokens: usize,
    pub share: f64,
    /// Number of hits in all layers.
    pub hits: u64,
    /// The value of the largest magnitude, signed, and where it is.
    #[serde(with = "number")]
    pub largest: f32,
    pub layer: usize,
    pub sequence: usize,
    pub position: usize,
    /// Median over tokens with a hit of their largest |x|.
    #[serde(with = "number")]
    pub median: f32,
    /// In words.
    pub place: String,
    /// False if hits are missing, because there was no memory for all.
    pub whole: bool,
    /// Kinds that occur in the text.
    pub kinds: Vec<KindShare>,
}

/// Where the hits of each feature in the record are, by site. Features without a hit are left out.
pub fn places(acts: &Activations) -> Vec<HitPlaces> {
    if acts.measures.hits.is_empty() {
        return Vec::new();
    }
    let kinds = kinds(acts);
    let of_site = |of: &SiteHits| -> Vec<HitPlaces> {
        let with_hits = of.dims.iter().filter(|dim| dim.count > 0);
        with_hits.filter_map(|dim| of_dim(acts, &kinds, of, dim)).collect()
    };
    acts.measures.hits.iter().flat_map(of_site).collect()
}

fn of_dim(acts: &Activations, kinds: &[TokenKind], of: &SiteHits, dim: &DimHits) -> Option<HitPlaces> {
    let hits = &dim.tokens;
    // The first of equal ones.
    let at = (0..hits.value.len()).reduce(|a, b| if hits.value[b].abs() > hits.value[a].abs() { b } else { a })?;
    let token = hits.token[at] as usize;
    let mut magnitudes: Vec<f32> = hits.value.iter().map(|x| x.abs()).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    let median = magnitudes[magnitudes.len() / 2];
    let share = hits.token.len() as f64 / kinds.len().max(1) as f64;
    Some(HitPlaces {
        site: of.site.name(),
        feature_dim: dim.dim,
        layers_hit: dim.layers_hit,
        layers: of.layers.len(),
        tokens: hits.token.len(),
        share,
        hits: dim.hits,
        largest: hits.value[at],
        layer: hits.layer[at].into(),
        sequence: token / acts.sequence_length,
        position: token % acts.sequence_length,
        median,
        place: place(dim, kinds, hits.value[at].abs()),
        whole: dim.whole,
        kinds: shares(kinds, hits.token.iter().map(|token| *token as usize)),
    })
}

fn shares(kinds: &[TokenKind], hit: impl Iterator<Item = usize>) -> Vec<KindShare> {
    let mut all = TokenKind::ALL.map(|kind| KindShare { kind, tokens: 0, hit: 0 });
    kinds.iter().for_each(|kind| all[*kind as usize].tokens += 1);
    hit.for_each(|token| all[kinds[token] as usize].hit += 1);
    all.into_iter().filter(|of| of.tokens > 0).collect()
}

/// Where hits are, in words; and where the strong ones are, if these are few.
fn place(dim: &DimHits, kinds: &[TokenKind], largest: f32) -> String {
    let hits = &dim.tokens;
    let share = |count: usize| count as f64 / kinds.len().max(1) as f64;
    let chief = |tokens: &[usize]| {
        let counted = shares(kinds, tokens.iter().copied());
        counted.into_iter().find(|of| of.hit as f64 >= CHIEFLY * tokens.len() as f64).map(|of| of.kind.place())
    };
    let all: Vec<usize> = hits.token.iter().map(|token| *token as usize).collect();
    let strong = hits.value.iter().zip(&all).filter(|(x, _)| x.abs() >= STRONG * largest);
    let strong: Vec<usize> = strong.map(|(_, token)| *token).collect();
    let everywhere = share(all.len()) >= EVERYWHERE;
    let where_hit = match chief(&all) {
        _ if everywhere => "everywhere",
        Some(place) => place,
        None if share(all.len()) >= 0.5 => "most tokens",
        None => "some tokens",
    };
    match chief(&strong) {
        Some(place) if share(strong.len()) <= SPIKE && strong.len() < all.len() && place != where_hit => {
            format!("{where_hit}; a spike at {place}")
        }
        _ => where_hit.to_string(),
    }
}

/// The strongest hit at a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// The value of the largest magnitude, or, in one layer, the rung that it reaches.
    pub value: f32,
    pub layer: usize,
    pub dim: usize,
    /// Number of layers with a hit of this dimension at this token.
    pub layers: usize,
    /// False if `value` is a rung.
    pub exact: bool,
}

/// Number of steps of strength in a marked text.
pub const STRENGTHS: usize = 5;

/// The strength of a hit, from 1 to `STRENGTHS`, in equal steps of the logarithm from the least hit
/// to the largest.
pub fn strength(value: f32, from: f32, largest: f32) -> usize {
    let (value, from) = (f64::from(value.abs()), f64::from(from).max(f64::MIN_POSITIVE));
    let share = (value / from).ln() / (f64::from(largest) / from).ln().max(1e-9);
    1 + ((share * STRENGTHS as f64) as usize).min(STRENGTHS - 1)
}

/// The hits of a site; without a site, those of the first.
///
/// # Errors
/// `not_found` with the sites that there are.
pub fn site_hits(acts: &Activations, site: Option<Site>) -> Result<&SiteHits> {
    let all = &acts.measures.hits;
    let found = match site {
        Some(site) => all.iter().find(|of| of.site == site),
        None => all.iter().find(|of| of.dims.iter().any(|dim| dim.count > 0)).or(all.first()),
    };
    found.ok_or_else(|| match (all.is_empty(), site) {
        (false, Some(site)) => {
            let there: Vec<&str> = all.iter().map(|of| of.site.name()).collect();
            Error::not_found(format!("the record has no hits by token of {}", site.name()))
                .hint(format!("it has those of {}", there.join(", ")))
        }
        _ => Error::not_found("the record does not say at which tokens hits are")
            .hint("measure it: model.extract(tokens, #{ observe: [\"outliers\", \"hits\"] })"),
    })
}

/// For each token the strongest hit of `dims`, or of all dimensions if there are none; of one layer
/// only, if it is given. [sequences * positions]
///
/// # Errors
/// `not_found` for a dimension or layer that is not there.
pub fn marks(acts: &Activations, of: &SiteHits, dims: &[usize], layer: Option<usize>) -> Result<Vec<Option<Mark>>> {
    if let Some(missing) = dims.iter().find(|dim| of.dims.iter().all(|known| known.dim != **dim)) {
        let there: Vec<String> = of.dims.iter().filter(|dim| dim.count > 0).map(|dim| dim.dim.to_string()).collect();
        let error = Error::not_found(format!("no hits of dimension {missing} are kept at {}", of.site.name()));
        return Err(match there.is_empty() {
            true => error.hint(format!("no value reaches {} there", of.from)),
            false => error.hint(format!("there are those of {}", there.join(", "))),
        });
    }
    let place = layer.map(|layer| {
        of.layers.iter().position(|known| *known == layer).ok_or_else(|| {
            Error::not_found(format!("layer {layer} has no {}", of.site.name())).hint("layers count from 0")
        })
    });
    let place = place.transpose()?;
    let mut marks: Vec<Option<Mark>> = vec![None; acts.num_sequences * acts.sequence_length];
    for dim in of.dims.iter().filter(|dim| dims.is_empty() || dims.contains(&dim.dim)) {
        let hits = &dim.tokens;
        for (i, token) in hits.token.iter().enumerate() {
            let rungs = &hits.rungs[i * of.layers.len()..][..of.layers.len()];
            let layers = rungs.iter().filter(|rungs| **rungs > 0).count();
            let mark = match place {
                None => Mark { value: hits.value[i], layer: hits.layer[i].into(), dim: dim.dim, layers, exact: true },
                Some(place) => {
                    let Some(rung) = usize::from(rungs[place]).checked_sub(1) else { continue };
                    let value = acts.ladder.get(rung).copied().unwrap_or(of.from);
                    // Of the layer where it is largest the value itself is known.
                    let exact = usize::from(hits.layer[i]) == of.layers[place];
                    let value = if exact { hits.value[i] } else { value };
                    Mark { value, layer: of.layers[place], dim: dim.dim, layers, exact }
                }
            };
            let at = &mut marks[*token as usize];
            if at.is_none_or(|known| mark.value.abs() > known.value.abs()) {
                *at = Some(mark);
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;
    use crate::record::{TokenHits, TokenTexts};

    #[test]
    fn tokens_have_kinds_by_their_text() {
        let of =
            [" the", "ing", "\n", " \n\n", " ", ".", " \"", "1", " 19", "é", "", "\u{fffd}", "a1"].map(TokenKind::of);
        use TokenKind::*;
        let expected =
            [Word, Part, Newline, Newline, Space, Punctuation, Punctuation, Digits, Digits, Part, Other, Other, Part];
        assert_eq!(of, expected);
    }

    /// Two sequences of four tokens, with hits of dimension 2 in a site of two layers.
    fn record(token: Vec<u32>, value: Vec<f32>) -> Activations {
        let mut acts = Dense::filled(2, 2, 4, 4, 7.0).activations(&[3.0, 6.0, 50.0]);
        let count = token.len();
        let rungs = token.iter().flat_map(|_| [2, 0]).collect();
        let tokens = TokenHits { token, value, layer: vec![0; count], rungs };
        let dim = DimHits { dim: 2, layers_hit: 1, hits: count as u64, count, whole: true, tokens };
        let of = SiteHits { site: Site::AttnIn, layers: vec![0, 1], from: 6.0, others: 0, dims: vec![dim] };
        acts.measures.hits = vec![of];
        let mut texts = TokenTexts { ids: (0..8).collect(), ..TokenTexts::default() };
        texts.set(&["The", " lamp", ".", "\n", "It", " is", ".", "\n"].map(String::from));
        acts.measures.token_texts = Some(texts);
        acts
    }

    #[test]
    fn the_place_is_that_of_most_hits() {
        let said = |token: &[u32], value: &[f32]| places(&record(token.to_vec(), value.to_vec()))[0].place.clone();
        assert_eq!(said(&[0, 4], &[7.0, 8.0]), "first position");
        assert_eq!(said(&[3, 7], &[7.0, 8.0]), "newlines");
        assert_eq!(said(&[2, 3], &[7.0, 8.0]), "some tokens");
        assert_eq!(said(&[0, 1, 2, 3, 4, 5, 6, 7], &[7.0; 8]), "everywhere");
        let of = &places(&record(vec![2, 6], vec![7.0, -9.0]))[0];
        assert_eq!(
            (of.place.as_str(), of.largest, of.sequence, of.position, of.share),
            ("punctuation", -9.0, 1, 2, 0.25)
        );
    }

    #[test]
    fn without_texts_only_the_first_position_is_known() {
        let mut acts = record(vec![0, 4], vec![7.0, 8.0]);
        acts.measures.token_texts = None;
        assert_eq!(places(&acts)[0].place, "first position");
        let of: Vec<_> = places(&acts)[0].kinds.iter().map(|of| (of.kind, of.tokens, of.hit)).collect();
        assert_eq!(of, [(TokenKind::First, 2, 2), (TokenKind::Unknown, 6, 0)]);
    }

    #[test]
    fn marks_of_a_layer_are_those_of_its_rungs() {
        let mut acts = record(vec![1, 5], vec![60.0, -9.0]);
        acts.measures.hits[0].dims[0].tokens.rungs = vec![3, 2, 2, 0];
        let of = site_hits(&acts, None).unwrap();
        let values = |layer| -> Vec<Option<f32>> {
            marks(&acts, of, &[], layer).unwrap().iter().map(|mark| mark.map(|mark| mark.value)).collect()
        };
        assert_eq!(values(None)[1..6], [Some(60.0), None, None, None, Some(-9.0)]);
        assert_eq!(values(Some(1))[1..6], [Some(6.0), None, None, None, None]);
        assert!(marks(&acts, of, &[3], None).unwrap_err().hint.unwrap().contains("those of 2"));
        assert!(marks(&acts, of, &[2], Some(7)).is_err());
    }
}
