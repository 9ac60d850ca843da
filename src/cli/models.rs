//! `outlier models`: which models are computed, and how each architecture was verified.

use clap::Args;

use super::table::print_table;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::spec::catalogue::{ARCHITECTURES, Architecture, COMPARED};
use crate::suggest;
use crate::terminal;

const COLUMNS: [&str; 5] = ["model_type", "for example", "fixtures", "from transformers", "from f64"];

#[derive(Args)]
pub(super) struct Models {
    /// A part of a model_type or of a model's name; all are listed where none is given.
    name: Option<String>,
}

pub(super) fn models(asked: &Models) -> Result<Exit> {
    let wanted = asked.name.as_deref().unwrap_or_default().to_lowercase();
    let has = |one: &&Architecture| {
        format!("{} {}", one.names(), one.releases).to_lowercase().split(", inside").any(|text| text.contains(&wanted))
    };
    let found: Vec<&Architecture> = ARCHITECTURES.iter().filter(has).collect();
    if found.is_empty() {
        let name = asked.name.as_deref().unwrap_or_default();
        let known = ARCHITECTURES.iter().map(|one| one.model_type);
        return Err(Error::bad_argument(format!("no architecture and no example has \"{name}\" in its name"))
            .hint(suggest::hint(name, known)));
    }
    print_table(&COLUMNS, found.iter().map(|one| cells(one)).collect());
    if let [one] = found[..] {
        let [input, post] = one.norms;
        terminal::sentence(format!(
            "\nThe site input_layernorm is, among the modules of transformers: {input}; post_attention_layernorm is: {post}."
        ));
    }
    terminal::sentence(format!("\n{COMPARED}"));
    Ok(Exit::Done)
}

fn cells(one: &Architecture) -> Vec<String> {
    let [apart, second] = one.apart.map(|figure| format!("{figure:.0e}"));
    vec![one.names(), one.releases.to_string(), one.fixtures.join(", "), apart, second]
}
