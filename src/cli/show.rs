//! `outlier show results/NAME`: the text of a stored record, with the tokens marked that have hits.

use std::path::PathBuf;

use clap::Args;
use unicode_width::UnicodeWidthStr;

use super::allow::path;
use super::rethreshold::stored;
use super::table::print_table;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::record::{Activations, Site, SiteHits};
use crate::results::Stored;
use crate::stats::{self, STRENGTHS};
use crate::terminal::{self, visible};
use crate::words::{counted, rounded};

/// Columns of a text that goes to a file or a pipe.
const USUAL_WIDTH: usize = 80;

#[derive(Args)]
pub(super) struct Show {
    /// Folder of a finished analysis, or its name below results/. Its record needs "hits" among what extract observed.
    #[arg(value_parser = path())]
    results: PathBuf,
    /// The site, such as attn_in or resid_post; by default the first with hits.
    #[arg(long)]
    site: Option<String>,
    /// A dimension; may be given several times. By default the features that pass, or else all with hits.
    #[arg(long = "feature", value_name = "DIM")]
    features: Vec<usize>,
    /// One layer only.
    #[arg(long)]
    layer: Option<usize>,
    /// A sequence; may be given several times. By default the first.
    #[arg(long = "sequence", value_name = "N")]
    sequences: Vec<usize>,
    /// All sequences.
    #[arg(long, conflicts_with = "sequences")]
    all: bool,
    /// The most tokens of a sequence that are shown.
    #[arg(long, value_name = "N", default_value_t = 512)]
    tokens: usize,
}

pub(super) fn run(asked: &Show) -> Result<Exit> {
    let stored = stored(&asked.results)?;
    let acts = &*stored.activations;
    let site = asked.site.as_deref().map(of_name).transpose()?;
    let of = stats::site_hits(acts, site)?;
    if let Some(missing) = asked.sequences.iter().find(|sequence| **sequence >= acts.num_sequences) {
        let known = counted(acts.num_sequences, "sequence");
        return Err(Error::not_found(format!("there is no sequence {missing}: the record has {known}"))
            .hint("sequences are numbered from 0"));
    }
    let dims = if asked.features.is_empty() { passing(&stored, of) } else { asked.features.clone() };
    let marks = stats::marks(acts, of, &dims, asked.layer)?;
    let largest = marks.iter().flatten().fold(of.from, |most, mark| most.max(mark.value.abs()));
    introduce(acts, of, asked.layer, &dims);
    print_places(acts, of, &dims);
    let sequences = match (asked.all, asked.sequences.is_empty()) {
        (true, _) => (0..acts.num_sequences).collect(),
        (false, true) => vec![0],
        (false, false) => asked.sequences.clone(),
    };
    let painted = terminal::width().is_some() && terminal::may_colour();
    for sequence in &sequences {
        terminal::line("");
        terminal::sentence(format!("sequence {sequence} of {}:", acts.num_sequences));
        let mut lines = Lines::new(painted, terminal::width().unwrap_or(USUAL_WIDTH));
        let shown = acts.sequence_length.min(asked.tokens);
        for position in 0..shown {
            let token = sequence * acts.sequence_length + position;
            let step = marks[token].map_or(0, |mark| stats::strength(mark.value, of.from, largest));
            lines.add(&piece(acts, token), step);
        }
        lines.end();
        if shown < acts.sequence_length {
            terminal::sentence(format!("… and {} more; --tokens N shows more", acts.sequence_length - shown));
        }
    }
    terminal::line("");
    legend(of, largest, painted);
    Ok(Exit::Done)
}

fn of_name(name: &str) -> Result<Site> {
    use crate::record::option_types::Word;
    Site::of_name(name).ok_or_else(|| {
        let known = Site::WORDS.iter().map(|(word, _)| *word);
        Error::bad_argument(format!("no site is called {name:?}")).hint(crate::suggest::hint(name, known))
    })
}

/// The features of the stored analysis that pass and have hits at this site; for other sites than
/// the norms, and if there is none, all dimensions.
fn passing(stored: &Stored, of: &SiteHits) -> Vec<usize> {
    let known = |dim: &usize| of.dims.iter().any(|known| known.dim == *dim && known.count > 0);
    let passing = stored.found.features.iter().map(|feature| feature.feature_dim).filter(known);
    if Site::NORMS.contains(&of.site) { passing.collect() } else { Vec::new() }
}

fn introduce(acts: &Activations, of: &SiteHits, layer: Option<usize>, dims: &[usize]) {
    let layers = match layer {
        Some(layer) => format!("in layer {layer}"),
        None => format!("in any of {}", counted(of.layers.len(), "layer")),
    };
    let features = match dims {
        [] => "any dimension".to_string(),
        [one] => format!("dimension {one}"),
        some => format!("one of the dimensions {}", some.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let (site, from) = (of.site.name(), of.from);
    terminal::sentence(format!("{}: tokens at which {features} has |x| ≥ {from} at {site} {layers}", acts.model.id));
    if of.others > 0 {
        let others = counted(of.others, "other dimension");
        terminal::sentence(format!("{others} with hits in fewer layers are not in the record"));
    }
}

fn print_places(acts: &Activations, of: &SiteHits, dims: &[usize]) {
    let here = |place: &stats::HitPlaces| {
        place.site == of.site.name() && (dims.is_empty() || dims.contains(&place.feature_dim))
    };
    let places: Vec<_> = stats::places(acts).into_iter().filter(here).collect();
    let row = |place: &stats::HitPlaces| {
        let token = place.sequence * acts.sequence_length + place.position;
        vec![
            place.feature_dim.to_string(),
            format!("{} of {}", place.layers_hit, place.layers),
            format!("{}{}", if place.whole { "" } else { "≥ " }, rounded(100.0 * place.share, 1)),
            place.place.clone(),
            rounded(f64::from(place.largest), 2),
            format!("layer {}, position {}, {}", place.layer, place.position, shown(&piece(acts, token))),
        ]
    };
    let columns = ["dimension", "layers", "% of tokens", "where", "largest x", "at"];
    if !places.is_empty() {
        print_table(&columns, places.iter().map(row).collect());
    }
}

/// The text of a token, or its id.
fn piece(acts: &Activations, token: usize) -> String {
    let texts = acts.measures.token_texts.as_ref();
    match texts.and_then(|texts| texts.of(token)) {
        Some(text) => text.to_string(),
        None => texts.and_then(|texts| texts.ids.get(token)).map_or_else(|| " ?".to_string(), |id| format!(" {id}")),
    }
}

/// A token on one line, with what cannot be seen of it.
fn shown(text: &str) -> String {
    let text = text.replace('\r', "").replace('\n', "⏎").replace('\t', "⇥");
    let text = if text.trim().is_empty() { text.replace(' ', "␣") } else { text };
    let text = visible(&text).into_owned();
    if text.is_empty() { "∅".to_string() } else { text }
}

/// A text of tokens in lines.
struct Lines {
    painted: bool,
    width: usize,
    used: usize,
}

impl Lines {
    fn new(painted: bool, width: usize) -> Self {
        Self { painted, width: width.max(20), used: 0 }
    }

    fn add(&mut self, text: &str, step: usize) {
        let breaks = text.contains('\n');
        let mut text = match step {
            0 => text.replace('\r', "").replace('\t', "  ").replace('\n', ""),
            _ => shown(text),
        };
        if !self.painted && step > 0 {
            // The space before a word stays outside of its mark.
            let word = text.trim_start();
            text = format!("{}[{word}]{step}", &text[..text.len() - word.len()]);
        }
        if self.used + text.width() > self.width {
            self.end();
        }
        if self.used == 0 && !(self.painted && step > 0) {
            text = text.trim_start().to_string();
        }
        // A token that is longer than a line is cut.
        for part in parts(&text, self.width) {
            if self.used + part.width() > self.width {
                self.end();
            }
            if self.painted && step > 0 {
                terminal::painted(&part, step)
            } else {
                terminal::out(&part)
            }
            self.used += part.width();
        }
        if breaks && self.used == 0 {
            terminal::line("");
        } else if breaks {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.used > 0 {
            terminal::line("");
        }
        self.used = 0;
    }
}

/// Pieces of a text of at most `width` columns.
fn parts(text: &str, width: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for c in text.chars() {
        match parts.last_mut().filter(|part| part.width() + 2 <= width) {
            Some(part) => part.push(c),
            None => parts.push(c.to_string()),
        }
    }
    parts
}

/// What the marks mean.
fn legend(of: &SiteHits, largest: f32, painted: bool) {
    let grows = (f64::from(largest) / f64::from(of.from)).max(1.0);
    let least = |step: usize| f64::from(of.from) * grows.powf((step - 1) as f64 / STRENGTHS as f64);
    let steps: Vec<String> = (1..=STRENGTHS).map(|step| format!("{step}: |x| ≥ {}", rounded(least(step), 1))).collect();
    if painted {
        for (i, text) in steps.iter().enumerate() {
            terminal::painted(&format!(" {text} "), i + 1);
        }
        terminal::line("");
    } else {
        terminal::sentence(format!("[token]strength, {}", steps.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tokens_are_cut_and_invisible_ones_are_seen() {
        assert_eq!(parts("abcdef", 4), ["abc", "def"]);
        assert_eq!(parts("", 4), Vec::<String>::new());
        assert_eq!([shown("\n"), shown("  "), shown(""), shown(" a\u{1b}[0m")], ["⏎", "␣␣", "∅", " a\\u{1b}[0m"]);
    }
}
