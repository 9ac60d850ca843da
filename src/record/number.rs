//! JSON representation of floats that may be infinite or NaN: the strings `"Infinity"`,
//! `"-Infinity"` and `"NaN"`, as in the JSON mapping of Protocol Buffers. Python's `float()` and
//! JavaScript's `Number()` parse them. Finite floats are JSON numbers. On the wire between
//! machines, which is not JSON, all are plain floats.
//!
//! `#[serde(with = "number")]` marks every stored float that may be one of these: the loss of a
//! model, for example, may be infinite.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

pub trait Float: Copy + Serialize + for<'de> Deserialize<'de> {
    fn wide(self) -> f64;
    fn of(wide: f64) -> Self;
}

impl Float for f32 {
    fn wide(self) -> f64 {
        self.into()
    }

    fn of(wide: f64) -> Self {
        wide as f32
    }
}

impl Float for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn of(wide: f64) -> Self {
        wide
    }
}

/// A field of floats in a record: a float, an array, a list or an option.
pub trait Numbers: Sized {
    /// The same structure with every float wrapped for serialisation.
    type Form: Serialize + for<'de> Deserialize<'de>;
    fn form(&self) -> Self::Form;
    fn of_form(form: Self::Form) -> Self;
}

/// A float that serialises as described above.
pub struct Number<T>(T);

/// # Errors
/// The errors of the serializer.
pub fn serialize<T: Numbers, S: Serializer>(numbers: &T, to: S) -> Result<S::Ok, S::Error> {
    numbers.form().serialize(to)
}

/// # Errors
/// The errors of the deserializer, and an unknown string.
pub fn deserialize<'de, T: Numbers, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::Form::deserialize(from).map(T::of_form)
}

impl Numbers for f32 {
    type Form = Number<f32>;

    fn form(&self) -> Number<f32> {
        Number(*self)
    }

    fn of_form(form: Number<f32>) -> Self {
        form.0
    }
}

impl Numbers for f64 {
    type Form = Number<f64>;

    fn form(&self) -> Number<f64> {
        Number(*self)
    }

    fn of_form(form: Number<f64>) -> Self {
        form.0
    }
}

impl Numbers for [f64; 3] {
    type Form = [Number<f64>; 3];

    fn form(&self) -> Self::Form {
        self.map(Number)
    }

    fn of_form(form: Self::Form) -> Self {
        form.map(|number| number.0)
    }
}

impl<T: Numbers> Numbers for Vec<T> {
    type Form = Vec<T::Form>;

    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }

    fn of_form(form: Self::Form) -> Self {
        form.into_iter().map(T::of_form).collect()
    }
}

impl<T: Numbers> Numbers for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }

    fn of_form(form: Self::Form) -> Self {
        form.map(T::of_form)
    }
}

/// The floats as JSON, finite ones in their shortest form.
pub fn plain(numbers: &impl Numbers) -> serde_json::Value {
    super::plain(&numbers.form())
}

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const MINUS_INFINITY: &str = "-Infinity";

/// The float that one of the three strings stands for.
pub fn named(text: &str) -> Option<f64> {
    match text {
        NAN => Some(f64::NAN),
        INFINITY => Some(f64::INFINITY),
        MINUS_INFINITY => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

impl<T: Float> Serialize for Number<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let wide = self.0.wide();
        match wide.is_finite() || !to.is_human_readable() {
            true => self.0.serialize(to),
            false if wide.is_nan() => to.serialize_str(NAN),
            false => to.serialize_str(if wide > 0.0 { INFINITY } else { MINUS_INFINITY }),
        }
    }
}

impl<'de, T: Float> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.is_human_readable() {
            true => from.deserialize_any(Read(PhantomData)),
            false => T::deserialize(from).map(Self),
        }
    }
}

struct Read<T>(PhantomData<T>);

impl<T: Float> Visitor<'_> for Read<T> {
    type Value = Number<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a number, or \"{NAN}\", \"{INFINITY}\" or \"{MINUS_INFINITY}\"")
    }

    fn visit_f64<E: Error>(self, wide: f64) -> Result<Self::Value, E> {
        Ok(Number(T::of(wide)))
    }

    fn visit_u64<E: Error>(self, whole: u64) -> Result<Self::Value, E> {
        Ok(Number(T::of(whole as f64)))
    }

    fn visit_i64<E: Error>(self, whole: i64) -> Result<Self::Value, E> {
        Ok(Number(T::of(whole as f64)))
    }

    /// Older versions of the program wrote null.
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Number(T::of(f64::NAN)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let wide = named(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Other("another text"), &self))?;
        Ok(Number(T::of(wide)))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::super::number;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Losses {
        #[serde(with = "number")]
        one: f64,
        #[serde(with = "number")]
        all: Option<Vec<f32>>,
    }

    #[test]
    fn infinite_losses_come_back_from_json_and_finite_ones_are_plain_numbers() {
        let losses = Losses { one: f64::NEG_INFINITY, all: Some(vec![5.8, f32::INFINITY]) };
        let text = serde_json::to_string(&losses).unwrap();
        assert_eq!(text, r#"{"one":"-Infinity","all":[5.8,"Infinity"]}"#);
        assert_eq!(serde_json::from_str::<Losses>(&text).unwrap(), losses);
        assert_eq!(serde_json::from_value::<Losses>(serde_json::from_str(&text).unwrap()).unwrap(), losses);
        let back: Losses = serde_json::from_str(r#"{"one":3,"all":["NaN",-1,null]}"#).unwrap();
        assert!(back.one == 3.0 && back.all.as_ref().unwrap()[0].is_nan() && back.all.as_ref().unwrap()[1] == -1.0);
        assert!(back.all.unwrap()[2].is_nan(), "as older programs have written it");
        assert!(serde_json::from_str::<Losses>(r#"{"one":"inf","all":null}"#).is_err());
        let wire = rmp_serde::to_vec_named(&losses).unwrap();
        assert_eq!(rmp_serde::from_slice::<Losses>(&wire).unwrap(), losses);
    }
}
