//! The option `lanes`: maps of a script as variants of the model.

use rhai::{Array, Dynamic, Map};

use crate::error::{Error, Result};
use crate::host::values::option_types::ReadOption;
use crate::host::values::options::Options;
use crate::record::option_types::{Choice, Choices, Float32, Floats, SeedNumber, Text, Whole, Wholes};
use crate::record::{ActivationFormat, Change, Dims, Lane, Lanes, NewValue, Places, Site, WeightFormat, WeightPlace};
use crate::suggest;

/// What the messages are about.
const OF: &str = "extract: `lanes`";

/// Every kind of change with its keys beside `what`.
const KINDS: [(&str, &[&str]); 11] = [
    ("zero", &["what", "sites", "layers", "positions", "dims", "random", "seed", "except"]),
    ("scale", &["what", "sites", "layers", "positions", "dims", "random", "seed", "except", "factor"]),
    ("mean", &["what", "sites", "layers", "positions", "dims", "random", "seed", "except"]),
    ("set", &["what", "sites", "layers", "positions", "dims", "values"]),
    ("zero_beyond", &["what", "sites", "layers", "positions", "threshold"]),
    ("zero_elements", &["what", "layer", "elements"]),
    ("mean_elements", &["what", "layer", "elements"]),
    ("zero_weight", &["what", "layer", "module", "expert", "row", "column"]),
    ("experts_off", &["what", "layer", "experts"]),
    ("round_activations", &["what", "format", "layers"]),
    ("round_weights", &["what", "format", "layers"]),
];

impl ReadOption for Lanes {
    fn read(o: &Options, key: &str) -> Result<Option<Vec<Lane>>> {
        o.any(key, |value, what| maps(value, what)?.into_iter().map(lane).collect())
    }
}

/// The maps of an array.
fn maps(value: &Dynamic, what: &str) -> Result<Vec<Map>> {
    let hint = "`outlier doc extract` has an example, and docs/lanes.md all changes";
    let Some(items) = value.read_lock::<Array>() else {
        return Err(Error::bad_argument(format!("{what} is {value}, expected an array of maps")).hint(hint));
    };
    let map = |item: &Dynamic| item.read_lock::<Map>().map(|map| map.clone());
    let all: Option<Vec<Map>> = items.iter().map(map).collect();
    all.ok_or_else(|| Error::bad_argument(format!("{what} has something that is no map")).hint(hint))
}

fn lane(map: Map) -> Result<Lane> {
    let o = Options::new(OF, map, &["name", "changes"])?;
    let name = required(&o, "name", Text::read(&o, "name")?)?;
    let changes = o.any("changes", maps)?;
    let changes = required(&o, "changes", changes)?.into_iter().map(change).collect::<Result<_>>()?;
    Ok(Lane { name, changes })
}

fn required<T>(o: &Options, key: &str, value: Option<T>) -> Result<T> {
    o.required(key, value)
}

fn change(map: Map) -> Result<Change> {
    let kind = map.get("what").map(ToString::to_string).unwrap_or_default();
    let Some((_, keys)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let hint = suggest::hint(&kind, KINDS.iter().map(|(name, _)| *name));
        return Err(Error::bad_argument(format!("{OF}: `what` of a change is {kind:?}")).hint(hint));
    };
    let o = &Options::new(OF, map, keys)?;
    let places = || -> Result<Places> {
        Ok(Places {
            sites: required(o, "sites", Choices::<Site>::read(o, "sites")?)?,
            layers: wholes(o, "layers")?,
            positions: wholes(o, "positions")?,
        })
    };
    let whole = |key| required(o, key, Whole::read(o, key)?);
    let features = |to| -> Result<Change> { Ok(Change::Features { to, dims: dims(o)?, at: places()? }) };
    let elements = |to| -> Result<Change> {
        Ok(Change::Elements {
            to,
            layer: whole("layer")?,
            elements: required(o, "elements", o.any("elements", triples)?)?,
        })
    };
    match kind.as_str() {
        "zero" => features(NewValue::Zero),
        "scale" => features(NewValue::Scale(required(o, "factor", Float32::read(o, "factor")?)?)),
        "mean" => features(NewValue::Mean),
        "set" => {
            let values = required(o, "values", Floats::read(o, "values")?)?;
            features(NewValue::Given(values.into_iter().map(|value| value as f32).collect()))
        }
        "zero_beyond" => {
            let threshold = required(o, "threshold", Float32::read(o, "threshold")?)?;
            Ok(Change::ZeroBeyond { threshold, at: places()? })
        }
        "zero_elements" => elements(NewValue::Zero),
        "mean_elements" => elements(NewValue::Mean),
        "zero_weight" => Ok(Change::ZeroWeight(WeightPlace {
            layer: whole("layer")?,
            module: required(o, "module", Text::read(o, "module")?)?,
            expert: Whole::read(o, "expert")?,
            row: whole("row")?,
            column: whole("column")?,
        })),
        "experts_off" => Ok(Change::ExpertsOff {
            layer: whole("layer")?,
            experts: required(o, "experts", Wholes::read(o, "experts")?)?,
        }),
        "round_activations" => {
            let format = required(o, "format", Choice::<ActivationFormat>::read(o, "format")?)?;
            Ok(Change::RoundActivations { format, layers: wholes(o, "layers")? })
        }
        _ => {
            let format = required(o, "format", Choice::<WeightFormat>::read(o, "format")?)?;
            Ok(Change::RoundWeights { format, layers: wholes(o, "layers")? })
        }
    }
}

/// A list that stands for all if it is left out.
fn wholes(o: &Options, key: &str) -> Result<Vec<usize>> {
    let given = Wholes::read(o, key)?;
    if given.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::bad_argument(format!("{OF}: `{key}` is empty")).hint("leave it out for all"));
    }
    Ok(given.unwrap_or_default())
}

/// Given features, or drawn ones.
fn dims(o: &Options) -> Result<Dims> {
    let given = Wholes::read(o, "dims")?;
    let random = if o.knows("random") { Whole::read(o, "random")? } else { None };
    match (given, random) {
        (Some(dims), None) => match ["seed", "except"].into_iter().find(|key| o.knows(key) && o.has(key)) {
            Some(key) => Err(Error::bad_argument(format!("{OF}: `{key}` goes with `random`")).hint("leave it out")),
            None => Ok(Dims::Given(dims)),
        },
        (None, Some(count)) => Ok(Dims::Random {
            count,
            seed: SeedNumber::read(o, "seed")?.unwrap_or(0),
            except: Wholes::read(o, "except")?.unwrap_or_default(),
        }),
        (Some(_), Some(_)) => Err(Error::bad_argument(format!("{OF}: a change has `dims` and `random`"))
            .hint("give the features, or how many are drawn")),
        (None, None) => Err(Error::bad_argument(format!("{OF}: a change of features says none"))
            .hint("give `dims`, or `random`: how many are drawn")),
    }
}

/// [[sequence, position, dimension], …]
fn triples(value: &Dynamic, what: &str) -> Result<Vec<[usize; 3]>> {
    let index = |item: &Dynamic| usize::try_from(item.as_int().ok()?).ok();
    let triple = |item: &Dynamic| -> Option<[usize; 3]> {
        let items = item.read_lock::<Array>()?;
        items.iter().map(index).collect::<Option<Vec<_>>>()?.try_into().ok()
    };
    let all = value.read_lock::<Array>().and_then(|items| items.iter().map(triple).collect::<Option<Vec<_>>>());
    all.ok_or_else(|| {
        Error::bad_argument(format!("{what} is {value}"))
            .hint("give [[sequence, position, dimension], …], counted from 0")
    })
}
